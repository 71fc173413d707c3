"""The pools, as a leader knows them: limits, who holds which slot, and who waits in line for one.

Plain memory of the decision loop, as the book is. A slot is taken by the lowest free number, and only while all that is
held fits the limit: also when that was lowered and runs still hold numbers beyond it, and whatever another shard's
leader takes meanwhile that is not known here yet (see `_Pool.top`).
"""

from __future__ import annotations

import heapq
import logging
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from crony.domain.pool import Pool, Slot
from crony.domain.record import UnknownRecord
from crony.domain.run import Envelope, Wait
from crony.domain.signing import BadSeal, Verifier, peek
from crony.etcd.keys import Keys

log = logging.getLogger("crony.beat")

_Rank = tuple[int, float, str]
"""Where a run stands in line: higher priority first, then who has waited longer."""


@dataclass(slots=True)
class Holding:
    """A taken slot: by whom, as its key says; None when nobody can read it."""

    slot: Slot | None
    seen: int


@dataclass(slots=True)
class _Pool:
    name: str
    pool: Pool | None = None
    """None: no web has published it."""
    seen: int = 0
    held: dict[int, Holding] = field(default_factory=dict)
    promised: set[int] = field(default_factory=set)
    """Numbers that a decision on its way to etcd takes."""
    line: list[_Rank] = field(default_factory=list)

    @property
    def open(self) -> bool:
        """Whether it limits nothing any more: it was deleted."""
        return self.pool is not None and self.pool.deleted

    @property
    def top(self) -> int:
        """Numbers below it may be taken.

        It is the largest number for which all below it and all that is held from it on fit the limit together. What is
        held from it on only goes, so nobody who knows the limit takes more, however old their news of the others are.
        """
        limit = self.pool.limit if self.pool is not None else 0
        taken = [*self.held, *self.promised]
        top = limit
        while top > 0 and (above := sum(number >= top for number in taken)) > limit - top:
            top = limit - above
        return max(0, top)

    def free(self) -> list[int]:
        """Numbers that may be taken, lowest first."""
        return [number for number in range(self.top) if number not in self.held and number not in self.promised]


