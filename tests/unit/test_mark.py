"""An etcd that went back in time is told from one that went on, whatever was done to its revision."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crony.domain.mark import Mark, Seen, past
from crony.domain.record import UnknownRecord
from crony.etcd.client import KV
from crony.etcd.keys import Keys
from crony.lifecycle.mark import put, seen
from crony.lifecycle.watermark import Watermark

KEYS = Keys("x/y")
KEPT = Seen(1, "abc", 100, 1e9, 120, "c1")


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (Seen(1, "abc", 100, 1e9, 120, "c1"), ""),
        (Seen(1, "def", 130, 1e9, 140, "c1"), ""),
        (Seen(2, "xyz", 5, 1e9, 6, "c9"), ""),  # recovered
        (Seen(1, "old", 60, 9e8, 80, "c1"), "its revision is 80, 120 was seen before"),
        (Seen(1, "old", 60, 9e8, 500, "c1"), "its last mark is of 1998"),  # went on since, or was raised on purpose
        (Seen(1, "", 0, 0.0, 500, "c1"), "its last mark is of never"),
        (Seen(1, "other", 100, 1e9, 130, "c1"), "other data"),
        (Seen(0, "old", 200, 1e9, 300, "c1"), "recovery 1 is missing"),
        (Seen(1, "def", 130, 1e9, 140, "c2"), "cluster c2"),
    ],
)
def test_what_is_past(found: Seen, why: str) -> None:
    assert why in past(KEPT, found) and bool(past(KEPT, found)) == bool(why)


def test_nothing_was_seen_before() -> None:
    assert past(Seen(), Seen(0, "", 0, 0.0, 1, "c")) == "" == past(Seen(), Seen(3, "a", 7, 1.0, 9, "c"))
    assert "999" in past(Seen(revision=999), Seen(revision=5))


def test_a_mark_is_new_each_time_and_keeps_the_epoch() -> None:
    moves = [put(KEYS, KEPT, at=5.0) for _ in range(2)]
    assert all(move.seen == {KEYS.mark: 100} for move, _ in moves)
    assert moves[0][1].nonce != moves[1][1].nonce and moves[0][1].epoch == 1
    assert put(KEYS, KEPT, at=5.0, epoch=2)[1].epoch == 2
    for value in (b"x", b'{"epoch": "1"}', b'{"v": 9}', b'{"at": null}'):
        with pytest.raises(UnknownRecord):
            seen(KV(KEYS.mark, value, 1, 1, 1, 0), 5, "c")
    assert seen(KV(KEYS.mark, Mark(4, "n", 2.0).encode(), 1, 3, 1, 0), 5, "c") == Seen(4, "n", 3, 2.0, 5, "c")


def test_what_was_seen_outlives_the_process(tmp_path: Path) -> None:
    kept = Watermark(str(tmp_path / "state"), KEYS)
    assert kept.kept == Seen()
    kept.keep(KEPT)
    kept.keep(Seen(1, "older", 90, 1e9, 119, "c1"))
    file = tmp_path / "state" / "revision-x%2Fy.json"
    assert Watermark(str(tmp_path / "state"), KEYS).kept == KEPT
    kept.keep(Seen(2, "n", 3, 1e9, 4, "c1"))
    assert Watermark(str(tmp_path / "state"), KEYS).kept.epoch == 2
    file.write_text(json.dumps({"revision": 77}))  # of a version before the marks
    assert Watermark(str(tmp_path / "state"), KEYS).kept == Seen(revision=77)
    for text in ("", "nonsense", "[]", '{"revision": "x"}', '{"at": null}'):
        file.write_text(text)
        assert Watermark(str(tmp_path / "state"), KEYS).kept == Seen()
    Watermark("", KEYS).keep(KEPT)
    Watermark("/proc/nowhere", KEYS).keep(KEPT)
