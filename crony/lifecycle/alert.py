"""Alert (transaction 21): what happened to the platform itself is put once, and deleted when the database has it.

Beside each alert lies a notice, deleted when people have been told; see `lifecycle.notify`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crony.domain.alert import Alert, leader_changed
from crony.domain.notice import notice
from crony.domain.record import Record
from crony.domain.shards import Part
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, mod
from crony.lifecycle.move import Move

LIMIT = 90
"""Most alerts removed by one transaction."""


@dataclass(frozen=True, slots=True)
class LastLeader(Record):
    """`beat/<s>/last`: who took the lead last; it outlives the leader's own key, so that a change can be told."""

    name: str
    term: int
    handed_over: bool = False
    """It gave the shard to another centre by agreement: that one's lead is no news."""


def tell(keys: Keys, alert: Alert, *, gone: str = "", seen: Mapping[str, int] | None = None) -> Move:
    """Put an alert nobody put before; `gone`: only while this incarnation's session is absent, `seen`: only while the
    records it speaks of are as they were seen."""
    absent = {keys.alert(alert.id): 0, keys.notice(alert.id): 0}
    return Move({**(seen or {}), **absent}, gone=frozenset({gone} if gone else ()), puts=put(keys, alert))


def tell_of(keys: Keys, alert: Alert, *, mark: str, seen: Mapping[str, int]) -> Move:
    """Put an alert about a live run, and the mark that people were told; only while the run is where it was seen. The
    alert's own keys go when it is delivered: the mark is what keeps a later leader from telling it again."""
    return Move({**seen, mark: 0}, puts={mark: b"{}", **put(keys, alert)})


def forget(marks: Mapping[str, int]) -> Move:
    """Delete what lies beside a run that is over, with the revisions seen."""
    return Move(marks, deletes=tuple(marks))


def put(keys: Keys, alert: Alert, to: Sequence[str] | None = None) -> dict[str, bytes]:
    """What an alert is in etcd: one key until the database has it, one until people have been told. `to`: whom;
    None: as its job and the rules say."""
    told = notice(alert, list(to) if to is not None else None)
    return {keys.alert(alert.id): alert.encode(), keys.notice(alert.id): told.encode()}


def ask_for_test(client: Client, keys: Keys, alert: Alert, to: Sequence[str] | None) -> None:
    """Put a test alert, for the leader to send as any other; its id is fresh. Raises as the client."""
    txn = Txn().when(mod(keys.alert(alert.id), 0))
    for key, value in put(keys, alert, to).items():
        txn.put(key, value)
    client.txn(txn)


def take_the_lead(
    keys: Keys, part: Part, *, name: str, term: int, before: LastLeader | None, before_seen: int, at: float
) -> Move:
    """Note who leads; when another centre did before, put the alert about it. The very first leader changes nothing,
    nor does one that was given the shard."""
    last = keys.last_leader(part.number)
    puts = {last: LastLeader(name, term).encode()}
    if before is not None and before.name != name and not before.handed_over:
        alert = leader_changed(part, term, name, before.name, at)
        puts |= put(keys, alert)
    return Move({last: before_seen}, puts=puts, proof=last)


def handed_over(keys: Keys, part: Part, last: LastLeader, *, seen: int) -> Move:
    """Note that the leader, which noted itself at revision `seen`, gives the shard to another centre."""
    key = keys.last_leader(part.number)
    return Move({key: seen}, puts={key: last.encode()}, proof=key)


def sent(delivered: Mapping[str, int]) -> Move:
    """Delete alert keys with the revisions at which their rows were committed. It puts nothing, as an archive (M2)."""
    return Move(delivered, deletes=tuple(delivered))
