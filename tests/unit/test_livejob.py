"""The live job: edits, pauses and deletions next to a fire lose and double nothing (PROTOCOL S3)."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crony.domain.job import parse
from crony.domain.livejob import LONGEST_CHAIN, LiveJob
from crony.domain.record import RECORD_VERSION, UnknownRecord
from crony.errors import Conflict, Invalid

SCHEDULES: list[Any] = [
    None,
    {"every": "60s"},
    {"every": "7s"},
    {"every": "90s", "anchor": "1970-01-01T00:00:10Z"},
    {"cron": "*/2 * * * *"},
    [{"every": "50s"}, {"cron": "* * * * *"}],
    {"at": "1970-01-01T00:20:00Z"},
]


def document(schedule: Any, enabled: bool = True) -> dict[str, Any]:
    return {"name": "a/b", "enabled": enabled, "schedule": schedule, "action": {"kind": "shell", "command": ["date"]}}


EVERY_MINUTE, EVERY_7 = document({"every": "60s"}), document({"every": "7s"})


def everything(live: LiveJob, after: int, until: int) -> list[int]:
    """All due instants, checked to agree however they are asked for."""
    due = live.due_between(after, until, 10**6)
    assert due == sorted(set(due))
    assert live.count(after, until) == len(due)
    assert live.last_due(after, until) == (due[-1] if due else None)
    nearest = live.next_due(after)
    assert (nearest if nearest is not None and nearest <= until else None) == (due[0] if due else None)
    assert live.due_between(after, until, 3) == due[:3]
    return due


def test_a_new_job_is_due_by_its_schedule() -> None:
    live = LiveJob.created("j1", EVERY_MINUTE, now=30.7)
    assert (live.since_at, live.revision, live.generation, live.name) == (30, 1, 1, "a/b")
    assert everything(live, 30, 200) == [60, 120, 180]


def test_an_edit_leaves_the_past_to_the_old_schedule() -> None:
    live = LiveJob.created("j1", EVERY_MINUTE, now=0).edited(EVERY_7, revision=2, now=120.05)
    # The fire at 120 was due before the save; nobody has decided it yet.
    assert everything(live, 60, 135) == [120, 126, 133]
    assert everything(live, 120, 135) == [126, 133]


def test_an_edit_right_before_a_fire_takes_it() -> None:
    live = LiveJob.created("j1", EVERY_MINUTE, now=0).edited(EVERY_7, revision=2, now=119.95)
    assert everything(live, 60, 127) == [126]  # 119 is the second of the save, and not one of the old schedule


def test_a_pause_keeps_what_was_due_before_it() -> None:
    live = LiveJob.created("j1", EVERY_MINUTE, now=0).edited(document({"every": "60s"}, False), revision=2, now=150)
    assert everything(live, 60, 10_000) == [120]
    assert live.next_due(120) is None
    assert not live.enabled


def test_a_pause_with_an_end_is_over_by_itself() -> None:
    until = {**EVERY_MINUTE, "paused_until": "1970-01-01T00:06:00Z"}
    live = LiveJob.created("j1", EVERY_MINUTE, now=0).edited(until, revision=2, now=150)
    live = LiveJob.read(live.encode())
    assert everything(live, 60, 500) == [120, 420, 480] and live.paused_at(359) and not live.paused_at(360)
    assert live.passed_over(60, 420) == (180, 360, 4) and live.passed_over(360, 420) is None
    assert live.passed_over(60, 120) is None, "what was due before the pause is"
    noted = live.edited({**until, "description": "x"}, revision=3, now=200)
    assert everything(noted, 60, 500) == [120, 420, 480] and noted.since_at == live.since_at
    longer = noted.edited({**until, "paused_until": "1970-01-01T00:08:00Z"}, revision=4, now=300)
    assert everything(LiveJob.read(longer.encode()), 60, 600) == [120, 540, 600]
    assert longer.passed_over(120, 540) == (180, 480, 6)
    after = live.edited(EVERY_7, revision=3, now=430)
    assert everything(after, 60, 440) == [120, 420, 434], "an edit after its end does not call the pause off"


def test_a_resume_starts_from_now() -> None:
    paused = LiveJob.created("j1", EVERY_MINUTE, now=0).edited(document({"every": "60s"}, False), revision=2, now=150)
    live = paused.resumed(EVERY_MINUTE, revision=3, now=400)
    assert live.replaced == ()
    assert everything(live, 400, 600) == [420, 480, 540, 600]


def test_pause_edit_and_resume_without_a_leader_lose_nothing() -> None:
    live = LiveJob.created("j1", EVERY_MINUTE, now=0)
    live = live.edited(document({"every": "60s"}, False), revision=2, now=130)
    live = live.edited(document({"every": "7s"}, False), revision=3, now=200)
    live = live.edited(EVERY_7, revision=4, now=300)
    assert everything(live, 0, 310) == [60, 120, 301, 308]


def test_a_deleted_job_is_never_due() -> None:
    live = LiveJob.created("j1", EVERY_MINUTE, now=0).tombstone(revision=2, now=100)
    assert live.deleted
    assert live.document is None
    assert everything(live, 0, 1000) == []
    with pytest.raises(Invalid, match="is deleted"):
        _ = live.job


def test_an_edit_of_something_else_changes_nothing_in_time() -> None:
    first = LiveJob.created("j1", EVERY_MINUTE, now=0)
    live = first.edited({**EVERY_MINUTE, "description": "new"}, revision=2, now=130)
    assert live.replaced == ()
    assert live.job.description == "new"
    assert everything(live, 0, 300) == everything(first, 0, 300)


def test_decided_schedules_are_dropped() -> None:
    live = LiveJob.created("j1", EVERY_MINUTE, now=0).edited(EVERY_7, revision=2, now=130)
    assert len(live.replaced) == 1
    assert live.edited(EVERY_MINUTE, revision=3, now=200, done=150).replaced[0].until_at == 200
    assert live.edited(EVERY_MINUTE, revision=3, now=200, done=250).replaced == ()


def test_a_web_whose_clock_is_behind_takes_nothing_back() -> None:
    live = LiveJob.created("j1", EVERY_MINUTE, now=0).edited(EVERY_7, revision=2, now=130)
    live = live.edited(document({"every": "50s"}), revision=3, now=90)
    assert live.since_at == 130
    assert everything(live, 0, 160) == [60, 120, 150]


def test_edits_without_a_leader_have_a_limit() -> None:
    live = LiveJob.created("j1", EVERY_MINUTE, now=0)
    with pytest.raises(Conflict, match="without a leader"):
        for step in range(LONGEST_CHAIN + 2):
            live = live.edited(
                EVERY_7 if step % 2 else document({"every": "9s"}), revision=step + 2, now=10 * step + 10
            )
    assert len(live.replaced) == LONGEST_CHAIN


EDIT = st.tuples(st.integers(0, 200), st.sampled_from(SCHEDULES), st.booleans())


@given(st.sampled_from(SCHEDULES), st.lists(EDIT, max_size=6), st.integers(0, 600), st.integers(0, 900), st.data())
@settings(max_examples=150, deadline=None)
def test_every_instant_is_due_by_the_document_in_force(
    first: Any, edits: list[tuple[int, Any, bool]], after: int, length: int, data: st.DataObject
) -> None:
    """Oracle: at second t the schedule in force is that of the last save before t; a save at t comes after it."""
    live = LiveJob.created("j1", document(first), now=0)
    history: list[tuple[int, Mapping[str, Any]]] = [(0, document(first))]
    now = 0
    for revision, (gap, schedule, enabled) in enumerate(edits, 2):
        now += gap
        # The leader may have decided anything up to what has passed; the web may or may not know.
        done = data.draw(st.none() | st.integers(0, min(now, after)))
        live = live.edited(document(schedule, enabled), revision=revision, now=now + 0.5, done=done)
        history.append((now, document(schedule, enabled)))
        live = LiveJob.read(live.encode())
    until = after + length
    expected = []
    for index, (since, saved) in enumerate(history):
        end = history[index + 1][0] if index + 1 < len(history) else until
        if saved["enabled"]:
            alone = LiveJob("x", "x", 1, 1, document=saved)
            expected += alone.due_between(max(since, after), min(end, until), 10**6)
    assert everything(live, after, until) == expected


# -- the record ------------------------------------------------------------------------------


def test_the_record_travels() -> None:
    live = LiveJob.created("j1", EVERY_MINUTE, now=5.5).edited(EVERY_7, revision=2, now=9.25)
    payload = live.payload()
    assert payload["v"] == RECORD_VERSION
    assert payload["replaced"][0]["schedule"] == {"every": "1m", "timezone": "UTC"}
    assert LiveJob.read(payload) == LiveJob.read(live.encode()) == LiveJob.read(live.encode().decode()) == live
    assert LiveJob.read({**payload, "something": "newer"}) == live
    tombstone = live.tombstone(revision=3, now=10)
    assert LiveJob.read(tombstone.encode()) == tombstone


@pytest.mark.parametrize("data", [b"", b"[]", b"5", b"{}", b"{", "\ud800", b'{"id": 1, "name": "x"}', b"[" * 100_000])
def test_what_is_no_record_is_refused(data: bytes | str) -> None:
    with pytest.raises(UnknownRecord):
        LiveJob.read(data)


def test_a_newer_record_is_refused() -> None:
    with pytest.raises(UnknownRecord, match="version 99"):
        LiveJob.read({"v": 99})


def test_a_document_this_version_cannot_read_is_kept_and_says_so() -> None:
    payload = LiveJob.created("j1", EVERY_MINUTE, now=0).payload()
    payload["document"]["overlap"] = "some_day"
    live = LiveJob.read(payload)
    assert live.document == payload["document"]
    assert live.next_due(0) == 60, "its schedule can be read"
    with pytest.raises(Invalid) as caught:
        _ = live.job
    assert caught.value.field == "overlap"
    for field, value in (("schedule", {"cron": "? H * * *"}), ("enabled", "perhaps")):
        payload = LiveJob.created("j1", EVERY_MINUTE, now=0).payload()
        payload["document"][field] = value
        with pytest.raises(Invalid) as caught:
            LiveJob.read(payload).next_due(0)
        assert caught.value.field.startswith(field)


def test_it_is_read_only() -> None:
    live = LiveJob.created("j1", EVERY_MINUTE, now=0)
    with pytest.raises(AttributeError, match="read-only"):
        live.revision = 5
    assert live.replace(revision=5).revision == 5
    assert live.replace(revision=5) != live
    assert hash(live) == hash(LiveJob.read(live.encode()))
    assert "revision 1" in repr(live)


def test_a_leader_can_hold_a_hundred_thousand() -> None:
    """About two kilobytes each, parsed: equal sections and schedules are shared."""

    def size(value: Any, seen: set[int]) -> int:
        if id(value) in seen or value is None or isinstance(value, type):
            return 0
        seen.add(id(value))
        total = sys.getsizeof(value)
        if isinstance(value, dict):
            return total + sum(size(key, seen) + size(item, seen) for key, item in value.items())
        if isinstance(value, tuple | list):
            return total + sum(size(item, seen) for item in value)
        slots = [slot for kind in type(value).__mro__ for slot in getattr(kind, "__slots__", ())]
        return total + sum(size(getattr(value, slot, None), seen) for slot in slots)

    def one(index: int) -> LiveJob:
        source = parse({**document({"cron": f"{index % 60} * * * *"}), "name": f"load/job-{index:06}"})
        live = LiveJob.read(LiveJob.created(f"j{index:020}", source, now=0).encode())
        _ = live.job
        return live

    seen: set[int] = set()
    for index in range(60):
        size(one(index), seen)  # what is shared
    keep = [one(index) for index in range(1000)]
    assert sum(size(live, seen) for live in keep) / len(keep) < 2000


def test_parsed_documents_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse(EVERY_MINUTE).name = "other"  # type: ignore[misc]
