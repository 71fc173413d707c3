"""The contract of services that use the SDK (`proto/crony/v1/callback.proto`): the request, and what answers mean."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from google.protobuf.timestamp_pb2 import Timestamp

from crony.domain.jsontext import small
from crony.domain.outcome import Kind
from crony.domain.stamps import Source
from crony.workers.attempt import ACCEPTED, Verdict
from crony.workers.rpc import callback_pb2 as pb

if TYPE_CHECKING:
    from crony.workers.attempt import Attempt

SERVICE = "crony.v1.JobService"
RUN, CANCEL = f"/{SERVICE}/Run", f"/{SERVICE}/Cancel"
RESULT_LIMIT = 1024
"""A JSON answer of at most this many bytes is kept as the run's result."""


def run_request(attempt: Attempt, params: dict[str, Any]) -> bytes:
    """The request for an attempt of the action's `handler`."""
    told = attempt.envelope
    request = pb.RunRequest(
        handler=str(told.action["handler"]),
        run=told.run,
        attempt=told.attempt,
        fence=attempt.held.fence,
        job=told.name,
        fire_time=None if told.fire_at is None else _instant(told.fire_at),
        params_json=json.dumps(params, ensure_ascii=False),
        retry_max=int(told.retry.get("max", 0)),
    )
    request.timeout.FromMilliseconds(math.ceil(attempt.left * 1000))
    if told.part is not None:
        request.part.index, request.part.total = told.part, told.parts
    if attempt.callback is not None:
        callback = request.callback
        callback.url, callback.token = attempt.callback.url, attempt.callback.token.text
        callback.deadline.CopyFrom(_instant(attempt.callback.deadline_at))
        if attempt.callback.heartbeat:
            callback.heartbeat.FromMilliseconds(int(attempt.callback.heartbeat * 1000))
    return request.SerializeToString()


def cancel_request(attempt: Attempt, reason: str) -> bytes:
    """The request to stop what an attempt's call began."""
    told = attempt.envelope
    return pb.CancelRequest(
        run=told.run, attempt=told.attempt, fence=attempt.held.fence, reason=reason
    ).SerializeToString()


def verdict(attempt: Attempt, data: bytes) -> Verdict:
    """What the answer of `Run` means; what there is to read goes into the output."""
    try:
        response = pb.RunResponse.FromString(data)
    except Exception:
        return Verdict(Kind.UNKNOWN, "the answer cannot be read: it is no crony.v1.RunResponse")
    which = response.WhichOneof("answer")
    if which == "accepted":
        return ACCEPTED
    if which == "done":
        attempt.output.text(response.done.result_json, Source.STDOUT)
        return Verdict(Kind.SUCCEEDED, code=0, result=result(response.done.result_json))
    if which == "failed":
        failed = response.failed
        reason = " ".join(failed.reason.split())[:500] or "the service said that it failed"
        code = failed.code if failed.HasField("code") else None
        return Verdict(Kind.FAILED, reason, code, final=failed.final)
    return Verdict(Kind.FAILED, "the service answered neither done nor accepted nor failed")


def result(text: str) -> Any:
    """The value behind a small JSON text; None for everything else."""
    return small(text, RESULT_LIMIT)


def _instant(at: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMilliseconds(round(at * 1000))
    return stamp
