"""Stored records: they travel, keep reading older and wider ones, and refuse newer and broken ones."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crony.domain.node import NodeControl, NodeFacts
from crony.domain.outcome import Outcome
from crony.domain.record import RECORD_VERSION, Record, UnknownRecord
from crony.domain.run import Claim, Done, Envelope, Request, Wait, WaitReason

ENVELOPE = Envelope(
    run="j1.1.60",
    job="j1",
    name="a/b",
    generation=1,
    revision=3,
    attempt=1,
    queue="run.n1",
    incarnation="i1",
    trigger="schedule",
    action={"kind": "shell", "command": ["date"]},
    params={"x": "每日"},
)
RECORDS: list[Record] = [
    ENVELOPE,
    Wait("j1.1.60", "sealed", 1, WaitReason.ENDED.value, 60.5, due_at=70.0),
    Request(kind="run", run="j1.1.mabc", job="j1"),
    Claim("i1", count=2),
    Done(60, fires=7, next_at=None),
    NodeFacts("n1", "i1", "run.n1", "host", 7, "boot", "1.0", 4, labels={"zone": "a"}),
    NodeControl(weight=5, cordoned=True),
    Outcome("j1.1.60", "j1", "a/b", 1, 3, 1, "succeeded", True, "schedule", 61.0),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_travels(record: Record) -> None:
    kind = type(record)
    assert kind.read(record.encode()) == record
    assert kind.read(record.encode().decode()) == record
    assert kind.read(record.payload()) == record
    assert record.payload()["v"] == RECORD_VERSION
    assert {**record.payload()} == {"v": RECORD_VERSION, **asdict(record)}


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_fields_of_later_versions_are_passed_over_and_newer_versions_refused(record: Record) -> None:
    assert type(record).read({**record.payload(), "from_the_future": 1}) == record
    with pytest.raises(UnknownRecord, match="version 2"):
        type(record).read({**record.payload(), "v": 2})


@given(st.binary(max_size=60) | st.text('{}[]":,v12 truefalsn\ud800', max_size=40))
@settings(max_examples=200, deadline=None)
def test_anything_else_is_refused(data: bytes | str) -> None:
    for kind in (Envelope, Wait, Claim, Done):
        with pytest.raises(UnknownRecord):
            kind.read(data)


@pytest.mark.parametrize("data", ["[" * 100_000, "null", "5", "[]", '""', '{"v": "x"}', '{"v": null}', '{"v": []}'])
def test_other_json_is_refused(data: str) -> None:
    with pytest.raises(UnknownRecord):
        Claim.read(data)


def test_the_next_attempt() -> None:
    following = ENVELOPE.next_attempt(queue="run.n2", losses=1)
    assert (following.attempt, following.queue, following.losses, following.run) == (2, "run.n2", 1, ENVELOPE.run)
    assert ENVELOPE.attempt == 1
