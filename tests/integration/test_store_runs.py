"""Reading the archive: filters, cursors, last runs, counts; and pruning."""

from __future__ import annotations

import base64
import json
import random

import pytest

from crony.errors import Invalid, NotFound
from crony.store import archive, output, runs
from crony.store.db import Database
from crony.store.runs import Filter
from tests.helpers.databases import JOB, outcome

pytest_plugins = ["tests.helpers.database_fixtures"]

OTHER = "j1m81s8xkj3qm4nka4922"


def _walk(db: Database, wanted: Filter, limit: int) -> list[str]:
    found: list[str] = []
    cursor = None
    while True:
        page = runs.list_runs(db, wanted, limit=limit, cursor=cursor)
        assert len(page.items) <= limit
        found += [run.id for run in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return found


def test_pages_show_each_run_once_newest_first(db: Database) -> None:
    """Several runs share one instant, and a cursor falls between them."""
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    batch = [outcome(f"{JOB}.1.m{n:03}", requested_at=float(dice.randint(1, 8)) + 0.125) for n in range(60)]
    archive.write(db, batch)
    expected = [item.run for item in sorted(batch, key=lambda item: (item.requested_at, item.run), reverse=True)]
    for limit in (1, 7, 60, 200):
        assert _walk(db, Filter(), limit) == expected


def test_filters(db: Database) -> None:
    archive.write(
        db,
        [
            outcome(1, node="a"),
            outcome(2, kind="failed", node="b"),
            outcome(3, 1, "failed", False, node="a"),
            outcome(f"{OTHER}.1.m1", job=OTHER, trigger="api", requested_at=4.0, node="b"),
        ],
    )

    def ids(**wanted: object) -> list[str]:
        return [run.id.rsplit(".", 1)[1] for run in runs.list_runs(db, Filter(**wanted)).items]  # type: ignore[arg-type]

    assert ids() == ["m1", "3", "2", "1"]
    assert ids(job=JOB) == ["3", "2", "1"]
    assert ids(outcome="failed") == ["2"]  # a run that may still succeed has not failed
    assert ids(outcome=["failed", "succeeded"]) == ["m1", "2", "1"]
    assert ids(state="waiting") == ["3"]
    assert ids(node="a") == ["3", "1"]
    assert ids(trigger="api") == ["m1"]
    assert ids(since=2.0, until=4.0) == ["3", "2"]
    assert ids(job="nobody") == []


def _forged(*parts: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(list(parts), separators=(",", ":")).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "%00",
        "é",
        "A" * 5000,
        _forged("runs"),
        _forged("skips", 1, "a"),
        _forged("runs", "1", "a"),
        _forged("runs", 1, "a", "b"),
        _forged("runs", 1.5, "a"),
        _forged("runs", True, "a"),
        _forged("runs", 2**80, "a"),
        _forged("runs", 1, None),
        _forged("runs", 1, "a") + "=",
        base64.urlsafe_b64encode(b'["runs", 1, "a"]').decode().rstrip("="),
        base64.urlsafe_b64encode(b"[" * 900).decode().rstrip("="),
        base64.urlsafe_b64encode(b"\xff\xfe").decode().rstrip("="),
    ],
)
def test_cursors_not_ours_are_refused(tmp_path_factory: pytest.TempPathFactory, cursor: str) -> None:
    db = Database(f"sqlite:///{tmp_path_factory.mktemp('c') / 'crony.db'}")
    with pytest.raises(Invalid) as refused:
        runs.list_runs(db, cursor=cursor)
    assert refused.value.field == "cursor"


@pytest.mark.parametrize("limit", [0, -1, 201, 10**9, True])
def test_page_sizes_are_bounded(tmp_path_factory: pytest.TempPathFactory, limit: int) -> None:
    with pytest.raises(Invalid):
        runs.list_runs(Database(f"sqlite:///{tmp_path_factory.mktemp('l') / 'crony.db'}"), limit=limit)


def test_last_runs_of_many_jobs(db: Database) -> None:
    jobs = [f"j{n:020}" for n in range(130)]
    archive.write(
        db, [outcome(f"{job}.1.{n}", job=job, requested_at=float(n)) for job in jobs[:120] for n in (1, 2, 3)]
    )
    last = runs.last_runs(db, jobs)
    assert set(last) == set(jobs[:120])
    assert all([run.requested_at for run in found] == [3.0] for found in last.values())
    two = runs.last_runs(db, jobs[:3], n=2)
    assert [[run.requested_at for run in found] for found in two.values()] == [[3.0, 2.0]] * 3
    assert runs.last_runs(db, []) == {}


def test_counts_and_series(db: Database) -> None:
    archive.write(db, [outcome(n, kind="failed" if n % 5 == 0 else "succeeded") for n in range(100, 200)])
    archive.write(
        db, [outcome(250, 1, "failed", False), outcome(260, 0, "skipped", reason="misfire", count=7, ended_at=150.0)]
    )
    assert runs.counts(db, since=100) == {"failed": 20, "succeeded": 80, "skipped": 7}
    assert runs.counts(db, since=100, until=110, job=JOB) == {"failed": 2, "succeeded": 8}
    steps = runs.series(db, since=100, until=210, step=50)
    assert steps == [(100, {"failed": 10, "succeeded": 40}), (150, {"failed": 10, "succeeded": 40}), (200, {})]


def test_prune_takes_what_is_old_and_ended(db: Database) -> None:
    archive.write(db, [outcome(n) for n in range(20)] + [outcome(5000)])
    archive.write(db, [outcome(30, 0, "skipped", reason="misfire"), outcome(6000, 0, "skipped", reason="misfire")])
    output.append(db, outcome(3).run, 1, 0, b"old", final=True)
    output.append(db, outcome(5000).run, 1, 0, b"new")
    gone = runs.prune(db, 1000, batch=7)
    assert (gone["runs"], gone["skips"]) == (20, 1)
    assert [run.id for run in runs.list_runs(db).items] == [outcome(5000).run]
    assert output.read(db, outcome(3).run, 1).data == b""
    assert output.read(db, outcome(5000).run, 1).data == b"new"
    with pytest.raises(NotFound):
        runs.get(db, outcome(3).run)
