"""A notice: an alert on its way to people. It lies in etcd until every one of its destinations has it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from crony.domain import alert as alerts
from crony.domain.alert import Alert
from crony.domain.record import Record

MOST = 2000
"""Most notices kept; beyond it the oldest are given up. Their alerts stay."""
WAITING, SENT, GIVEN_UP = "waiting", "sent", "given_up"


@dataclass(frozen=True, slots=True)
class Notice(Record):
    """`alert.send/<id>`, put together with `alert/<id>`."""

    alert: dict[str, Any]
    to: list[str] | None = None
    """Where it goes; None: as the job and the rules say at the time it is sent."""
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Destination -> {state, at, said}: those that are done with."""

    def about(self, ident: str, now: float) -> Alert:
        """The alert, fit for people and database, whatever stands there."""
        return alerts.read(ident, self.alert if isinstance(self.alert, dict) else {}, now)

    def with_result(self, destination: str, state: str, at: float, said: str, to: list[str]) -> Notice:
        """Also this destination (of `to`) is done."""
        result = {"state": state, "at": round(at, 3), "said": said[:300]}
        return replace(self, to=to, told={**self.told, destination: result})


@dataclass(frozen=True, slots=True)
class Doing(Record):
    """`alert.channel/<name>`: how a channel does, for people."""

    failing: str = ""
    """Why it cannot be used right now; empty: it can, or nobody tried."""
    sent_at: float = 0.0
    """When the present leader last sent something by it, epoch seconds; 0: it has not."""


def notice(alert: Alert, to: list[str] | None = None) -> Notice:
    """A new notice."""
    return Notice(alert.payload(), to)
