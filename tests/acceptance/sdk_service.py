"""A user's service for the acceptance test of the SDK: `python -m tests.acceptance.sdk_service PORT FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import crony_sdk
from crony_sdk import wsgi

FOLDER = Path(sys.argv[2])


@crony_sdk.handler("orders/close day 日")
def plain(context: crony_sdk.Context) -> dict[str, object]:
    return {"region": context.params["region"], "attempt": context.call.attempt, "job": context.call.job}


@crony_sdk.handler("long", background=True)
def long(context: crony_sdk.Context) -> dict[str, object]:
    """Works until the gate, a file, is there, and leaves a line when it begins and when it ends."""
    context.progress(40, "under way")
    context.log("it has begun")
    _mark(context, "begun")
    while not (FOLDER / context.params["gate"]).exists():
        if context.wait_cancelled(0.05):
            _mark(context, "cancelled")
            context.check()
    _mark(context, "done")
    return {"attempt": context.call.attempt}


@crony_sdk.handler("breaks", background=True, retry=crony_sdk.Retry(times=2, delay=0.01))
def breaks(context: crony_sdk.Context) -> None:
    _mark(context, "tried")
    raise crony_sdk.Failed("there are no rates", code=17)


def _mark(context: crony_sdk.Context, what: str) -> None:
    with (FOLDER / "marks").open("a") as file:
        file.write(f"{context.call.run} {context.call.attempt} {what}\n")


if __name__ == "__main__":
    wsgi.serve(crony_sdk.Service(spool=FOLDER / "spool"), port=int(sys.argv[1]), grace=0.5)
