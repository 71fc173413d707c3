"""A service with the SDK's gRPC server: `python -m tests.helpers.sdk_grpc_service FOLDER SECRETS [PORT]`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import crony_sdk
import crony_sdk.grpc

FOLDER, SECRETS = Path(sys.argv[1]), sys.argv[2]


@crony_sdk.handler("close day 日")
def close(context: crony_sdk.Context) -> dict[str, object]:
    _mark(context, "called")
    call = context.call
    return {"params": context.params, "attempt": call.attempt, "job": call.job, "pid": os.getpid()}


@crony_sdk.handler("slow")
def slow(context: crony_sdk.Context) -> None:
    _mark(context, "begun")
    _mark(context, "cancelled" if context.wait_cancelled(60) else "waited")


@crony_sdk.handler("breaks")
def breaks(context: crony_sdk.Context) -> None:
    raise crony_sdk.Failed("there are no rates", code=17, final=context.params["final"])


@crony_sdk.handler("raises")
def raises(context: crony_sdk.Context) -> None:
    raise ValueError("no luck")


@crony_sdk.handler("dies")
def dies(context: crony_sdk.Context) -> None:
    _mark(context, "called")
    os._exit(1)


@crony_sdk.handler("long", background=True)
def long(context: crony_sdk.Context) -> dict[str, object]:
    _mark(context, "begun")
    context.log("it has begun")
    while not (FOLDER / context.params["gate"]).exists():
        if context.wait_cancelled(0.05):
            _mark(context, "cancelled")
            context.check()
    return {"attempt": context.call.attempt}


def _mark(context: crony_sdk.Context, what: str) -> None:
    with (FOLDER / "marks").open("a") as file:
        file.write(f"{context.call.run} {context.call.attempt} {what}\n")


if __name__ == "__main__":
    port = sys.argv[3] if len(sys.argv) > 3 else "0"
    service = crony_sdk.Service(spool=FOLDER / "spool", secrets=[SECRETS])
    ready = FOLDER / "ready"
    crony_sdk.grpc.serve(
        service, f"127.0.0.1:{port}", ready=lambda number: ready.write_text(f"{number}\n") and None, grace=0.5
    )
