"""One member: its pools of sockets, its clock, when to leave it alone; and a request made at it, in either protocol."""

from __future__ import annotations

import random
import time
from collections import deque
from typing import Any, NamedTuple, Protocol, TypeVar

from crony.clock import SYSTEM
from crony.etcd.address import Address
from crony.etcd.h2 import GrpcConnection, HungUp, NoGrpc
from crony.etcd.h2_head import request_head
from crony.etcd.http import Connection
from crony.etcd.refusals import payload_of, reason
from crony.etcd.skew import ServerClock
from crony.etcd.wire import Json

_IDLE_SOCKETS = 32
_IDLE_SECONDS = 50.0
_BACKOFF = (0.05, 1.0)

_T_co = TypeVar("_T_co", covariant=True)
_C = TypeVar("_C", bound=Connection)


class Wire(Protocol[_T_co]):
    """A request that can be made at any member."""

    def exchange(self, endpoint: Endpoint, token: str, connect_by: float, answer_by: float) -> _T_co | Refused:
        """Make it: the answer, or etcd's refusal. Raises `NotSent`, `Lost`, `NoGrpc`."""


class Endpoint:
    """One member: its idle sockets, whether it answered lately, its clock."""

    def __init__(self, at: Address) -> None:
        self.at = at
        self.clock = ServerClock()
        self.failures = 0
        self.retry_at = 0.0
        self._idle: deque[Connection] = deque()
        self._idle_grpc: deque[GrpcConnection] = deque()
        self._spoke_grpc = False
        self._heads: dict[tuple[str, str], bytes] = {}

    def checkout(self, timeout: float) -> Connection:
        """An open socket to the gateway, used or new. Raises `NotSent`."""
        return self._reuse(self._idle) or Connection(self.at, timeout)

    def checkout_grpc(self, timeout: float) -> GrpcConnection:
        """As `checkout`, speaking gRPC. Raises `NoGrpc` where nobody does."""
        return self._reuse(self._idle_grpc) or self.open_grpc(timeout)

    def open_grpc(self, timeout: float) -> GrpcConnection:
        """A new socket that speaks gRPC. Raises `NotSent`, `NoGrpc`."""
        try:
            connection = GrpcConnection(self.at, timeout)
        except HungUp as error:
            if self._spoke_grpc:
                raise
            raise NoGrpc(str(error)) from None
        self._spoke_grpc = True
        return connection

    @staticmethod
    def _reuse(idle: deque[_C]) -> _C | None:
        while True:
            try:
                connection = idle.pop()
            except IndexError:
                return None
            if time.monotonic() - connection.used_at < _IDLE_SECONDS and connection.usable:
                return connection
            connection.close()

    def give_back(self, connection: Connection) -> None:
        """Keeps a socket for the next request."""
        connection.used_at = time.monotonic()
        idle: deque[Any] = self._idle_grpc if isinstance(connection, GrpcConnection) else self._idle
        if len(idle) < _IDLE_SOCKETS:
            idle.append(connection)
        else:
            connection.close()

    def head(self, method: str, token: str) -> bytes:
        """The header block of a native call."""
        head = self._heads.get((method, token))
        if head is None:
            head = request_head(method, self.at, token)
            self._remember(method, token, head)
        return head

    def _remember(self, path: str, token: str, head: bytes) -> None:
        if len(self._heads) > 64:  # tokens change
            self._heads.clear()
        self._heads[path, token] = head

    def request(self, path: str, token: str, body: bytes) -> bytes:
        """The bytes of a POST. `hasleader`: a member that is cut off from the others shall say so, not wait."""
        head = self._heads.get((path, token))
        if head is None:
            auth = f"Authorization: {token}\r\n" if token else ""
            head = (
                f"POST {path} HTTP/1.1\r\nHost: {self.at.authority}\r\n{auth}Grpc-Metadata-hasleader: true\r\n"
                "Content-Type: application/json\r\nContent-Length: "
            ).encode("ascii")
            self._remember(path, token, head)
        return b"%b%d\r\n\r\n%b" % (head, len(body), body)

    def failed(self) -> None:
        """Puts the member last for a moment that grows with each failure."""
        self.failures += 1
        pause = min(_BACKOFF[1], _BACKOFF[0] * 2 ** min(self.failures - 1, 10))
        self.retry_at = time.monotonic() + pause * random.uniform(0.6, 1.0)

    def answered(self) -> None:
        """The member is well."""
        self.failures, self.retry_at = 0, 0.0

    def forget(self, *, close: bool) -> None:
        """Lets all idle sockets go; `close` is False in a forked child, where they are the parent's."""
        idle: list[Connection] = [*self._idle, *self._idle_grpc]
        self._idle, self._idle_grpc = deque(), deque()
        if close:
            for connection in idle:
                connection.close()


class Refused(NamedTuple):
    """A gRPC code and message instead of an answer."""

    code: int
    message: str


class Gateway:
    """One request as JSON."""

    def __init__(self, path: str, body: bytes) -> None:
        self._path, self._body = path, body

    def exchange(self, endpoint: Endpoint, token: str, connect_by: float, answer_by: float) -> Json | Refused:
        """As `Wire.exchange`."""
        sent = SYSTEM.monotonic()
        connection = endpoint.checkout(connect_by - time.monotonic())
        answer = connection.exchange(endpoint.request(self._path, token, self._body), answer_by)
        endpoint.clock.note(answer.date, sent, SYSTEM.monotonic())
        endpoint.give_back(connection)
        payload = payload_of(answer)
        if payload is not None and answer.status == 200 and "error" not in payload:
            return payload
        return Refused(*reason(answer, payload))


class Native:
    """One request as etcd's own clients send it."""

    def __init__(self, method: str, message: bytes) -> None:
        self._method, self._message = method, message

    def exchange(self, endpoint: Endpoint, token: str, connect_by: float, answer_by: float) -> bytes | Refused:
        """As `Wire.exchange`."""
        connection = endpoint.checkout_grpc(connect_by - time.monotonic())
        reply = connection.call(endpoint.head(self._method, token), self._message, answer_by)
        endpoint.give_back(connection)
        return reply.body if reply.code == 0 else Refused(reply.code, reply.message)


__all__ = ["Endpoint", "Gateway", "Native", "Refused", "Wire"]
