"""Settle (transaction 16): the position up to which outcomes have had their consequences, in revision order.

The alerts of those outcomes are put in the same transaction: a failure behind the position has its alert, or was
counted because there was no room for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from crony.domain.alert import Alert, run_failed
from crony.domain.run import Record
from crony.etcd.keys import Keys
from crony.lifecycle.move import Move

MOST_ALERTS = 30
"""Most alerts put by one settle."""


@dataclass(frozen=True, slots=True)
class Position(Record):
    """`settled`: every outcome at or before (revision, key) has had its consequences."""

    revision: int = 0
    key: str = ""

    def covers(self, revision: int, key: str) -> bool:
        """Whether an outcome written at `revision` under `key` lies behind it."""
        return (revision, key) <= (self.revision, self.key)


@dataclass(frozen=True, slots=True)
class Consequences:
    """What follows from a stretch of outcomes: the position behind them, and the failures among them."""

    position: Position
    alerts: Sequence[Alert]
    """At most `MOST_ALERTS`, each once."""


def consequences(keys: Keys, outcomes: Iterable[tuple[int, str, bytes]], position: Position) -> Consequences:
    """Go from `position` over `outcomes` (revision, key, value), in order, as far as one transaction can."""
    alerts: dict[str, Alert] = {}
    for revision, key, value in outcomes:
        alert = run_failed(key.removeprefix(keys.outs).split("/")[0], value)
        if alert is not None:
            if len(alerts) >= MOST_ALERTS:
                break
            alerts.setdefault(alert.id, alert)
        position = Position(revision, key)
    return Consequences(position, tuple(alerts.values()))


def settle(keys: Keys, *, settled_seen: int, position: Position, alerts: Iterable[Alert] = ()) -> Move:
    """Advance the position and put the alerts; two leaders cannot both.

    An alert that is there already is put again: it says the same, and refusing would stop every later one.
    """
    puts = {keys.settled: position.encode()} | {keys.alert(alert.id): alert.encode() for alert in alerts}
    return Move({keys.settled: settled_seen}, puts=puts, proof=keys.settled)
