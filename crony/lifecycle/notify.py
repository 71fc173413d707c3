"""Notify (transaction 22): what became of a notice is noted, and when nothing is left to send it is over.

Only the leader of shard 0 sends. It notes after it has sent: killed in between, its successor sends that once more, and
nobody is left out. The end of a notice puts its alert again, with what became of it, so that the database learns it.
"""

from __future__ import annotations

from crony.domain.alert import Alert
from crony.domain.notice import Notice
from crony.etcd.keys import Keys
from crony.lifecycle.alert import put
from crony.lifecycle.move import Move


def noted(keys: Keys, ident: str, seen: int, notice: Notice) -> Move:
    """Some of its destinations are done with."""
    key = keys.notice(ident)
    return Move({key: seen}, puts={key: notice.encode()})


def over(keys: Keys, ident: str, seen: int, alert: Alert | None, alert_seen: int) -> Move:
    """Nothing is left to send. `alert`: with what became of it, put over the one seen at `alert_seen` (0: the database
    has it already); None: it went to nobody."""
    key, there = keys.notice(ident), keys.alert(ident)
    if alert is None:
        return Move({key: seen}, deletes=(key,))
    return Move({key: seen, there: alert_seen}, puts={there: alert.encode()}, deletes=(key,))


def too_many_failed(keys: Keys, alert: Alert, rule: str, job: str, seen: int, to: list[str]) -> Move:
    """A rule tells of a failure rate, to its own destinations; once, also when leaders change. `seen`: of the note when
    it told last."""
    key = keys.rated(rule, job)
    return Move({key: seen, keys.alert(alert.id): 0}, puts={key: repr(alert.at).encode(), **put(keys, alert, to)})
