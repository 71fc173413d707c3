"""The archive: complete, first outcome wins, nothing goes backwards, and one bad row stops nobody."""

from __future__ import annotations

import dataclasses
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from crony.domain.node import NodeFacts
from crony.domain.outcome import Outcome
from crony.errors import Unavailable, Unknown
from crony.store import archive, runs, skips
from crony.store.db import Database
from tests.helpers.databases import JOB, outcome
from tests.helpers.mariadb import MariaServer
from tests.helpers.wait import until

pytest_plugins = ["tests.helpers.database_fixtures"]


def _all(db: Database) -> dict[str, runs.RunView]:
    found: dict[str, runs.RunView] = {}
    cursor = None
    while True:
        page = runs.list_runs(db, limit=200, cursor=cursor)
        found |= {run.id: run for run in page.items}
        cursor = page.next_cursor
        if cursor is None:
            return found


def test_a_run_with_a_retry(db: Database) -> None:
    first = outcome(1, 1, "failed", False, reason="exit code 3", code=3, started_at=1.0, ended_at=2.0)
    last = outcome(1, 2, "succeeded", started_at=10.0, ended_at=11.5, result={"rows": 7}, params={"a": "é✓"})
    archive.write(db, [first])
    waiting = runs.get(db, first.run)
    assert (waiting.state, waiting.outcome, waiting.ended_at, waiting.attempt) == ("waiting", "failed", None, 1)
    archive.write(db, [last])
    run = runs.get(db, first.run)
    assert (run.state, run.outcome, run.attempt, run.result, run.params) == (
        "ended",
        "succeeded",
        2,
        {"rows": 7},
        {"a": "é✓"},
    )
    assert (run.started_at, run.ended_at, run.duration) == (1.0, 11.5, 10.5)
    assert [(a.n, a.outcome, a.code, a.final) for a in run.attempts] == [
        (1, "failed", 3, False),
        (2, "succeeded", None, True),
    ]


def test_writing_again_changes_nothing(db: Database) -> None:
    batch = [outcome(n, kind=kind) for n, kind in enumerate(["succeeded", "failed", "timed_out", "lost"] * 60)]
    archive.write(db, batch)
    before = _all(db)
    archive.write(db, [dataclasses.replace(item, kind="cancelled", ended_at=9e6, node="other") for item in batch])
    archive.write(db, [dataclasses.replace(item, final=False) for item in batch])
    assert _all(db) == before
    assert len(before) == 240


def test_any_order_ends_the_same(db: Database) -> None:
    """Batches of two archivers may overlap and interleave: the end of a run is its final outcome."""
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    story: list[Outcome] = []
    for second in range(30):
        tries = dice.randint(1, 4)
        story += [outcome(second, n, "failed", False, ended_at=second + n) for n in range(1, tries)]
        story.append(outcome(second, tries, "succeeded", True, ended_at=second + tries))
    pieces = [dice.sample(story, len(story)) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda piece: [archive.write(db, piece[i : i + 17]) for i in range(0, len(piece), 17)], pieces))
    for run in _all(db).values():
        assert (run.state, run.outcome) == ("ended", "succeeded")
        tries = runs.attempts(db, run.id)
        assert [a.n for a in tries] == list(range(1, run.attempt + 1))
        assert [a.outcome for a in tries] == ["failed"] * (run.attempt - 1) + ["succeeded"]


def test_an_end_without_an_attempt(db: Database) -> None:
    """A run that was refused before its first attempt, and one whose end was decided after its attempt."""
    archive.write(db, [outcome(1, 0, "refused", started_at=None, reason="the job was deleted")])
    archive.write(db, [outcome(2, 1, "failed", False, code=1)])
    archive.write(db, [outcome(2, 1, "failed", True, reason="no further attempt")])
    assert [a.n for a in runs.get(db, outcome(1).run).attempts] == []
    ended = runs.get(db, outcome(2).run)
    assert (ended.state, ended.reason, len(ended.attempts)) == ("ended", "no further attempt", 1)


def test_skips_are_kept_apart(db: Database) -> None:
    skip = outcome(60, 0, "skipped", reason="misfire", detail="decided 2 h late", to_at=6000, count=100)
    archive.write(db, [skip, skip, outcome(61)])
    assert [run.id for run in runs.list_runs(db).items] == [outcome(61).run]
    (found,) = skips.list_skips(db, job=JOB).items
    assert (found.reason, found.fire_at, found.to_at, found.count) == ("misfire", 60.0, 6000.0, 100)
    assert runs.get(db, skip.run).outcome == "skipped"


