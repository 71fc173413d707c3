"""Output: whatever order, repetition and number of senders, what is read is what was printed, without gaps."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from crony.beat.duties.retention import retention
from crony.domain.job import parse
from crony.domain.outcome import Outcome
from crony.domain.stamps import Source, Stamp, cut, pieces
from crony.errors import Invalid
from crony.store import archive, output, runs
from crony.store.db import Database
from crony.store.models import JobRow

SHELL = {"kind": "shell", "command": ["true"]}
pytest_plugins = ["tests.helpers.database_fixtures"]


def _everything(db: Database, run: str, attempt: int = 1, limit: int = 1024 * 1024) -> bytes:
    parts, place = [], 0
    while piece := output.read(db, run, attempt, place, limit=limit):
        parts.append(piece.data)
        if not piece.data:
            break
        place = piece.next
    return b"".join(parts)


def test_a_simple_story(db: Database) -> None:
    assert output.append(db, "r", 1, 0, b"hello ") == 6
    assert output.read(db, "r", 1) == output.Piece(b"hello ", 6, False, False)
    assert output.append(db, "r", 1, 6, b"world", final=True) == 11
    assert output.read(db, "r", 1, 6) == output.Piece(b"world", 11, True, False)
    assert output.read(db, "r", 1, 8) == output.Piece(b"rld", 11, True, False)
    assert output.read(db, "r", 1, 11) == output.Piece(b"", 11, True, False)
    assert output.read(db, "r", 2) == output.Piece(b"", 0, False, False)
    assert output.states(db, "r") == [output.OutputState(1, 11, True, False)]


def test_repeats_overlaps_and_gaps(db: Database) -> None:
    assert output.append(db, "r", 1, 0, b"abcdef") == 6
    assert output.append(db, "r", 1, 0, b"abcdef") == 6
    assert output.append(db, "r", 1, 3, b"def") == 6
    assert output.append(db, "r", 1, 4, b"efgh") == 8
    assert output.append(db, "r", 1, 9, b"beyond a gap", final=True) == 8
    assert not output.read(db, "r", 1).eof
    assert output.append(db, "r", 1, 8, b"", final=True, truncated=True) == 8
    assert output.append(db, "r", 1, 8, b"after the end") >= 8
    assert output.read(db, "r", 1) == output.Piece(b"abcdefgh", 8, True, True)


def test_empty_output_ends_too(db: Database) -> None:
    assert output.append(db, "r", 1, 0, b"", final=True) == 0
    assert output.read(db, "r", 1) == output.Piece(b"", 0, True, False)


def test_large_binary_output_in_small_reads(db: Database) -> None:
    data = random.Random(1).randbytes(700_001)
    assert output.append(db, "r", 1, 0, data[:300_000]) == 300_000
    assert output.append(db, "r", 1, 300_000, data[300_000:], final=True) == 700_001
    assert _everything(db, "r", limit=99_999) == data
    piece = output.read(db, "r", 1, 262_143, limit=2)
    assert data[262_143:].startswith(piece.data) and piece.data


def test_senders_that_overlap(db: Database) -> None:
    """Two uploaders of one spool (a restarted node), each in its own chunks, some sent twice."""
    seed = random.randrange(2**32)
    print("seed", seed)
    data = random.Random(seed).randbytes(60_000)
    begin = threading.Barrier(3)

    def send(number: int) -> None:
        dice, place = random.Random(seed + number), 0
        begin.wait(60)
        while place < len(data):
            end = min(len(data), place + dice.randint(1, 5000))
            place = output.append(db, "r", 1, place, data[place:end], final=end == len(data))
            if dice.random() < 0.2:
                place = max(0, place - dice.randint(0, 4000))

    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(send, number) for number in range(3)]:
            future.result(60)
    assert _everything(db, "r") == data
    assert output.read(db, "r", 1, len(data)).eof


def test_stamps_stay_with_their_bytes_however_these_come_and_are_read(db: Database) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    data = dice.randbytes(3000)
    places = sorted({0, *(dice.randrange(len(data)) for _ in range(60))})
    stamps = [Stamp(at, dice.randint(1, 4), 1_700_000_000_000 + at) for at in places]
    place = 0
    while place < len(data):
        start, end = max(0, place - dice.randint(0, 200)), min(len(data), place + dice.randint(1, 500))
        place = output.append(db, "r", 1, start, data[start:end], stamps=cut(stamps, start, end))
    of_each = [piece[:2] for piece in pieces(data, stamps) for _ in piece.data]
    for _ in range(20):
        start = dice.randrange(len(data))
        found = output.read(db, "r", 1, start, limit=dice.randint(1, 900))
        assert data[start:].startswith(found.data)
        told = [piece[:2] for piece in pieces(found.data, found.stamps) for _ in piece.data]
        assert told == of_each[start : start + len(found.data)]


def test_what_a_node_of_a_version_before_brings_is_nobodys(db: Database) -> None:
    output.append(db, "r", 1, 0, b"old", stamps=[])
    output.append(db, "r", 1, 3, b"new", stamps=[Stamp(0, Source.STDERR, 7)])
    output.append(db, "r", 1, 6, b"old again")
    output.add(db, "r", 1, b"callee")
    found = output.read(db, "r", 1)
    assert [(source, data) for source, _, data in pieces(found.data, found.stamps)] == [
        (Source.ANY, b"old"), (Source.STDERR, b"new"), (Source.ANY, b"old again"), (Source.LOG, b"callee"),
    ]  # fmt: skip


def test_output_of_jobs_that_want_it_no_longer_goes_and_their_runs_stay(db: Database) -> None:
    now = 1_700_000_000.0
    with_keep = parse({"name": "a", "action": SHELL, "output": {"keep": 2}}).document()
    named_so = parse({"name": "b", "action": SHELL, "params": {"output": {"keep": 2}}}).document()

    def job(ident: str, document: dict[str, Any]) -> JobRow:
        return JobRow(
            id=ident, name=ident, live_name=ident, generation=1, revision=1, enabled=True, document=document,
            search=None, created_at=now, updated_at=now, updated_by="t", deleted_at=None,
        )  # fmt: skip

    db.transaction(lambda session: session.add_all([job("j1", with_keep), job("j2", named_so)]))
    assert output.wishes(db) == [("j1", 2)]
    for ident, run, days in (("j1", "old", 3), ("j1", "new", 1), ("j2", "other", 3)):
        at = now - days * 86400
        ended = Outcome(run, ident, ident, 1, 1, 1, "succeeded", True, "manual", at + 1, requested_at=at)
        archive.write(db, [ended])
        output.append(db, run, 1, 0, b"printed", final=run != "old")
    clock = SimpleNamespace(wall=lambda: now)
    clear_up = retention(db, clock, 30)._task  # type: ignore[arg-type]
    clear_up()
    assert {run: output.read(db, run, 1).data for run in ("old", "new", "other")} == {
        "old": b"", "new": b"printed", "other": b"printed",
    }  # fmt: skip
    gone = output.read(db, "old", 1)
    assert (gone.removed, gone.eof, output.states(db, "old")[0].size) == (True, True, 7)
    assert runs.get(db, "old").outcome == "succeeded"
    clear_up()
    assert output.append(db, "old", 1, 7, b"late") >= 7 and output.read(db, "old", 1).data == b""


def test_attempts_are_apart_and_a_cap_holds(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "MOST", 1000)
    assert output.append(db, "r", 1, 0, b"x" * 600) == 600
    assert output.append(db, "r", 1, 600, b"y" * 600) == 1200  # the sender may forget what lies beyond the cap
    assert output.append(db, "r", 2, 0, b"second") == 6
    piece = output.read(db, "r", 1)
    assert (len(piece.data), piece.eof, piece.truncated) == (1000, True, True)
    assert output.read(db, "r", 2).data == b"second"


@pytest.mark.parametrize(
    ("run", "attempt", "offset"),
    [("", 1, 0), ("r" * 129, 1, 0), ("r\0", 1, 0), ("r", 0, 0), ("r", 2**31, 0), ("r", 1, -1)],
)
def test_impossible_places_are_refused(
    tmp_path_factory: pytest.TempPathFactory, run: str, attempt: int, offset: int
) -> None:
    with pytest.raises(Invalid):
        output.append(Database(f"sqlite:///{tmp_path_factory.mktemp('o') / 'crony.db'}"), run, attempt, offset, b"x")
