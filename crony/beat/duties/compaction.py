"""Compaction: etcd keeps history of the last one to two minutes; and its room is watched (M1, M2, I11)."""

from __future__ import annotations

import time
from collections.abc import Callable

from crony.beat.duty import Background
from crony.beat.office import Holds
from crony.etcd.client import Client
from crony.etcd.errors import AuthFailed

EVERY = 60.0
QUOTA = 2 * 1024**3
"""etcd's default."""
FULL = 0.70
"""Share of the quota from which fires are held: ends and deletes must still have room."""


class Compaction:
    """Compacts, every minute, to the revision that was current a minute before that."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._before: tuple[float, int] | None = None
        self.background = Background("compaction", EVERY / 4, lambda: _as_root(self._work))

    def _work(self) -> None:
        now = time.monotonic()
        if self._before is None:
            self._before = now, self._client.revision
        elif now - self._before[0] >= EVERY:
            if self._before[1] > 0:
                self._client.compact(self._before[1])
            self._before = now, self._client.revision


class Room:
    """Holds the fires of one leader while etcd is nearly full; `quota`: bytes where it does not tell (0: default)."""

    def __init__(self, client: Client, holds: Holds, quota: int) -> None:
        self._client, self._holds, self._quota = client, holds, quota or QUOTA
        self.background = Background("room", EVERY / 4, lambda: _as_root(self._work))

    def _work(self) -> None:
        status = self._client.status()
        self._watch_room(status.db_in_use, status.quota or self._quota)

    def _watch_room(self, used: int, quota: int) -> None:
        share = used / quota
        if share >= FULL:
            self._holds.set(
                "room",
                f"etcd uses {share:.0%} of its space ({used / 2**20:.0f} of {quota / 2**20:.0f} MiB). Fires wait until "
                "there is room; ends go on. Is the archive's database away?",
            )
        elif share < FULL - 0.05:
            self._holds.clear("room")


def _as_root(work: Callable[[], None]) -> None:
    try:
        work()
    except AuthFailed as error:
        raise AuthFailed(
            "this etcd lets only the root role compact and see how full it is",
            why=error.why,
            hint="grant it to the centre's user, or start etcd with --auto-compaction-mode=periodic "
            "--auto-compaction-retention=5m and watch its room with `crony doctor` as root",
        ) from None
