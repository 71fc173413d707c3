"""Alerts in the database: delivered often, there once; read in pages with filters; pruned."""

from __future__ import annotations

import random

import pytest

from crony.domain.alert import Alert, node_lost, not_kept
from crony.errors import Invalid
from crony.store import alerts
from crony.store.alerts import Wanted
from crony.store.db import Database
from crony.store.models import RejectRow

pytest_plugins = ["tests.helpers.database_fixtures"]


def failed(run: str, at: float, job: str = "j1", node: str = "n1") -> Alert:
    return Alert(f"run_failed.{run}", "run_failed", at, job, f"name of {job}", run, 1, "failed", node, "because")


def test_delivered_twice_is_one_row_and_only_a_count_rises(db: Database) -> None:
    first, lost = failed("r1", 5.0), node_lost("i1", "n1", 6.0)
    alerts.write(db, [first, lost, not_kept(9, 3, 7.0)])
    alerts.write(db, [failed("r1", 99.0, job="other"), not_kept(9, 12, 8.0), not_kept(9, 5, 8.0)][:2])
    alerts.write(db, [not_kept(9, 5, 8.0)])
    found = {alert.id: alert for alert in alerts.list_alerts(db).items}
    assert len(found) == 3 and found[first.id] == first and found[lost.id] == lost
    assert (found["not_kept.9"].times, found["not_kept.9"].at) == (12, 7.0)


def test_pages_show_each_alert_once_newest_first(db: Database) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    batch = [failed(f"m{n:03}", dice.randint(1, 8) + 0.125) for n in range(60)]
    alerts.write(db, batch)
    expected = [alert.id for alert in sorted(batch, key=lambda alert: (alert.at, alert.id), reverse=True)]
    for limit in (1, 7, 60, 200):
        found: list[str] = []
        cursor: str | None = None
        while True:
            page = alerts.list_alerts(db, limit=limit, cursor=cursor)
            assert len(page.items) <= limit
            found += [alert.id for alert in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert found == expected


def test_filters_and_pruning(db: Database) -> None:
    alerts.write(db, [failed("r1", 1.0), failed("r2", 2.0, job="j2", node="n2"), node_lost("i1", "n2", 3.0)])

    def ids(**wanted: object) -> list[str]:
        return [alert.id.split(".")[1] for alert in alerts.list_alerts(db, Wanted(**wanted)).items]  # type: ignore[arg-type]

    assert ids() == ["i1", "r2", "r1"]
    assert ids(kind="run_failed") == ["r2", "r1"]
    assert ids(job="j1") == ["r1"]
    assert ids(node="n2") == ["i1", "r2"]
    assert ids(node="n2", kind="run_failed") == ["r2"]
    assert ids(since=2.0, until=3.0) == ["r2"]
    assert ids(job="nobody") == []
    assert alerts.prune(db, 3.0, batch=1) == 2
    assert ids() == ["i1"]


def test_any_text_is_kept(db: Database) -> None:
    odd = Alert("x\u2603" * 50, "a" * 20, 1e11, "j" * 300, "\u8b66\u544a" * 300, "r" * 300, 2**31 - 1, "o" * 40,
                "n\x00\ud800", "\U0001f525" * 600, 2**31 - 1)  # fmt: skip
    alerts.write(db, [odd, failed("r1", 1.0)])
    assert [alert.id for alert in alerts.list_alerts(db).items] == [odd.id, "run_failed.r1"]


def test_one_that_the_database_refuses_stops_no_other(db: Database) -> None:
    worse = Alert("x" * 500, "run_failed", float("nan"), run="bad")
    alerts.write(db, [failed(f"r{n}", 1.0) for n in range(5)] + [worse])
    assert len(alerts.list_alerts(db).items) == 5
    assert db.read(lambda session: session.query(RejectRow.run_id).all()) == [("bad",)]


def test_cursors_of_another_list_are_refused(lite: Database) -> None:
    from crony.store.cursor import make

    for cursor in ("", "x", make("runs", 1, "a"), make("alerts", 1)):
        with pytest.raises(Invalid):
            alerts.list_alerts(lite, cursor=cursor)
