"""Several members as one: pools of sockets, fail-over with back-off, the user's token, the members' clocks.

What may be repeated is decided here, once: a request that did not leave goes to another member; one that left and
was not answered is repeated only if that cannot do harm; everything else is `EtcdUnknown`.
"""

from __future__ import annotations

import json
import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Sequence
from statistics import median
from typing import TypeVar

from crony.clock import SYSTEM
from crony.errors import Invalid
from crony.etcd.address import TLS, address
from crony.etcd.endpoint import Endpoint, Gateway, Native, Refused, Wire
from crony.etcd.errors import AuthFailed, BadRequest, EtcdUnavailable, EtcdUnknown
from crony.etcd.h2 import GrpcConnection, NoGrpc
from crony.etcd.http import Connection, Lost, NotSent
from crony.etcd.refusals import payload_of, reason, refusal, token_is_stale, was_not_executed
from crony.etcd.wire import Json

log = logging.getLogger("crony.etcd.cluster")

_GATEWAY_FOR = 60.0
"""Seconds before gRPC is tried again where only a gateway answered."""

_T = TypeVar("_T")


class Cluster:
    """The members of one etcd cluster and our account there. Thread-safe, fork-safe."""

    def __init__(self, endpoints: Sequence[str], *, user: str, password: str, tls: TLS | None, timeout: float) -> None:
        """`timeout`: the whole time one request may take, seconds. Connects on first use. Raises `Invalid`."""
        if not endpoints:
            raise Invalid("etcd endpoints", "are missing")
        if not timeout > 0:
            raise Invalid("etcd timeout", "must be more than 0 seconds")
        if password and not user:
            raise Invalid("etcd user", "is missing beside the password")
        self.endpoints = [Endpoint(address(endpoint, tls)) for endpoint in endpoints]
        for endpoint in self.endpoints:
            endpoint.at.context()  # unreadable certificates are an error at start, not at the first request
        self.timeout = timeout
        self._user, self._password = user, password
        self._token = ""
        self._open = True
        self._speaks_grpc, self._gateway_until = True, 0.0
        self._current = random.randrange(len(self.endpoints))
        self._signing_in = threading.Lock()
        self._closed = threading.Event()
        _CLUSTERS.add(self)

    # -- requests --------------------------------------------------------------------------------

    def call(
        self,
        path: str,
        body: bytes,
        *,
        repeatable: bool,
        timeout: float | None = None,
        only: Endpoint | None = None,
        sign_in: bool = True,
    ) -> Json:
        """POSTs `body` to `path` at a member (`only`: that one) and returns the decoded answer.

        `repeatable`: doing it twice is the same as once. Raises EtcdUnavailable, EtcdUnknown (only when not
        repeatable), AuthFailed, BadRequest, Compacted, LeaseGone, NoSpace.
        """
        return self._call(Gateway(path, body), repeatable, timeout, only, sign_in)

    def rpc(self, method: str, message: bytes, *, repeatable: bool, timeout: float | None = None) -> bytes:
        """As `call`, in etcd's own protocol: `method` such as `/etcdserverpb.KV/Put`, a message and its answer.

        Raises `NoGrpc` too: there is only a gateway; nothing was sent.
        """
        try:
            return self._call(Native(method, message), repeatable, timeout)
        except NoGrpc as error:
            self._gateway_only(error)
            raise

    @property
    def speaks_grpc(self) -> bool:
        """Whether the members are believed to speak etcd's own protocol."""
        return self._speaks_grpc or time.monotonic() > self._gateway_until

    @property
    def native(self) -> bool:
        """Whether `rpc` is the way to go now: not where only a gateway answers, nor when its `Date` is needed."""
        return self.speaks_grpc and not self.endpoints[self._current].clock.wanted

    def _gateway_only(self, error: NoGrpc) -> None:
        if self._speaks_grpc:
            log.info("etcd is asked through its JSON gateway: %s", error)
        self._speaks_grpc, self._gateway_until = False, time.monotonic() + _GATEWAY_FOR

    def _call(
        self,
        wire: Wire[_T],
        repeatable: bool,
        timeout: float | None,
        only: Endpoint | None = None,
        sign_in: bool = True,
    ) -> _T:
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        signed_again = False
        why = "no member tried"
        tried = 0
        while True:
            endpoint = only or self._pick()
            if not self._wait_for(endpoint, deadline):
                raise EtcdUnavailable("etcd cannot be reached", why=why, hint="is it running, is the address right?")
            token = self._signed_in(deadline) if sign_in and self._user else ""
            left = deadline - time.monotonic()
            others = only is None and len(self.endpoints) > 1 and tried < len(self.endpoints)
            try_until = deadline if not others else time.monotonic() + left / 2
            tried += 1
            try:
                answer = wire.exchange(endpoint, token, try_until, try_until if repeatable else deadline)
            except NotSent as error:
                why = str(error)
                self._failed(endpoint)
                continue
            except Lost as error:
                why = f"{endpoint.at.text}: {error}"
                self._failed(endpoint)
                if repeatable:
                    continue
                raise EtcdUnknown("etcd did not answer; the request may have been carried out", why=why) from None
            if not isinstance(answer, Refused):
                endpoint.answered()
                return answer
            code, message = answer
            why = f"{endpoint.at.text}: {message}"
            if token_is_stale(message):
                if not self._user or signed_again or not sign_in:
                    raise AuthFailed("etcd refused us", why=message, hint="set the etcd user and password")
                signed_again = True
                self.renew_token(token)
                continue
            problem = refusal(code, message)
            if problem is not None:
                endpoint.answered()
                raise problem
            self._failed(endpoint)
            if not repeatable and not was_not_executed(message):
                raise EtcdUnknown("etcd failed; the request may have been carried out", why=why)

    def stream(self, path: str, body: bytes, timeout: float) -> tuple[Endpoint, Connection, str]:
        """Opens a stream at a member on a socket of its own: member, socket, token used. Raises as `call`."""
        deadline = time.monotonic() + timeout
        endpoint = self._pick()
        if not self._wait_for(endpoint, deadline):
            raise EtcdUnavailable("etcd cannot be reached", why=endpoint.at.text)
        token = self._signed_in(deadline) if self._user else ""
        sent = SYSTEM.monotonic()
        try:
            connection = Connection(endpoint.at, deadline - time.monotonic())
            answer = connection.open(endpoint.request(path, token, body), deadline)
        except (NotSent, Lost) as error:
            self._failed(endpoint)
            raise EtcdUnavailable("the stream could not be opened", why=f"{endpoint.at.text}: {error}") from None
        endpoint.clock.note(answer.date, sent, SYSTEM.monotonic())
        if answer.status != 200:
            connection.close()
            code, message = reason(answer, payload_of(answer))
            if token_is_stale(message) and self._user:
                self.renew_token(token)
                raise EtcdUnavailable("the stream was refused", why=message)
            problem = refusal(code, message)
            if problem is not None:
                raise problem
            self._failed(endpoint)
            raise EtcdUnavailable("the stream was refused", why=f"{endpoint.at.text}: {message}")
        return endpoint, connection, token

    def watch(self, message: bytes, timeout: float) -> tuple[Endpoint, GrpcConnection, str]:
        """As `stream`, in etcd's own protocol, for a watch. Raises `NoGrpc` too."""
        deadline = time.monotonic() + timeout
        endpoint = self._pick()
        if not self._wait_for(endpoint, deadline):
            raise EtcdUnavailable("etcd cannot be reached", why=endpoint.at.text)
        token = self._signed_in(deadline) if self._user else ""
        try:
            connection = endpoint.open_grpc(deadline - time.monotonic())
            connection.start_stream(endpoint.head("/etcdserverpb.Watch/Watch", token), message, deadline)
        except (NotSent, Lost) as error:
            self._failed(endpoint)
            raise EtcdUnavailable("the stream could not be opened", why=f"{endpoint.at.text}: {error}") from None
        except NoGrpc as error:
            self._gateway_only(error)
            raise
        return endpoint, connection, token

    def stream_failed(self, endpoint: Endpoint) -> None:
        """A stream of that member broke or went silent: others are preferred for a moment."""
        self._failed(endpoint)

    # -- account ---------------------------------------------------------------------------------

    def renew_token(self, stale: str) -> None:
        """Forgets a token that etcd did not accept; the next request signs in again."""
        if self._token == stale:
            self._token = ""

    def _signed_in(self, deadline: float) -> str:
        token = self._token
        if token:
            return token
        if not self._signing_in.acquire(timeout=max(deadline - time.monotonic(), 0.0)):
            raise EtcdUnavailable("etcd did not sign us in in time")
        try:
            if not self._token:
                body = json.dumps({"name": self._user, "password": self._password}).encode()
                left = max(deadline - time.monotonic(), 0.05)
                try:
                    raw = self.call("/v3/auth/authenticate", body, repeatable=True, timeout=left, sign_in=False)
                except BadRequest as error:
                    raise AuthFailed("etcd refused the user or password", why=error.what) from None
                token = str(raw.get("token", ""))
                if not token or not (token.isascii() and token.isprintable()):
                    raise AuthFailed("etcd gave no token")
                self._token = token
            return self._token
        finally:
            self._signing_in.release()

    # -- members ---------------------------------------------------------------------------------

    def _pick(self) -> Endpoint:
        """The current member while it is well, else the next one that is (or will be first)."""
        now, endpoints, start = time.monotonic(), self.endpoints, self._current
        if endpoints[start].retry_at <= now:
            return endpoints[start]
        order = [(start + step) % len(endpoints) for step in range(len(endpoints))]
        self._current = min(order, key=lambda index: max(endpoints[index].retry_at, now))
        return endpoints[self._current]

    def _wait_for(self, endpoint: Endpoint, deadline: float) -> bool:
        """Waits out the member's back-off; False when the deadline would pass."""
        if not self._open:
            raise EtcdUnavailable("the etcd client is closed")
        now = time.monotonic()
        if now >= deadline:
            return False
        if endpoint.retry_at > now:
            self._closed.wait(min(endpoint.retry_at, deadline) - now)
            if not self._open:
                raise EtcdUnavailable("the etcd client is closed")
            return time.monotonic() < deadline
        return True

    def _failed(self, endpoint: Endpoint) -> None:
        endpoint.failed()
        endpoint.forget(close=True)
        # Leave it at once: a member that only ever times out would be out of its back-off again by then.
        start, count, now = self._current, len(self.endpoints), time.monotonic()
        if self.endpoints[start] is endpoint and count > 1:
            order = [(start + step) % count for step in range(1, count)]
            self._current = min(order, key=lambda index: max(self.endpoints[index].retry_at, now))

    @property
    def closed(self) -> bool:
        """Whether `close` was called: nothing works any more."""
        return not self._open

    @property
    def clock_offset(self) -> float:
        """Median of the members' clocks minus ours, seconds; 0 while no member has answered."""
        offsets = [offset for endpoint in self.endpoints if (offset := endpoint.clock.offset) is not None]
        if len(offsets) == 1:
            return offsets[0]
        return median(offsets) if offsets else 0.0

    def close(self) -> None:
        """Closes every idle socket; requests under way end by themselves, new ones are refused."""
        self._open = False
        self._closed.set()
        for endpoint in self.endpoints:
            endpoint.forget(close=True)

    def after_fork(self) -> None:
        """In the child: new locks (their holders did not come along) and no sockets."""
        self._signing_in = threading.Lock()
        self._closed = threading.Event()
        if not self._open:
            self._closed.set()
        for endpoint in self.endpoints:
            endpoint.forget(close=False)


_CLUSTERS: weakref.WeakSet[Cluster] = weakref.WeakSet()


def _after_fork() -> None:
    for cluster in list(_CLUSTERS):
        cluster.after_fork()


os.register_at_fork(after_in_child=_after_fork)
