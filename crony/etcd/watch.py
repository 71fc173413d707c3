"""A watch that misses nothing: list at a revision, follow from the next, over reconnects, outages and compaction.

A stream may go silent without an error, be cancelled while it stays open, or repeat old events; members may be
cut off from the others. All of that ends in the same two moves: open it again where it stopped, or list anew.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from binascii import a2b_base64
from collections.abc import Callable
from typing import Literal, NamedTuple

from crony.errors import CronyError, Forbidden, Halted, Unavailable, Unknown
from crony.etcd import proto
from crony.etcd.client import Client
from crony.etcd.endpoint import Endpoint
from crony.etcd.errors import AuthFailed, Compacted, EtcdUnavailable
from crony.etcd.h2 import Ended, GrpcConnection, NoGrpc
from crony.etcd.http import Connection, Lost
from crony.etcd.wire import KV, Json, encode_key

log = logging.getLogger("crony.etcd.watch")

_QUIET = 45.0
_PAUSES = (0.05, 2.0)


class Event(NamedTuple):
    """One change. A delete has an empty value, `create`, `version` and `lease` 0, and its own revision as `mod`."""

    kind: Literal["put", "delete"]
    key: str
    value: bytes
    mod: int
    create: int
    version: int
    lease: int


class _CallbackFailed(Exception):
    """A callback raised; the cause says what."""


class _Message(NamedTuple):
    """What a watch stream said."""

    created: bool
    canceled: bool
    compact_revision: int
    reason: str
    error: str
    events: list[Event]


class _GatewayStream:
    """A watch through the JSON gateway: a line each message."""

    def __init__(self, endpoint: Endpoint, connection: Connection, token: str) -> None:
        self.endpoint, self.connection, self.token = endpoint, connection, token

    def next(self, idle: float) -> _Message | None:
        """The next message, or None after `idle` seconds. Raises `Lost`."""
        line = self.connection.read_line(idle)
        if line is None:
            return None
        message = json.loads(line)
        result = message.get("result") or {}
        return _Message(
            bool(result.get("created")),
            bool(result.get("canceled")),
            int(result.get("compact_revision", 0)),
            str(result.get("cancel_reason", "")),
            str(message.get("error") or ""),
            [_event(raw) for raw in result.get("events") or ()],
        )


class _NativeStream:
    """A watch in etcd's own protocol."""

    def __init__(self, endpoint: Endpoint, connection: GrpcConnection, token: str) -> None:
        self.endpoint, self.connection, self.token = endpoint, connection, token

    def next(self, idle: float) -> _Message | None:
        """The next message, or None after `idle` seconds. Raises `Lost`."""
        try:
            data = self.connection.next_message(idle)
        except Ended as end:
            return _Message(False, False, 0, "", end.message, [])
        if data is None:
            return None
        try:
            created, canceled, oldest, why, raw = proto.watch_response(data)
        except (IndexError, ValueError) as error:
            raise Lost(f"a message is not understood: {error}") from None
        events = [
            Event("delete" if deleted else "put", kv.key, kv.value, kv.mod, kv.create, kv.version, kv.lease)
            for deleted, kv in raw
        ]
        return _Message(created, canceled, oldest, why, "", events)


_Stream = _GatewayStream | _NativeStream


