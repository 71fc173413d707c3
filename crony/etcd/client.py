"""The etcd client: what one asks of etcd, typed. Thread-safe; a forked child opens its own sockets.

A read that got no answer is repeated elsewhere. A write that got none raises `EtcdUnknown`: read before you retry.
Answers are linearizable, so the store's revision never goes down; if it does (a restored snapshot), the client
raises `Halted` from then on.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from math import ceil
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

from crony.clock import SYSTEM
from crony.errors import CronyError, Halted
from crony.etcd import proto
from crony.etcd.address import TLS
from crony.etcd.cluster import Cluster
from crony.etcd.errors import BadRequest, Compacted, EtcdUnavailable, EtcdUnknown, LeaseGone
from crony.etcd.h2 import NoGrpc
from crony.etcd.keys import prefix_end
from crony.etcd.txn import Txn, self_test
from crony.etcd.txn_result import TxnResult, message_result, result
from crony.etcd.wire import KV, Alarm, Json, Page, Status, encode, encode_key, page

if TYPE_CHECKING:
    from crony.settings import Settings

_T = TypeVar("_T")

_PAGE = 1000
_MAINTENANCE = 60.0


class Client:
    """A connection to one etcd cluster. Cheap to make: it connects on first use."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        user: str = "",
        password: str = "",
        tls: TLS | None = None,
        timeout: float = 4.0,
    ) -> None:
        """`endpoints`: `http(s)://host:port` each; `timeout`: whole time one request may take, seconds."""
        self.cluster = Cluster(endpoints, user=user, password=password, tls=tls, timeout=timeout)
        self.timeout = timeout
        self._lock = threading.Lock()
        self._revision = 0
        self._cluster_id = ""
        self._halted: Halted | None = None
        self._tested: set[str] = set()
        _CLIENTS.add(self)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The client that the settings describe."""
        tls = None
        if settings.etcd_ca or settings.etcd_cert or settings.etcd_key:
            tls = TLS(settings.etcd_ca, settings.etcd_cert, settings.etcd_key)
        return cls(
            settings.etcd_endpoints,
            user=settings.etcd_user,
            password=settings.etcd_password,
            tls=tls,
            timeout=settings.etcd_timeout,
        )

    # -- keys ------------------------------------------------------------------------------------

    def get(self, key: str, *, revision: int = 0, timeout: float | None = None) -> KV | None:
        """The pair at `key`, or None. Raises `Compacted` when `revision` is gone."""
        found = self.range(key, revision=revision, timeout=timeout).kvs
        return found[0] if found else None

    def range(
        self,
        start: str,
        end: str | None = None,
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        count_only: bool = False,
        min_mod: int = 0,
        timeout: float | None = None,
    ) -> Page:
        """Keys `start` <= key < `end` in key order (`end` None: that key only, `"\\0"`: no end), `limit` at most.

        `min_mod`: only pairs changed at that revision or later (`count` still counts all).
        """
        if not start:
            raise BadRequest("a key is empty")
        what = _Range(limit, revision, keys_only, count_only, min_mod)
        if self.cluster.native:
            with contextlib.suppress(NoGrpc):
                message = proto.range_request(start, end, **what._asdict())
                return self._rpc("Range", message, proto.range_response, repeatable=True, timeout=timeout)
        return page(self._read(_range_body(start, end, what), timeout))

    def list(self, prefix: str, *, revision: int = 0, keys_only: bool = False) -> Page:
        """Everything under `prefix`, read in pages that all show the same revision."""
        return self.list_range(prefix, prefix_end(prefix), revision=revision, keys_only=keys_only)

    def list_range(self, start: str, end: str | None, *, revision: int = 0, keys_only: bool = False) -> Page:
        """As `list`, for a range. A listing overtaken by compaction starts again, unless `revision` was given."""
        while True:
            kvs: list[KV] = []
            at = revision
            try:
                for part in self.pages(start, end, revision=revision, keys_only=keys_only):
                    at = part.revision
                    kvs += part.kvs
                return Page(kvs, at, len(kvs), False)
            except Compacted:
                if revision:
                    raise

    def pages(
        self,
        start: str,
        end: str | None,
        *,
        revision: int = 0,
        keys_only: bool = False,
        limit: int = _PAGE,
        pinned: bool = True,
    ) -> Iterator[Page]:
        """As `list_range`, page by page, all of one revision, which each of them bears. Raises `Compacted` too.

        `limit`: most pairs of a page. Not `pinned`: each page as it is when it is read, which no compaction overtakes;
        for whoever follows a watch from before the first one.
        """
        at, key = revision, start
        while True:
            try:
                part = self.range(key, end, limit=limit, revision=at, keys_only=keys_only)
            except BadRequest as error:
                if "larger than max" not in error.what or limit == 1:
                    raise
                limit = max(1, limit // 8)
                continue
            if pinned:
                at = at or part.revision
            yield Page(part.kvs, at or part.revision, part.count, part.more)
            if not part.more or not part.kvs:
                return
            key = part.kvs[-1].key + "\0"

    def count(self, prefix: str) -> int:
        """How many keys lie under `prefix`."""
        return self.range(prefix, prefix_end(prefix), count_only=True).count

    def put(self, key: str, value: bytes, *, lease: int = 0) -> int:
        """Puts and returns the revision. Raises `EtcdUnknown`, `LeaseGone`, `NoSpace`."""
        if not key:
            raise BadRequest("a key is empty")
        if self.cluster.native:
            with contextlib.suppress(NoGrpc):
                message = proto.put_request(key, value, lease)
                return self._rpc("Put", message, _put_revision, repeatable=False)
        tail = f',"lease":"{int(lease)}"' if lease else ""
        body = f'{{"key":"{encode_key(key)}","value":"{encode(value)}"{tail}}}'
        return self._revision_of(self._kv("/v3/kv/put", body.encode("ascii"), repeatable=False))

    def delete(self, key: str) -> int:
        """Deletes one key; returns 1 or 0. Raises `EtcdUnknown`."""
        if not key:
            raise BadRequest("a key is empty")
        if self.cluster.native:
            with contextlib.suppress(NoGrpc):
                message = proto.delete_request(key)
                return self._rpc("DeleteRange", message, proto.write_response, repeatable=False)
        body = f'{{"key":"{encode_key(key)}"}}'.encode("ascii")
        return int(self._kv("/v3/kv/deleterange", body, repeatable=False).get("deleted", 0))

    def delete_prefix(self, prefix: str) -> int:
        """Deletes everything under `prefix` in one revision; returns how many. Raises `EtcdUnknown`."""
        body = f'{{"key":"{encode_key(prefix)}","range_end":"{encode_key(prefix_end(prefix))}"}}'.encode("ascii")
        return int(self._kv("/v3/kv/deleterange", body, repeatable=False).get("deleted", 0))

    def txn(self, txn: Txn, *, timeout: float | None = None) -> TxnResult:
        """Runs a transaction. Raises `BadRequest` before sending when it breaks a limit, `EtcdUnknown` in doubt."""
        if self.cluster.native:
            with contextlib.suppress(NoGrpc):
                return self._checked(self._txn_native, txn, timeout)
        return self._checked(self._txn_gateway, txn, timeout)

    def _checked(self, run: Callable[[Txn, float | None], TxnResult], txn: Txn, timeout: float | None) -> TxnResult:
        """Run it, after asking once, in either protocol, whether compares are evaluated (E3)."""
        if run.__name__ not in self._tested:
            self_test(lambda probe: run(probe, None), _some_key(txn))
            self._tested.add(run.__name__)
        return run(txn, timeout)

    def _txn_native(self, txn: Txn, timeout: float | None) -> TxnResult:
        message = txn.message()
        return self._rpc("Txn", message, message_result, repeatable=txn.repeatable, timeout=timeout)

    def _txn_gateway(self, txn: Txn, timeout: float | None) -> TxnResult:
        return result(self._kv("/v3/kv/txn", txn.encode(), repeatable=txn.repeatable, timeout=timeout))

    # -- leases ----------------------------------------------------------------------------------

    def grant(self, ttl: float, *, timeout: float | None = None) -> int:
        """A new lease of `ttl` seconds (rounded up); its id."""
        body = f'{{"TTL":"{max(1, ceil(ttl))}"}}'.encode("ascii")
        # Repeating is harmless: a lease nobody knows of runs out.
        return int(self._call("/v3/lease/grant", body, repeatable=True, timeout=timeout)["ID"])

    def keep_alive(self, lease: int, *, timeout: float | None = None) -> int:
        """Renews a lease; the seconds it has now, or 0: it is gone."""
        try:
            body = f'{{"ID":"{int(lease)}"}}'.encode("ascii")
            return int(self._call("/v3/lease/keepalive", body, repeatable=True, timeout=timeout).get("TTL", 0))
        except LeaseGone:
            return 0

    def revoke(self, lease: int, *, timeout: float | None = None) -> None:
        """Ends a lease and deletes its keys; one that is gone already is fine."""
        try:
            self._call("/v3/lease/revoke", f'{{"ID":"{int(lease)}"}}'.encode("ascii"), repeatable=True, timeout=timeout)
        except LeaseGone:
            return

    # -- upkeep ----------------------------------------------------------------------------------

    def compact(self, revision: int, *, physical: bool = False) -> None:
        """Forgets history before `revision`; done already is fine. Raises `BadRequest` for a future revision.

        `physical`: answers when the room is free in the file, as `defragment` needs it, not when it will be.
        """
        body = f'{{"revision":"{int(revision)}","physical":{"true" if physical else "false"}}}'
        try:
            self._call("/v3/kv/compaction", body.encode("ascii"), repeatable=True)
        except Compacted:
            return

    def status(self) -> Status:
        """Facts of the member we talk to (its own revision: not linearizable)."""
        raw = self._call("/v3/maintenance/status", b"{}", repeatable=True)
        header = raw.get("header", {})
        return Status(
            str(raw.get("version", "")),
            int(raw.get("dbSize", 0)),
            int(raw.get("dbSizeInUse", 0)),
            int(raw.get("leader", 0)),
            int(raw.get("raftTerm", 0)),
            int(header.get("revision", 0)),
            int(raw.get("dbSizeQuota", 0)),
            int(header.get("member_id", 0)),
        )

    def defragment(self) -> None:
        """Gives freed space back to the file system, one member after the other; each stands still meanwhile.

        Goes on when a member cannot be reached, and raises that error at the end.
        """
        failed: CronyError | None = None
        for endpoint in self.cluster.endpoints:
            try:
                self.cluster.call(
                    "/v3/maintenance/defragment", b"{}", repeatable=False, timeout=_MAINTENANCE, only=endpoint
                )
            except (EtcdUnavailable, EtcdUnknown) as error:
                failed = error
        if failed is not None:
            raise failed

    def alarms(self) -> tuple[Alarm, ...]:
        """Alarms raised by members."""
        raw = self._call("/v3/maintenance/alarm", b'{"action":"GET"}', repeatable=True)
        found = raw.get("alarms", ())
        return tuple(Alarm(int(item.get("memberID", 0)), str(item.get("alarm", "NONE"))) for item in found)

    def disarm(self) -> None:
        """Takes back every alarm."""
        for alarm in self.alarms():
            body = json.dumps({"action": "DEACTIVATE", "memberID": str(alarm.member), "alarm": alarm.kind})
            self._call("/v3/maintenance/alarm", body.encode(), repeatable=True)

    # -- facts -----------------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """The highest store revision seen in an answer."""
        return self._revision

    def at_least(self, revision: int) -> None:
        """The store was seen at `revision` before (kept on disk, say): an answer below it is a reason to halt."""
        with self._lock:
            self._revision = max(self._revision, revision)

    @property
    def cluster_id(self) -> str:
        """Which cluster answered; empty before the first answer."""
        return self._cluster_id

    def halt(self, error: Halted) -> None:
        """Every call raises `error` from now on: somebody else found out that etcd went back in time."""
        self._halted = error

    def begin_anew(self) -> None:
        """Forget what was seen: etcd was recovered on purpose."""
        with self._lock:
            self._revision, self._cluster_id, self._halted = 0, "", None

    @property
    def clock_offset(self) -> float:
        """etcd's wall clock (median of the members) minus ours, seconds; 0 before the first answer."""
        return self.cluster.clock_offset

    def now(self) -> float:
        """etcd's wall clock, seconds since the epoch."""
        return SYSTEM.wall() + self.cluster.clock_offset

    @property
    def closed(self) -> bool:
        """Whether `close` was called. Watches, sessions and terms of a closed client end."""
        return self.cluster.closed

    def close(self) -> None:
        """Closes the sockets; later calls raise `EtcdUnavailable`."""
        self.cluster.close()

    def __enter__(self) -> Self:
        """The client itself, closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes."""
        self.close()

    # -- parts -----------------------------------------------------------------------------------

    def _read(self, body: bytes, timeout: float | None = None) -> Json:
        return self._kv("/v3/kv/range", body, repeatable=True, timeout=timeout)

    def _call(self, path: str, body: bytes, *, repeatable: bool, timeout: float | None = None) -> Json:
        if self._halted is not None:
            raise self._halted
        return self.cluster.call(path, body, repeatable=repeatable, timeout=timeout)

    def _kv(self, path: str, body: bytes, *, repeatable: bool, timeout: float | None = None) -> Json:
        floor = self._revision
        raw = self._call(path, body, repeatable=repeatable, timeout=timeout)
        header = raw.get("header") or {}
        self._saw(floor, int(header.get("revision", 0)), header.get("cluster_id", ""))
        return raw

    def _rpc(
        self,
        method: str,
        message: bytes,
        decode: Callable[[bytes], tuple[proto.Header, _T]],
        *,
        repeatable: bool,
        timeout: float | None = None,
    ) -> _T:
        if self._halted is not None:
            raise self._halted
        floor = self._revision
        data = self.cluster.rpc(f"/etcdserverpb.KV/{method}", message, repeatable=repeatable, timeout=timeout)
        try:
            header, found = decode(data)
        except (IndexError, ValueError) as error:
            raise EtcdUnknown("etcd's answer is not understood", why=f"{type(error).__name__}: {error}") from None
        self._saw(floor, header.revision, header.cluster)
        return found

    def _saw(self, floor: int, revision: int, cluster: str) -> None:
        # Answers of requests under way together come in any order: what was known when a request left binds it.
        if revision < floor:
            self._halt(f"its revision is {revision}, {floor} was seen before")
        if revision > self._revision or not self._cluster_id:
            with self._lock:
                self._revision = max(self._revision, revision)
                self._cluster_id = self._cluster_id or cluster
        if cluster != self._cluster_id:
            self._halt(f"cluster {cluster} answers where {self._cluster_id} was")

    def _halt(self, why: str) -> None:
        self._halted = Halted("etcd's data went back in time", why=why, hint="run `crony recover`, then start again")
        raise self._halted

    @staticmethod
    def _revision_of(raw: Json) -> int:
        return int((raw.get("header") or {}).get("revision", 0))

    def _after_fork(self) -> None:
        self._lock = threading.Lock()


