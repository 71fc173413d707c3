"""What is remembered of attempts that Celery lets go of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from crony.domain.outcome import Kind
from crony.workers import letting_go
from crony.workers.attempt import Held
from crony.workers.letting_go import Note
from tests.helpers.wait import until

WHY = Note(Kind.TIMED_OUT, "too slow")


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    letting_go._notes.clear()
    yield
    letting_go._notes.clear()


def held(number: int) -> Held:
    return Held("run.n1", f"p{number}", number, "i1")


def test_a_note_is_found_however_many_nobody_asked_for() -> None:
    for number in range(20_000):
        letting_go.note(held(number), WHY)
    assert letting_go._noted(held(19_999)) == letting_go._noted(held(0)) == WHY
    assert letting_go._noted(held(0)).kind is Kind.LOST, "asked for once"


def test_the_first_note_stands() -> None:
    letting_go.note(held(1), WHY)
    letting_go.note(held(1), Note(Kind.LOST, "its process died"))
    assert letting_go._noted(held(1)) == WHY


def test_old_notes_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letting_go, "_KEPT", 0.01)
    letting_go.note(held(1), WHY)
    until(lambda: letting_go.note(held(2), WHY) or held(1) not in letting_go._notes, what="the old one goes")