class Watcher:
    """Follows a range in a daemon thread of its own and hands every change to two callbacks, never two at once.

    `on_snapshot(pairs, revision)`: everything in the range at that revision; it replaces what you knew. First call,
    and again after a compaction or an error in a callback.
    `on_events(events, revision)`: changes in order, one or several whole revisions, none twice; `revision` is the last.

    Without `on_snapshot` there is nobody to tell after a compaction or an error in `on_events`: the watch goes on
    with what comes next. It ends when the client is closed.
    """

    def __init__(
        self,
        client: Client,
        start: str,
        end: str | None,
        *,
        on_snapshot: Callable[[list[KV], int], None] | None,
        on_events: Callable[[list[Event], int], None],
        from_revision: int = 0,
        idle: float = 15.0,
        name: str = "",
    ) -> None:
        """Keys `start` <= key < `end` (None: that key). `idle`: seconds of silence after which the stream is reopened.

        `from_revision`: no first snapshot; the first event is of that revision or a later one.
        """
        self._client = client
        self._start, self._end = start, end
        self._on_snapshot, self._on_events = on_snapshot, on_events
        self._revision = from_revision - 1 if from_revision > 0 else 0
        self._listed = from_revision > 0
        self._idle = idle
        self.name = name or f"crony-watch-{start}"
        self._stopping = threading.Event()
        self._synced = threading.Event()
        self._connection: Connection | None = None
        self._healthy = False
        self._quiet_since: float | None = None
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self.error: CronyError | None = None
        """Why the watch is not healthy right now, or ended for good (`Halted`)."""

    # -- for the owner ---------------------------------------------------------------------------

    def start(self) -> Watcher:
        """Starts the thread; never raises for an etcd that is away."""
        self._thread.start()
        return self

    def stop(self, timeout: float = 5.0) -> None:
        """Ends the watch; no callback starts after this returned (unless one takes longer than `timeout`)."""
        if os.getpid() != self._pid:
            return
        self._stopping.set()
        connection = self._connection
        if connection is not None:
            connection.interrupt()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def reopen(self) -> None:
        """Opens the stream anew where it is: somebody knows that it should have told something by now."""
        connection = self._connection
        if connection is not None:
            connection.interrupt()

    def synced(self, timeout: float) -> bool:
        """Waits until the first snapshot was handed over and a stream follows it; whether that is so."""
        return self._synced.wait(timeout)

    @property
    def revision(self) -> int:
        """Everything up to this revision has been handed over."""
        return self._revision

    @property
    def healthy(self) -> bool:
        """Whether a stream is open and answers."""
        return self._healthy and os.getpid() == self._pid

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set() and not self._client.closed:
            try:
                if not self._listed:
                    self._snapshot()
                self._follow()
                failures = 0
                continue
            except Compacted as error:
                log.info("%s: %s; listing again", self.name, error.what)
                self._listed = False
                failures += 1
                if failures < 2:
                    continue
            except Halted as error:
                self._healthy, self.error = False, error
                log.critical("%s: %s", self.name, error)
                return
            except (Unavailable, Unknown, Forbidden) as error:
                failures = self._report(error, failures)
            except CronyError as error:
                failures = self._report(error, failures)
                self._listed = False
            except _CallbackFailed as error:
                log.error("%s: a callback failed", self.name, exc_info=error.__cause__)
                self._listed, self._quiet_since = self._on_snapshot is None, None
                failures += 1
            except Exception:
                log.exception("%s: unexpected; listing again", self.name)
                self._healthy, self._listed, self._quiet_since = False, False, None
                failures += 1
            self._stopping.wait(min(_PAUSES[1], _PAUSES[0] * 2 ** min(failures - 1, 8)))
        self._healthy = False

    def _report(self, error: CronyError, failures: int) -> int:
        self._healthy, self.error, self._quiet_since = False, error, None
        if not self._stopping.is_set():
            log.log(logging.WARNING if failures == 2 else logging.DEBUG, "%s: %s", self.name, error)
        return failures + 1

    def _snapshot(self) -> None:
        page = self._client.list_range(self._start, self._end)
        if self._stopping.is_set():
            return
        if self._on_snapshot is not None:
            try:
                self._on_snapshot(page.kvs, page.revision)
            except Exception as error:
                raise _CallbackFailed from error
        self._revision, self._listed = page.revision, True

    def _follow(self) -> None:
        """One stream, until it is silent for too long (returns) or breaks (raises)."""
        if self._quiet_since is not None and time.monotonic() - self._quiet_since > _QUIET:
            self._advance()
        opening = min(self._idle, self._client.timeout)
        stream = self._open(opening)
        self._connection = stream.connection
        try:
            created = False
            while not self._stopping.is_set():
                try:
                    message = stream.next(self._idle if created else opening)
                except Lost as error:
                    if not self._stopping.is_set():
                        self._client.cluster.stream_failed(stream.endpoint)
                    why = f"{stream.endpoint.at.text}: {error}"
                    raise EtcdUnavailable("the watch stream broke", why=why) from None
                if message is None:
                    if created:
                        return
                    self._client.cluster.stream_failed(stream.endpoint)
                    raise EtcdUnavailable("the watch was not confirmed", why=stream.endpoint.at.text)
                if message.error:
                    self._client.cluster.stream_failed(stream.endpoint)
                    self._refused(message.error, stream.token)
                if message.canceled:
                    if message.compact_revision:
                        raise Compacted("the watch was overtaken by compaction", revision=message.compact_revision)
                    self._refused(message.reason or "cancelled", stream.token)
                if message.created:
                    created = True
                    stream.endpoint.answered()
                    self._healthy, self.error = True, None
                    self._quiet_since = self._quiet_since or time.monotonic()
                    self._synced.set()
                if message.events:
                    self._deliver(message.events)
        finally:
            self._connection = None
            stream.connection.close()

    def _open(self, opening: float) -> _Stream:
        cluster = self._client.cluster
        if cluster.speaks_grpc:
            message = proto.watch_request(self._start, self._end, self._revision + 1)
            with contextlib.suppress(NoGrpc):
                return _NativeStream(*cluster.watch(message, opening))
        end = f',"range_end":"{encode_key(self._end)}"' if self._end is not None else ""
        what = f'"key":"{encode_key(self._start)}"{end},"start_revision":"{self._revision + 1}"'
        body = f'{{"create_request":{{{what}}}}}'
        return _GatewayStream(*cluster.stream("/v3/watch", body.encode("ascii"), opening))

    def _deliver(self, events: list[Event]) -> None:
        seen = self._revision
        if events[0].mod <= seen:
            events = [event for event in events if event.mod > seen]
        if not events or self._stopping.is_set():
            return
        self._quiet_since = None
        last = events[-1].mod
        try:
            self._on_events(events, last)
        except Exception as error:
            raise _CallbackFailed from error
        finally:
            self._revision = last

    def _refused(self, reason: str, token: str) -> None:
        # A watch with a stale token is answered "permission denied": sign in again before believing it.
        if token and ("permission denied" in reason or "auth" in reason):
            self._client.cluster.renew_token(token)
        if "permission denied" in reason:
            raise AuthFailed("etcd refused the watch", why=reason)
        raise EtcdUnavailable("the watch was cancelled", why=reason)

    def _advance(self) -> None:
        """In a range that healthy streams found quiet, moves on to a recent revision: compaction passes the old one.

        Quiet is checked, not assumed: no pair changed after our revision, and none is gone.
        """
        self._quiet_since = time.monotonic()
        before = self._client.range(self._start, self._end, count_only=True, revision=self._revision)
        after = self._client.range(self._start, self._end, min_mod=self._revision + 1, limit=1, keys_only=True)
        if not after.kvs and after.count == before.count:
            self._revision = max(self._revision, after.revision)


def _event(raw: Json) -> Event:
    pair = raw["kv"]
    return Event(
        "delete" if raw.get("type") == "DELETE" else "put",
        a2b_base64(pair["key"]).decode("utf-8", "surrogateescape"),
        a2b_base64(pair.get("value", "")),
        int(pair.get("mod_revision", 0)),
        int(pair.get("create_revision", 0)),
        int(pair.get("version", 0)),
        int(pair.get("lease", 0)),
    )
