"""Lines to services: one channel per address and TLS options, kept by the process and used by all its attempts.

Before a call the line is probed, by the service's own health check where it has one: a probe that finds nobody proves
that the call never left. A line that was heard of within the last second is not probed again.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from grpc_health.v1 import health_pb2

from crony.workers.rpc.library import SINGLE_THREADED, grpc

MESSAGE_LIMIT = 4 * 1024 * 1024
"""Most bytes of a request or an answer: gRPC's own default."""
PATIENCE = 10.0
"""Seconds that connecting, a health check or asking for a schema may take."""
FRESH = 1.0
"""For so many seconds after it was heard of a line is believed to be up."""
KEPT = 16
"""Lines that a process keeps open; the one unused for longest goes."""
HEALTH = "/grpc.health.v1.Health/Check"

_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),  # a line that is made anew connects anew
    ("grpc.primary_user_agent", "crony"),
    # The caller reads its answer itself; else each call costs a thread, and more than twice the CPU.
    (SINGLE_THREADED, 1),
)


class NotSent(Exception):
    """The call provably did not leave; the text says why."""


class Absent(NotSent):
    """Because nobody is there who takes calls: another instance may do it."""


class BrokenOff(Exception):
    """We broke the call off."""


class Unreached(Absent):
    """Because nobody answered."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a service is: what was asked for, and the checked addresses behind it."""

    host: str
    port: int
    addresses: tuple[str, ...]
    """Of one family."""
    secure: bool = False
    ca: bytes = b""
    """PEM certificates to trust instead of the usual ones."""
    client: bytes = field(default=b"", repr=False)
    """PEM of our own certificate and its key."""
    server_name: str = ""
    """Name that the certificate must be for, when it is not the host."""

    @property
    def target(self) -> str:
        """As gRPC wants it: addresses only, so that nothing is resolved a second time."""
        six = ":" in self.addresses[0]
        listed = (f"[{found}]:{self.port}" if six else f"{found}:{self.port}" for found in self.addresses)
        return f"ipv{6 if six else 4}:{','.join(listed)}"

    @property
    def authority(self) -> str:
        """The host as the service knows it."""
        name = self.server_name or self.host
        return f"[{name}]:{self.port}" if ":" in name else f"{name}:{self.port}"


class _Event(threading.Event):
    def cancel(self) -> None:
        """Whoever waits for it need not any more."""
        self.set()


class Call:
    """The one thing that an attempt waits for right now; breaking it off breaks off what follows, too."""

    def __init__(self) -> None:
        self.sent = False
        self._lock = threading.Lock()
        self._current: Any = None
        self._broken = False

    @property
    def broken(self) -> bool:
        """Whether it was broken off."""
        return self._broken

    def hold(self, current: Any) -> Any:
        """This is it now. Returns it."""
        with self._lock:
            self._current, broken = current, self._broken
        if broken:
            current.cancel()
        return current

    def wait(self, ready: threading.Event, timeout: float) -> None:
        """Wait for an event, but not beyond the call's end."""
        broken = self.hold(_Event())
        until = time.monotonic() + timeout
        while not ready.wait(0.02) and not broken.is_set() and time.monotonic() < until:
            pass

    def abort(self) -> None:
        """Break it off, from another thread."""
        with self._lock:
            self._broken, current = True, self._current
        if current is not None:
            current.cancel()


