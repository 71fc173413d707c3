"""A move: one indivisible step of the leader, as data. Moves are packed into transactions under its term.

Nothing here talks to etcd. A move says what must still be as it was seen (by revision), whose session
must be alive or gone, what it puts and what it deletes; `transaction` adds the leader's own compares.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from crony.domain.join import Join
from crony.domain.pool import Slot
from crony.domain.run import Envelope, Wait
from crony.errors import CronyError
from crony.etcd.keys import Keys
from crony.etcd.txn import Compare, Txn, absent, exists, mod
from crony.lifecycle.slots import slots_of


@dataclass(frozen=True, slots=True)
class Move:
    """One step. It happens whole or not at all."""

    seen: Mapping[str, int] = field(default_factory=dict)
    """Key -> its mod revision when the decision was made; 0: it was absent."""
    alive: frozenset[str] = frozenset()
    """Incarnations whose session must be there: the nodes chosen."""
    gone: frozenset[str] = frozenset()
    """Incarnations whose session must be absent: the nodes lost."""
    puts: Mapping[str, bytes] = field(default_factory=dict)
    deletes: tuple[str, ...] = ()
    proof: str = ""
    """A key among `puts` that only the leader writes and nobody deletes: reading it back tells whether an
    unanswered transaction happened. Empty: there is none, the watch tells."""

    def also(self, other: Move) -> Move:
        """Both as one step; they touch no key in common. The proof stays this one's."""
        return replace(
            self,
            seen={**self.seen, **other.seen},
            alive=self.alive | other.alive,
            gone=self.gone | other.gone,
            puts={**self.puts, **other.puts},
            deletes=(*self.deletes, *other.deletes),
        )

    @property
    def touched(self) -> set[str]:
        """Every key it writes."""
        return {*self.puts, *self.deletes}

    @property
    def operations(self) -> int:
        """Puts and deletes."""
        return len(self.puts) + len(self.deletes)

    @property
    def size(self) -> int:
        """About how many bytes it sends."""
        return sum(len(key) + len(value) for key, value in self.puts.items()) + sum(len(key) + 60 for key in self.seen)


@dataclass(frozen=True, slots=True)
class Lead:
    """The leader's compares: its term, the number of shards, and (for whatever dispatches) the control key."""

    keys: Keys
    term: Compare
    shards_seen: int

    def compares(self, control_seen: int | None = None) -> list[Compare]:
        """LC; with `control_seen` also that nobody pulled the stop switch since."""
        found = [self.term, mod(self.keys.shards, self.shards_seen)]
        if control_seen is not None:
            found.append(mod(self.keys.control, control_seen))
        return found


@dataclass(frozen=True, slots=True)
class Dispatch:
    """An attempt ready for its queue: where its message goes, and the envelope sealed for the node chosen."""

    envelope: Envelope
    place: str
    value: bytes
    pools: Mapping[str, int] = field(default_factory=dict)
    """Objects of its pools, with the revisions seen: a limit that changed meanwhile is another decision."""


class Entangled(CronyError):
    """Two moves of one transaction touch the same key; etcd would refuse all of it (S7)."""


def transaction(lead: Lead, moves: Iterable[Move], *, control_seen: int | None = None) -> Txn:
    """All `moves` as one transaction under the leader's term. Raises `Entangled`."""
    seen: dict[str, int] = {}
    alive: set[str] = set()
    gone: set[str] = set()
    touched: set[str] = set()
    txn = Txn()
    for move in moves:
        for key, revision in move.seen.items():
            if seen.setdefault(key, revision) != revision:
                raise Entangled(f"two moves saw {key} differently")
        if touched & move.touched:
            raise Entangled(f"two moves write {sorted(touched & move.touched)[0]}")
        touched |= move.touched
        alive |= move.alive
        gone |= move.gone
        for key, value in move.puts.items():
            txn.put(key, value)
        for key in move.deletes:
            txn.delete(key)
    keys = lead.keys
    return txn.when(
        *lead.compares(control_seen),
        *(mod(key, revision) for key, revision in seen.items()),
        *(exists(keys.session(incarnation)) for incarnation in sorted(alive)),
        *(absent(keys.session(incarnation)) for incarnation in sorted(gone)),
    )


def sent(keys: Keys, dispatches: Iterable[Dispatch]) -> Move:
    """What handing out `dispatches` takes: their messages and slots put, their nodes alive, their pools unchanged."""
    puts: dict[str, bytes] = {}
    seen: dict[str, int] = {}
    alive: set[str] = set()
    for dispatch in dispatches:
        told = dispatch.envelope
        puts[keys.message(told.queue, dispatch.place)] = dispatch.value
        if told.incarnation:  # a shared queue waits for whoever comes
            alive.add(told.incarnation)
        seen |= dispatch.pools
        for slot in slots_of(keys, told):
            puts[slot] = Slot(told.run, told.queue, dispatch.place).encode()
            seen[slot] = 0
    return Move(seen, frozenset(alive), puts=puts)


def parked(keys: Keys, records: Iterable[Wait | Join]) -> dict[str, bytes]:
    """The puts of runs that go to no queue now: they wait, or are to be carried out in parts."""
    return {
        keys.run_join(record.run) if isinstance(record, Join) else keys.run_wait(record.run): record.encode()
        for record in records
    }