class _Range(NamedTuple):
    limit: int
    revision: int
    keys_only: bool
    count_only: bool
    min_mod: int


def _range_body(start: str, end: str | None, what: _Range) -> bytes:
    parts = [f'"key":"{encode_key(start)}"']
    if end is not None:
        parts.append(f'"range_end":"{encode_key(end)}"')
    for name, number in (
        ("limit", what.limit),
        ("revision", what.revision),
        ("min_mod_revision", what.min_mod),
    ):
        if number:
            parts.append(f'"{name}":"{int(number)}"')
    if what.keys_only:
        parts.append('"keys_only":true')
    if what.count_only:
        parts.append('"count_only":true')
    return ("{" + ",".join(parts) + "}").encode("ascii")


def _put_revision(data: bytes) -> tuple[proto.Header, int]:
    header, _ = proto.write_response(data)
    return header, header.revision


def _some_key(txn: Txn) -> str:
    """A key that the transaction may touch, so that the self-test stays within our permissions."""
    if txn.compares:
        return txn.compares[0].key
    puts, deletes = txn.writes()
    return min(puts | deletes, default="crony")


def wait_ready(client: Client, timeout: float) -> bool:
    """Waits until etcd answers, `timeout` seconds at most; whether it did."""
    try:
        client.range("crony", count_only=True, timeout=timeout)
    except EtcdUnavailable:
        return False
    return True


_CLIENTS: weakref.WeakSet[Client] = weakref.WeakSet()


def _after_fork() -> None:
    for client in list(_CLIENTS):
        client._after_fork()


os.register_at_fork(after_in_child=_after_fork)

__all__ = ["KV", "TLS", "Alarm", "Client", "Page", "Status", "Txn", "TxnResult", "wait_ready"]
