"""Output: whatever order, repetition and number of senders, what is read is what was printed, without gaps."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from crony.errors import Invalid
from crony.store import output
from crony.store.db import Database

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