BAD = {
    "code beyond 64 bits": {"code": 2**70},
    "an instant that is none": {"ended_at": float("nan")},
    "an instant without end": {"started_at": float("inf")},
    "a run id too long": {"run": f"{JOB}.1.{'9' * 200}"},
    "an empty run id": {"run": ""},
    "a run id with a NUL": {"run": f"{JOB}.1.\0"},
    "attempt not a number": {"attempt": "two"},
    "a result that is no data": {"result": {1, 2}},
    "a kind that is a list": {"kind": ["succeeded"]},
    "an instant that is text": {"ended_at": "soon"},
    "a revision that is missing": {"revision": None},
    "fence beyond 64 bits": {"fence": -(2**80)},
}


@pytest.mark.parametrize("facts", BAD.values(), ids=BAD)
def test_a_bad_row_is_set_aside_and_the_others_stored(db: Database, facts: dict[str, object]) -> None:
    batch = [outcome(n) for n in range(20)]
    batch[13] = dataclasses.replace(batch[13], **facts)  # type: ignore[arg-type]
    assert archive.write(db, batch) == archive.Written(archived=19, rejected=1)
    assert archive.write(db, batch).rejected == 1
    assert len(_all(db)) == 19
    (reject,) = archive.rejects(db)
    assert reject.error and "job" in reject.record


STRANGE = "NUL \0 half \ud800 pile \U0001f4a9 arabic \u0627 rtl \u202e end"


def test_strange_text_is_kept_as_far_as_a_database_can(db: Database) -> None:
    odd = outcome(
        1, reason=STRANGE, detail=STRANGE, why="x" * 5000, node="n" * 400, name="ñ" * 300, result={STRANGE: STRANGE}
    )
    nan = outcome(2, result=[float("nan"), {"a": float("-inf")}], idem="k" * 512, reason="\U0001f600" * 2000)
    assert archive.write(db, [odd, nan]).rejected == 0
    run = runs.get(db, odd.run)
    assert run.reason == STRANGE.replace("\0", "\ufffd").replace("\ud800", "\ufffd")
    assert (len(run.why), run.why[-1], len(run.node), len(run.job_name)) == (1000, "…", 255, 255)
    assert list(run.result.values()) == [STRANGE.replace("\ud800", "\ufffd")]  # JSON escapes a NUL
    assert runs.get(db, nan.run).result == ["nan", {"a": "-inf"}]


def test_nodes_are_updated(db: Database) -> None:
    facts = NodeFacts(
        "n1", "i1", "run.n1", "host", 1, "boot", "1.0", 4, labels={"zone": "a"}, kinds=["http"], seen_at=5.0
    )
    archive.write(db, [], [facts])
    archive.write(db, [], [dataclasses.replace(facts, incarnation="i2", seen_at=9.5)])
    (node,) = runs.nodes(db)
    assert (node.incarnation, node.seen_at, node.labels, node.kinds) == ("i2", 9.5, {"zone": "a"}, ["http"])


def test_a_missing_table_is_not_a_bad_row(own_db: Database) -> None:
    db = own_db
    db.transaction(lambda session: session.execute(text("DROP TABLE attempts")))
    with pytest.raises(Unavailable):
        archive.write(db, [outcome(1)])
    assert archive.rejects(db) == []


def test_the_server_dies_and_comes_back_while_writing() -> None:
    """SIGKILL in the middle of writes, twice, connections killed all along: everything is there once."""
    with MariaServer() as server:
        db = Database(server.fresh(), timeout=2)
        db.upgrade()
        written: set[str] = set()
        stop = threading.Event()

        def write() -> None:
            second = 0
            while not stop.is_set():
                batch = [outcome(second + i) for i in range(50)] + [
                    outcome(second + 50, 0, "skipped", reason="misfire")
                ]
                while True:
                    try:
                        archive.write(db, batch)
                        break
                    except (Unavailable, Unknown):
                        continue
                written.update(item.run for item in batch[:50])
                second += 51

        with ThreadPoolExecutor(1) as pool:
            writer = pool.submit(write)
            for _ in range(2):
                goal = len(written) + 100
                until(lambda goal=goal: len(written) >= goal, 20, "writing goes on")
                server.kill_connections()
                goal = len(written) + 100
                until(lambda goal=goal: len(written) >= goal, 20, "writing goes on after KILL")
                server.kill()
                server.start()
            goal = len(written) + 100
            until(lambda: len(written) >= goal, 20, "writing goes on after the restart")
            stop.set()
            writer.result(20)
        found = _all(db)
        assert written == set(found)
        assert archive.rejects(db) == []
        assert db.read(lambda session: session.scalar(text("SELECT COUNT(*) FROM attempts"))) == len(written)
