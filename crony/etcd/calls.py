"""One request to etcd and its answer: in either protocol, and what answers say of the store itself.

Answers are linearizable, so the store's revision never goes down; if it does (a restored snapshot), every request
raises `Halted` from then on.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Self, TypeVar

from crony.clock import SYSTEM
from crony.errors import Halted
from crony.etcd import proto
from crony.etcd.address import TLS
from crony.etcd.cluster import Cluster
from crony.etcd.errors import EtcdUnknown
from crony.etcd.wire import Json

if TYPE_CHECKING:
    from crony.settings import Settings

_T = TypeVar("_T")


class Calls:
    """The way to one cluster. Thread-safe; a forked child opens its own sockets."""

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
        """Protocols of which it is known that compares are evaluated."""
        _ALL.add(self)

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

    # -- requests --------------------------------------------------------------------------------

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

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

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


_ALL: weakref.WeakSet[Calls] = weakref.WeakSet()


def _after_fork() -> None:
    for each in list(_ALL):
        each._after_fork()


os.register_at_fork(after_in_child=_after_fork)
