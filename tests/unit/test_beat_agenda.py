"""The agenda: what a hint spares, what it must not, and what lies far away."""

from __future__ import annotations

import time
from typing import Any

import pytest

from crony.beat.agenda import FAR, Agenda
from crony.beat.book import Book
from crony.beat.entries import JobEntry
from crony.beat.packing import pack, unpack
from crony.domain import afterend, ids
from crony.domain.livejob import LiveJob
from crony.domain.run import Done
from crony.domain.signing import Sealer, Verifier, new_key
from crony.etcd.keys import Keys

KEYS, NOW = Keys("x"), 1_800_000_000
PRIVATE, PUBLIC = new_key()
SEALER = Sealer(PRIVATE)
DAILY = {"name": "x", "schedule": {"cron": "0 3 * * *"}, "action": {"kind": "shell", "command": ["true"]}}


class Watching:
    """A book and its agenda under a clock of their own."""

    def __init__(self) -> None:
        self.now, self.book = float(NOW), Book(KEYS)
        self.agenda = Agenda(self.book, Verifier([PUBLIC]), lambda: self.now, time.monotonic)
        self.revision = 1

    def publish(self, document: dict[str, Any], *, hint: bool = True, job: str = "") -> LiveJob:
        """As the web does: both keys in one transaction; an edit leaves the cursor alone."""
        live = LiveJob.created(job or ids.job_id(), document, now=self.now)
        self.revision += 1
        self.book.put(KEYS.job(live.id), SEALER.seal(live.payload()), self.revision)
        if not job:
            done = Done(int(self.now))
            self.cursor(live, afterend.begun(live, done) if hint else done, self.revision)
        return live

    def cursor(self, live: LiveJob, done: Done, revision: int = 0) -> None:
        """The cursor says this since `revision`; 0: a later one."""
        self.revision = revision or self.revision + 1
        self.book.put(KEYS.done(live.id), done.encode(), self.revision)

    def due(self, live: LiveJob) -> int | None:
        """When it is due as planned."""
        while self.agenda.learn():
            pass
        return self.book.jobs[live.id].due


@pytest.fixture
def watching() -> Watching:
    return Watching()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Jobs whose documents were opened."""
    found: list[str] = []
    real = JobEntry.document

    def document(self: JobEntry, verifier: Verifier) -> LiveJob:
        found.append(self.id)
        return real(self, verifier)

    monkeypatch.setattr(JobEntry, "document", document)
    return found


def test_a_job_is_not_read_before_it_comes_near(watching: Watching, opened: list[str]) -> None:
    live = watching.publish(DAILY)
    due = watching.due(live)
    assert due == live.next_due(NOW) and opened == [] and not watching.agenda.unnoted
    assert watching.agenda.next() is None, "it lies far away"
    watching.now = due - FAR / 2 if due else 0.0
    assert watching.agenda.next() == (due, live.id) and opened == []
    watching.now = due - 10.0 if due else 0.0
    assert not watching.agenda.make_ready() and opened == [live.id]
    assert watching.agenda.take() == (due, live.id) and watching.agenda.next() is None


def test_one_without_a_hint_or_with_an_outdated_one_is_read_at_once(watching: Watching, opened: list[str]) -> None:
    bare = watching.publish(DAILY, hint=False)
    assert watching.due(bare) == bare.next_due(NOW) and opened == [bare.id]
    assert watching.agenda.unnoted == {bare.id: bare.next_due(NOW)}, "a favour for the next leader"
    edited = watching.publish(DAILY)
    assert watching.due(edited) is not None
    later = watching.publish({**DAILY, "schedule": {"every": "1h"}}, job=edited.id)
    assert watching.due(edited) == later.next_due(NOW) and opened == [bare.id, edited.id]
    moved = watching.publish(DAILY)
    kept = watching.book.jobs[moved.id].done
    assert kept is not None
    watching.cursor(moved, kept.but(upto_at=NOW + 86400))  # put alone: the hint was of another revision
    assert watching.due(moved) == moved.next_due(NOW + 86400)


@pytest.mark.parametrize("lie", [NOW + 90 * 86400, None, NOW + 60])
def test_a_lie_is_found_out(
    watching: Watching, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lie: int | None
) -> None:
    monkeypatch.setattr("crony.beat.agenda.EXAMINING", 1e9)
    honest, live = watching.publish(DAILY), watching.publish(DAILY)
    watching.cursor(live, Done(NOW, due_at=lie, due_seen=watching.book.jobs[live.id].seen, due_tz="-"))
    assert watching.due(live) == lie
    began = time.monotonic()
    while watching.agenda.lies == 0 and time.monotonic() < began + 5:
        watching.agenda.examine()
    assert watching.due(live) == live.next_due(NOW) and watching.due(honest) == honest.next_due(NOW)
    assert watching.agenda.lies == 1 and live.id in caplog.text and honest.id not in caplog.text


def test_a_job_that_was_held_and_edited_since_is_no_lie(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crony.beat.agenda.EXAMINING", 1e9)
    live = watching.publish(DAILY)
    watching.cursor(live, Done(NOW, held="odd", held_revision=live.revision - 1))
    due = watching.due(live)
    assert due == live.next_due(NOW)
    watching.agenda._prove(watching.book.jobs[live.id], watching.book.jobs[live.id].done or Done(0))
    assert watching.due(live) == due and watching.agenda.lies == 0


def test_a_deleted_job_has_no_hint_and_is_read(watching: Watching) -> None:
    live = watching.publish(DAILY)
    gone = live.tombstone(revision=2, now=NOW)
    assert afterend.begun(gone, Done(NOW, due_seen=-1, due_at=5)) == Done(NOW)
    watching.book.put(KEYS.job(live.id), SEALER.seal(gone.payload()), 50)
    assert watching.due(live) is None
    known = watching.book.jobs[live.id].known
    assert known is not None and known.deleted, "pruning asks for it"


def test_what_is_packed_comes_out_again_and_is_small() -> None:
    sealed = SEALER.seal(LiveJob.created(ids.job_id(), DAILY, now=NOW).payload())
    assert unpack(pack(sealed)) == sealed and len(pack(sealed)) < len(sealed) / 3
    for odd in (b"x", b"\x00\xff" * 3000, sealed * 3):
        assert unpack(pack(odd)) == odd