class Pools:
    """All of them. `trusted` opens what webs publish."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self.trusted: Verifier | None = None
        self._pools: dict[str, _Pool] = {}
        self._needs: dict[str, tuple[_Rank, tuple[str, ...]]] = {}
        """Runs in line, with the pools they need."""
        self._coming: set[str] = set()
        """Pools in whose lines somebody is about to stand: nobody decided later overtakes them."""
        self.news = False
        """A slot, a limit or a line changed: look whose turn it is."""

    # -- what etcd says ------------------------------------------------------------------------

    def publish(self, name: str, value: bytes, revision: int) -> None:
        """The object of a pool. One that no web sealed lets nobody in."""
        pool = self._pool(name)
        pool.seen, pool.pool, self.news = revision, None, True
        try:
            if self.trusted is None:
                raise BadSeal("there is nobody to trust")
            found = Pool.read(self.trusted.open(value))
            if found.name != name or type(found.limit) is not int:
                raise BadSeal("it is of another pool")
            pool.pool = found
        except (BadSeal, UnknownRecord) as error:
            log.error("the pool %s is not acted on, and lets nobody in: %s", name, error)

    def unpublish(self, name: str) -> None:
        """Its object is gone altogether."""
        pool = self._pool(name)
        pool.seen, pool.pool, self.news = 0, None, True

    def hold(self, name: str, number: str, value: bytes, revision: int) -> None:
        """A slot is taken."""
        try:
            slot: Slot | None = Slot.read(value)
        except UnknownRecord:
            slot = None
        self._pool(name).held[int(number)] = Holding(slot, revision)

    def let_go(self, name: str, number: str) -> None:
        """A slot is free again."""
        if self._pool(name).held.pop(int(number), None) is not None:
            self.news = True

    def holdings(self) -> Iterable[tuple[str, Holding]]:
        """Every taken slot by its key."""
        for pool in self._pools.values():
            for number, holding in pool.held.items():
                yield self._keys.slot(pool.name, number), holding

    # -- decisions -----------------------------------------------------------------------------

    def enter(self, names: Sequence[str], *, in_turn: bool = False) -> list[str] | None:
        """Promise a slot of each pool; None: it has to wait, because one has none free or, unless it is `in_turn`,
        because others wait already."""
        if not in_turn and any(self._pool(name).line or name in self._coming for name in names):
            self._coming.update(names)
            return None
        found: list[str] = []
        for name in dict.fromkeys(names):
            pool = self._pool(name)
            if pool.open:
                continue
            free = pool.free()
            if not free:
                self.give_back(found)
                self._coming.update(names)
                return None
            pool.promised.add(free[0])
            found.append(f"{name}/{free[0]}")
        return found

    def give_back(self, slots: Iterable[str]) -> None:
        """Slots that were promised are not needed."""
        for slot in slots:
            name, _, number = slot.rpartition("/")
            self._pool(name).promised.discard(int(number))
            self.news = True

    def decided(self, keys: Iterable[str], *, done: bool) -> None:
        """A transaction that puts these keys was carried out, or not: what it was promised is held now, or free."""
        for key in keys:
            if key.startswith(self._keys.pools):
                name, _, number = key.removeprefix(self._keys.pools).rpartition("/")
                self._pool(name).promised.discard(int(number))
                self.news |= not done

    def nothing_under_way(self) -> None:
        """No decision is on its way to etcd, so no slot is promised to one, and who lines up is in line."""
        self._coming.clear()
        for pool in self._pools.values():
            if pool.promised:
                pool.promised.clear()
                self.news = True

    def seen(self, names: Iterable[str]) -> dict[str, int]:
        """Keys of the objects of pools, with the revisions known."""
        return {self._keys.obj("pool", name): self._pool(name).seen for name in names}

    def why(self, names: Iterable[str]) -> str:
        """What a run that needs these waits for, in a sentence."""
        clauses = []
        for name in names:
            pool = self._pool(name)
            if pool.pool is None:
                clauses.append(f"there is no pool {name}")
            elif not pool.open:
                clauses.append(f"pool {name} lets {pool.pool.limit} run at a time")
        return "; ".join(clauses)

    # -- the lines -----------------------------------------------------------------------------

    def line_up(self, run: str, wait: Wait) -> None:
        """A run waits for its slots; its parked envelope says of which pools, and how urgent it is."""
        self.leave(run)
        names: tuple[str, ...] = ()
        rank: _Rank = (0, 0.0, run)
        try:
            told = Envelope.read(peek(wait.envelope))
            names = tuple(dict.fromkeys(str(name) for name in told.pools))
            rank = (-int(told.priority), float(wait.since_at), run)
        except (UnknownRecord, ValueError, LookupError, TypeError, RecursionError):
            log.error("the pools of the waiting run %s cannot be read", run)
        self._needs[run] = (rank, names)
        for name in names:
            insort(self._pool(name).line, rank)
        self.news = True

    def leave(self, run: str) -> None:
        """A run does not wait for slots any more, if it did."""
        known = self._needs.pop(run, None)
        if known is None:
            return
        rank, names = known
        for name in names:
            line = self._pool(name).line
            at = bisect_left(line, rank)
            if at < len(line) and line[at] == rank:
                del line[at]
        self.news = True

    def turns(self, ready: Callable[[str], bool]) -> list[str]:
        """Runs in line whose turn it is, in order; those that are not `ready` are passed over.

        A run needs a slot of all its pools at once. It is passed over while one of them has none, but the first in
        line of such a pool keeps a place in its others: so nobody waits for ever, and nothing is held while waiting.
        """
        found = [run for run, (_, names) in self._needs.items() if not names and ready(run)]
        room = {name: len(pool.free()) for name, pool in self._pools.items() if pool.line and not pool.open}
        lines = [pool.line for name, pool in self._pools.items() if pool.line and room.get(name, 1) > 0]
        merged = {name for name, left in room.items() if left > 0}
        heads: dict[str, str] = {}
        looked: set[str] = set()
        for rank in heapq.merge(*lines):
            run = rank[-1]
            if run in looked or not ready(run):
                continue
            looked.add(run)
            needs = [name for name in self._needs[run][1] if name in room]
            lacking = [name for name in needs if room[name] <= 0]
            if not lacking:
                found.append(run)
            elif not any(self._is_head(name, run, heads, name in merged) for name in lacking):
                continue
            for name in needs:
                room[name] -= room[name] > 0
            if not any(room[name] > 0 for name in merged) and len(lines) == len(merged):
                break
        return found

    def _is_head(self, name: str, run: str, heads: dict[str, str], seen_in_order: bool) -> bool:
        """Whether it is the first in line that this pool keeps waiting."""
        if seen_in_order:
            return heads.setdefault(name, run) == run
        return self._pool(name).line[0][-1] == run

    def _pool(self, name: str) -> _Pool:
        pool = self._pools.get(name)
        if pool is None:
            pool = self._pools[name] = _Pool(name)
        return pool
