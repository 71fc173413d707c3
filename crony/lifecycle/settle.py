"""Settle (transaction 16): the position up to which outcomes have had their consequences, in revision order.

The alerts of those outcomes are put in the same transaction: a failure behind the position has its alert, or was
counted because there was no room for it. So are the requests to the leader of a job some of whose runs are awaited
(a delay after the end, say): an end behind the position has been told, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from crony.domain.alert import Alert, run_failed
from crony.domain.outcome import Outcome
from crony.domain.run import Record, Request, UnknownRecord
from crony.etcd.keys import Keys
from crony.lifecycle.move import Move

MOST_ALERTS = 30
"""Most alerts put by one settle."""
MOST_ENDS = 50
"""Most ends told by one settle."""
_AWAITED = b'"awaited":true'


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
    """What follows from a stretch of outcomes: the position behind them, the failures and awaited ends among them."""

    position: Position
    alerts: Sequence[Alert]
    """At most `MOST_ALERTS`, each once."""
    ends: Mapping[str, Request]
    """At most `MOST_ENDS`, by request id; the ids sort as the outcomes do."""


def consequences(keys: Keys, outcomes: Iterable[tuple[int, str, bytes]], position: Position) -> Consequences:
    """Go from `position` over `outcomes` (revision, key, value), in order, as far as one transaction can."""
    alerts: dict[str, Alert] = {}
    ends: dict[str, Request] = {}
    for revision, key, value in outcomes:
        run = key.removeprefix(keys.outs).split("/")[0]
        alert, end = run_failed(run, value), _ended(run, value)
        if (alert is not None and len(alerts) >= MOST_ALERTS) or (end is not None and len(ends) >= MOST_ENDS):
            break
        if alert is not None:
            alerts.setdefault(alert.id, alert)
        if end is not None:
            ends[f"s{revision:016x}.{run}"] = end
        position = Position(revision, key)
    return Consequences(position, tuple(alerts.values()), ends)


def _ended(run: str, value: bytes) -> Request | None:
    """What the leader of a job is told of an outcome: that an awaited run is over."""
    if _AWAITED not in value:
        return None
    try:
        told = Outcome.read(value)
        if told.awaited is not True or not told.final:
            return None
        return Request(
            "ended", run=run, job=run.split(".")[0], generation=int(told.generation), trigger=str(told.trigger),
            outcome=str(told.kind), revision=int(told.revision), ended_at=float(told.ended_at),
        )  # fmt: skip
    except (UnknownRecord, ValueError, TypeError, OverflowError):
        return None  # the archiver says that it cannot be read


def settle(
    keys: Keys,
    *,
    settled_seen: int,
    position: Position,
    alerts: Iterable[Alert] = (),
    ends: Mapping[str, Request] | None = None,
) -> Move:
    """Advance the position, put the alerts, tell the ends; two leaders cannot both.

    An alert that is there already is put again: it says the same, and refusing would stop every later one.
    """
    puts = {keys.settled: position.encode()} | {keys.alert(alert.id): alert.encode() for alert in alerts}
    puts |= {keys.run_in(ident): request.encode() for ident, request in (ends or {}).items()}
    return Move({keys.settled: settled_seen}, puts=puts, proof=keys.settled)
