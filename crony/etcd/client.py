"""The etcd client: what one asks of etcd, typed. Thread-safe; a forked child opens its own sockets.

A read that got no answer is repeated elsewhere. A write that got none raises `EtcdUnknown`: read before you retry.
Answers are linearizable, so the store's revision never goes down; if it does (a restored snapshot), the client
raises `Halted` from then on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from math import ceil
from typing import NamedTuple

from crony.etcd import proto
from crony.etcd.errors import BadRequest, Compacted, EtcdUnavailable, LeaseGone
from crony.etcd.h2 import NoGrpc
from crony.etcd.keys import prefix_end
from crony.etcd.paging import paged
from crony.etcd.txn import Txn, self_test
from crony.etcd.txn_result import TxnResult, message_result, result
from crony.etcd.upkeep import Upkeep
from crony.etcd.wire import KV, Json, Page, encode, encode_key, page

_PAGE = 1000


class Client(Upkeep):
    """A connection to one etcd cluster. Cheap to make: it connects on first use.

    Its keys and leases are here; room and alarms are `Upkeep`, making it and what it saw of the store `Calls`.
    """

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
        timeout: float | None = None,
    ) -> Iterator[Page]:
        """As `list_range`, page by page, all of one revision, which each of them bears. Raises `Compacted` too.

        `limit`: most pairs of a page. Not `pinned`: each page as it is when it is read, which no compaction overtakes;
        for whoever follows a watch from before the first one. `timeout`: of each page. Nobody should go by `count` and
        `more` of a page: they tell of the stretch that was asked for (`paging`).
        """
        at, most = revision, limit

        def read(key: str, stop: str | None) -> Page:
            nonlocal at, most
            while True:
                try:
                    part = self.range(key, stop, limit=most, revision=at, keys_only=keys_only, timeout=timeout)
                except BadRequest as error:
                    if "larger than max" not in error.what or most == 1:
                        raise
                    most = max(1, most // 8)
                    continue
                if pinned:
                    at = at or part.revision
                return Page(part.kvs, at or part.revision, part.count, part.more)

        return paged(read, start, end, limit)

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
        return _revision_of(self._kv("/v3/kv/put", body.encode("ascii"), repeatable=False))

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

    def _read(self, body: bytes, timeout: float | None = None) -> Json:
        return self._kv("/v3/kv/range", body, repeatable=True, timeout=timeout)


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


def _revision_of(raw: Json) -> int:
    return int((raw.get("header") or {}).get("revision", 0))


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


__all__ = ["KV", "Client", "Page", "Txn", "TxnResult", "wait_ready"]
