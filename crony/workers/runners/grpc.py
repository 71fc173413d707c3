"""gRPC jobs: one unary call, of a handler behind the SDK's contract or of any method that the service tells of.

What a call that was not answered means follows from how far it came: nobody there, or not well, is `failed` (it was not
sent); lost after sending is `unknown` (the service may have done it). No proxies or settings from the environment.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crony.domain import template
from crony.domain.outcome import Kind
from crony.errors import Unavailable
from crony.workers import calling
from crony.workers.attempt import ACCEPTED, Attempt, Verdict
from crony.workers.reach import Unreachable, addresses
from crony.workers.rpc import contract, reflection
from crony.workers.rpc.library import grpc
from crony.workers.rpc.lines import (
    MESSAGE_LIMIT,
    PATIENCE,
    Absent,
    BrokenOff,
    Call,
    Line,
    Lines,
    NotSent,
    Place,
    Unreached,
    told,
    usable,
)
from crony.workers.runners.http_request import facts_of, in_header
from crony.workers.runners.http_wire import tls_of
from crony.workers.services import NoInstance, first_that_is_there

if TYPE_CHECKING:
    from collections.abc import Sequence

OUTPUT_LIMIT = 1024 * 1024
"""Most bytes of an answer that go into the output."""
FAREWELL = 1.0
"""Seconds that telling a service of a cancel may take."""
_NETWORK = ("stream removed", "received message larger", "received rst_stream", "socket closed", "connection reset")
"""How gRPC's own words begin when a call is lost: codes alone do not say who spoke."""
_EITHER = frozenset(
    {
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


def run(attempt: Attempt) -> Verdict:
    """Make the call; the verdict by its answer, by the deadline, or by a cancel, whichever comes first."""
    call = Call()
    attempt.on_cancel(call.abort)
    try:
        return _exchange(attempt, call)
    except NotSent as error:
        name = attempt.envelope.action.get("method") or f"handler {attempt.envelope.action.get('handler')}"
        attempt.output.text(f"gRPC {name}: {error}")
        if attempt.cancelled:
            return Verdict(Kind.CANCELLED, "cancelled during the call; it was not sent")
        if not attempt.left:
            return Verdict(Kind.TIMED_OUT, f"no answer within {attempt.envelope.timeout:g} s; it was not sent")
        return Verdict(Kind.FAILED, f"the call was not sent: {error}")
    finally:
        attempt.on_cancel(None)


def _exchange(attempt: Attempt, call: Call) -> Verdict:
    usable()
    action, process = attempt.envelope.action, attempt.process
    if "service" not in action:
        return _over(attempt, call, str(action["address"]))
    try:
        return first_that_is_there(
            process, str(action["service"]), ("grpc",), lambda there: _at(attempt, call, there.address), Absent
        )
    except (NoInstance, Unavailable) as error:
        raise NotSent(str(error)) from None


def _at(attempt: Attempt, call: Call, address: str) -> Verdict:
    attempt.output.text(f"gRPC to {address}")
    try:
        return _over(attempt, call, address)
    except Absent as error:
        if attempt.cancelled or not attempt.left:
            raise NotSent(str(error)) from None
        attempt.output.text(f"{address}: {error}")
        raise


def _over(attempt: Attempt, call: Call, address: str) -> Verdict:
    lines: Lines = attempt.process.own("grpc_lines", Lines)
    places = _places(attempt, call, address)
    while True:
        with lines.line(places[0]) as line:
            try:
                return _Exchange(attempt, call, line).go()
            except Unreached:
                lines.drop(line)
                if attempt.cancelled or not attempt.left:
                    raise
                # A line that was of use may merely have missed that its service was started anew.
                if not line.useful and not places[1:]:
                    raise
                places = places if line.useful else places[1:]


def _places(attempt: Attempt, call: Call, address: str) -> list[Place]:
    """Where to call: the addresses of the family that the resolver prefers, then those of the other one."""
    action, process = attempt.envelope.action, attempt.process
    host, _, port = address.rpartition(":")
    host, tls = host.strip("[]"), action.get("tls")
    try:
        found = addresses(host, process.targets, lambda ready: call.wait(ready, min(PATIENCE, attempt.left)))
    except Unreachable as error:
        raise Absent(str(error)) from None
    families: dict[bool, list[str]] = {}
    for each in found:
        families.setdefault(":" in each, []).append(each)
    ca, client, server_name = b"", b"", ""
    if tls is not None:
        server_name = str(tls.get("server_name") or "")
        try:
            names = tls_of(process.settings.tls_dir, True, str(tls.get("ca") or ""), str(tls.get("client_cert") or ""))
            ca, client = (Path(name).read_bytes() if name else b"" for name in (names.ca, names.cert))
        except OSError as error:
            raise NotSent(str(error)) from None
    return [
        Place(host, int(port), tuple(family), tls is not None, ca, client, server_name) for family in families.values()
    ]


class _Exchange:
    """One try over one line."""

    def __init__(self, attempt: Attempt, call: Call, line: Line) -> None:
        self._attempt, self._call, self._line = attempt, call, line
        self._action = attempt.envelope.action
        self._metadata, self._document = _filled(attempt)
        self._method: reflection.Method | None = None

    def go(self) -> Verdict:
        """Probe, send, judge. Raises `NotSent`."""
        attempt, began = self._attempt, time.monotonic()
        path, request = self._request()
        if len(request) > MESSAGE_LIMIT:
            raise NotSent(f"the request has {len(request)} bytes; at most {MESSAGE_LIMIT}")
        facts = self._facts(path, request)
        if attempt.cancelled:
            raise NotSent("it was broken off")
        self._call.sent = True
        try:
            data = self._line.exchange(self._call, path, request, timeout=attempt.left, metadata=facts)
        except BrokenOff:
            self._farewell()
            return Verdict(Kind.CANCELLED, "cancelled during the call; it was sent, the service may have done it")
        except grpc.RpcError as error:
            return self._judge(error)
        self._line.hear()
        attempt.output.text(f"gRPC OK ({len(data)} bytes in {time.monotonic() - began:.3f} s)")
        return self._answer(data)

    def _request(self) -> tuple[str, bytes]:
        """Path and bytes, after the probe. Raises `NotSent`."""
        attempt, action = self._attempt, self._action
        handler = "handler" in action
        service = contract.SERVICE if handler else str(action["method"]).partition("/")[0]
        self._line.probe(self._call, service, left=attempt.left, metadata=self._metadata)
        if handler:
            return contract.RUN, contract.run_request(attempt, self._document)
        self._method = reflection.find(
            self._line, self._call, str(action["method"]), left=attempt.left, metadata=self._metadata
        )
        return self._method.path, self._method.encode(self._document)

    def _facts(self, path: str, request: bytes) -> Sequence[tuple[str, str]]:
        process, own = self._attempt.process, calling.headers(self._attempt)
        own |= calling.signature(process.settings.call_secrets, "POST", path, own, request, now=process.now())
        facts = {name.lower(): value for name, value in own.items()}
        return [*((name, value) for name, value in self._metadata if name not in facts), *facts.items()]

    def _answer(self, data: bytes) -> Verdict:
        if self._method is None:
            return contract.verdict(self._attempt, data)
        try:
            text = self._method.decode(data)
        except ValueError as error:
            return Verdict(Kind.SUCCEEDED, f"the service answered OK, but {error}", 0)
        output = text.encode()
        self._attempt.output.write(output[:OUTPUT_LIMIT])
        if len(output) > OUTPUT_LIMIT:
            self._attempt.output.text(f"\n[crony: answer cut here, more than {OUTPUT_LIMIT} bytes]")
        if self._action.get("async"):
            return ACCEPTED
        return Verdict(Kind.SUCCEEDED, code=0, result=contract.result(text))

    def _judge(self, error: grpc.RpcError) -> Verdict:
        """What a status other than OK means; the service and gRPC itself use the same ones."""
        status, why = error.code(), told(error)
        number, code = int(status.value[0]), f"{status.name}: {why}"
        self._attempt.output.text(f"gRPC {code}")
        if status is grpc.StatusCode.DEADLINE_EXCEEDED:
            self._farewell()
            reason = f"no answer within {self._attempt.envelope.timeout:g} s; it was sent, the service may have done it"
            return Verdict(Kind.TIMED_OUT, reason, number)
        lost = status in _EITHER and why.lower().startswith(_NETWORK)
        if status is grpc.StatusCode.UNAVAILABLE or lost:
            self._line.doubt()
            return Verdict(Kind.UNKNOWN, f"the answer was lost after sending: {code}", number)
        self._line.hear()
        return Verdict(Kind.FAILED, f"the service answered {code}", number)

    def _farewell(self) -> None:
        """Tell a service with the contract to stop; if it does not hear that, its call is cancelled all the same."""
        if self._method is not None:
            return
        reason = "cancelled" if self._attempt.cancelled else "it took too long"
        request = contract.cancel_request(self._attempt, reason)
        facts = self._facts(contract.CANCEL, request)
        channel = self._line.channel
        method: Any = channel.unary_unary(contract.CANCEL, request_serializer=None, response_deserializer=None)
        try:
            method(request, timeout=FAREWELL, metadata=tuple(facts))
        except grpc.RpcError:
            return


def _filled(attempt: Attempt) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Metadata and request with facts of the run filled in. Parameters that no text names are added to the request."""
    action, facts = attempt.envelope.action, facts_of(attempt.envelope, attempt.secrets)
    request, metadata = action.get("request") or {}, action.get("metadata") or {}
    used = template.names([request, metadata])
    free = {name: value for name, value in attempt.envelope.params.items() if f"params.{name}" not in used}
    try:
        pairs = [(str(name), template.fill(str(text), facts, in_header)) for name, text in metadata.items()]
        return pairs, {**template.fill_json(request, facts), **free}
    except template.Unfilled as error:
        raise NotSent(str(error)) from None