@dataclass
class Line:
    """A channel with what is known of the other side."""

    place: Place
    channel: grpc.Channel
    heard: float = -math.inf
    """When the service was last heard of, by the monotonic clock, as far as that still counts."""
    useful: bool = False
    """It was heard of, once."""
    used: float = 0.0
    in_use: int = 0
    schemas: dict[str, Any] = field(default_factory=dict)
    """What reflection told, by service."""
    _methods: dict[str, Any] = field(default_factory=dict)

    def hear(self) -> None:
        """Somebody answered just now."""
        self.heard, self.useful = time.monotonic(), True

    def doubt(self) -> None:
        """A call got lost: the next one probes first."""
        self.heard = -math.inf

    def exchange(
        self, call: Call, path: str, request: bytes, *, timeout: float, metadata: Sequence[tuple[str, str]]
    ) -> bytes:
        """Bytes for bytes. Raises `grpc.RpcError` for every status but OK, `BrokenOff`."""
        method = self._methods.get(path)
        if method is None:
            # On the wire a method with one answer is as one with a stream of them.
            method = self.channel.unary_stream(path, request_serializer=None, response_deserializer=None)
            self._methods[path] = method
        stream = call.hold(method(request, timeout=timeout, metadata=tuple(metadata)))
        try:
            answer = next(stream, None)
            if answer is not None and next(stream, None) is not None:
                stream.cancel()
        except grpc.RpcError:
            if call.broken:
                raise BrokenOff from None
            raise
        return bytes(answer or b"")

    def probe(self, call: Call, service: str, *, left: float, metadata: Sequence[tuple[str, str]]) -> None:
        """Make sure that somebody is there, and well if it can say so. Raises `NotSent`, `Unreached`."""
        if time.monotonic() - self.heard < FRESH:
            return
        for asked in (service, ""):
            request = health_pb2.HealthCheckRequest(service=asked).SerializeToString()
            try:
                found = self.exchange(call, HEALTH, request, timeout=min(PATIENCE, left), metadata=metadata)
                answer = health_pb2.HealthCheckResponse.FromString(found)
            except BrokenOff:
                raise NotSent("it was broken off") from None
            except grpc.RpcError as error:
                code = error.code()
                if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise Unreached(f"no connection: {told(error)}") from None
                self.hear()
                if code is grpc.StatusCode.NOT_FOUND and asked:
                    continue  # it watches over its services, but not over this one by name
                return  # no health check here, or not for us: somebody is there
            status = answer.status
            if status not in (answer.SERVING, answer.UNKNOWN):
                name = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
                raise Absent(f"the service's health check says {name}")
            self.hear()
            return


class Lines:
    """The lines of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[Place, Line] = {}

    @contextmanager
    def line(self, place: Place) -> Iterator[Line]:
        """The line to a place, kept afterwards."""
        with self._lock:
            line = self._lines.get(place)
            if line is None:
                line = self._lines[place] = Line(place, _channel(place))
            line.in_use += 1
            line.used = time.monotonic()
            surplus = self._surplus()
        for other in surplus:
            other.channel.close()
        try:
            yield line
        finally:
            with self._lock:
                line.in_use -= 1
                gone = line.in_use == 0 and self._lines.get(place) is not line
            if gone:
                line.channel.close()

    def drop(self, line: Line) -> None:
        """It is of no use: the next attempt makes a new one."""
        with self._lock:
            if self._lines.get(line.place) is line:
                del self._lines[line.place]

    def _surplus(self) -> list[Line]:
        idle = sorted((line for line in self._lines.values() if not line.in_use), key=lambda line: line.used)
        surplus = idle[: max(0, len(self._lines) - KEPT)]
        for line in surplus:
            del self._lines[line.place]
        return surplus


def _channel(place: Place) -> grpc.Channel:
    options = [*_OPTIONS, ("grpc.default_authority", place.authority)]
    if not place.secure:
        return grpc.insecure_channel(place.target, options)
    options.append(("grpc.ssl_target_name_override", place.server_name or place.host))
    own = place.client or None
    credentials = grpc.ssl_channel_credentials(place.ca or None, own, own)
    return grpc.secure_channel(place.target, credentials, options)


def told(error: grpc.RpcError, most: int = 300) -> str:
    """What an error of gRPC says, in one line."""
    return " ".join(str(error.details() or error.code().name).split())[:most]


_forked = False


def _after_fork() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_after_fork)


def usable() -> None:
    """Raises `NotSent` in a child of a process that has loaded gRPC: it would hang there."""
    if _forked:
        raise NotSent("gRPC cannot be used in a process forked from one that used it")
