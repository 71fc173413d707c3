"""Which outcomes are alerts, what an alert says, and how far one settle goes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from crony.domain import alert as alerts
from crony.domain.alert import Alert
from crony.domain.outcome import Kind, Outcome
from crony.domain.record import Record
from crony.domain.run import Request
from crony.domain.shards import Part
from crony.etcd.keys import Keys
from crony.lifecycle.alert import LastLeader, put, take_the_lead
from crony.lifecycle.settle import MOST_ALERTS, MOST_ENDS, MOST_WHOLES, Position, consequences, settle
from tests.helpers.databases import outcome

KEYS = Keys("n")
BAD = {"failed", "timed_out", "lost", "unknown", "refused"}


def out(run: str, kind: str = "failed", **facts: Any) -> tuple[str, bytes]:
    return KEYS.out(run, 1), outcome(run, kind=kind, **facts).encode()


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("final", [True, False])
def test_a_final_failure_is_an_alert_and_nothing_else_is(kind: Kind, final: bool) -> None:
    found = alerts.run_failed("r", outcome("r", kind=kind.value, final=final, reason="because").encode())
    assert (found is not None) == (final and kind in BAD)
    if found is not None:
        assert (found.id, found.outcome, found.reason, found.at) == ("run_failed.r", kind, "because", 1002.25)


def test_a_result_that_looks_like_a_success_hides_no_failure() -> None:
    tricks: list[dict[str, Any]] = [
        {"result": {"kind": "succeeded"}},
        {"name": '","kind":"succeeded'},
        {"reason": '"kind":"succeeded"'},
        {"params": {"kind": "succeeded", "final": False}},
    ]
    for facts in tricks:
        assert alerts.run_failed("r", outcome("r", kind="failed", **facts).encode()) is not None, facts
    assert alerts.run_failed("r", outcome("r", result={"kind": "failed"}).encode()) is None


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"null",
        b'{"kind":"failed","final":true}',
        b'{"kind":[],"final":true}',
        b"[" * 90_000,
    ],
)
def test_outcomes_nobody_can_read_stop_nothing(value: bytes) -> None:
    assert alerts.run_failed("r", value) is None


def test_texts_are_cut_and_as_many_of_the_longest_fit_one_transaction() -> None:
    long = Record.encode(outcome("r", kind="failed", reason="\u8b66" * 5000, name="\u8b66" * 200))
    found = alerts.run_failed("r" * 128, long)
    assert found is not None and len(found.reason) == 600
    assert sum(map(len, put(KEYS, found).values())) * MOST_ALERTS < 400 * 1024


def test_one_settle_goes_in_order_and_no_further_than_its_alerts() -> None:
    many = [(n, *out(f"r{n:03}", "failed" if n % 2 else "succeeded")) for n in range(1, 101)]
    first = consequences(KEYS, many, Position())
    assert [alert.run for alert in first.alerts] == [f"r{n:03}" for n in range(1, 30, 2)]
    assert first.position == Position(30, KEYS.out("r030", 1)), "the success behind the last alert is taken along"
    second = consequences(KEYS, [each for each in many if not first.position.covers(*each[:2])], first.position)
    assert [alert.run for alert in second.alerts] == [f"r{n:03}" for n in range(31, 60, 2)]
    assert second.position.revision == 60


def test_the_worst_settle_fits_one_transaction() -> None:
    """Every alert changes what is known of its job, and beside them lie as many ends and parts as may be told of."""

    def awaited(n: int) -> tuple[int, str, bytes]:
        key, value = out(f"j{n}.1.x{n}", "failed" if n % 2 else "succeeded")
        return n, key, value.replace(b'"awaited":false', b'"awaited":true')

    found = consequences(KEYS, map(awaited, range(1, 200)), Position(), lapsed={f"j{n}" for n in range(0, 200, 2)})
    parts = {f"p{n}": Request("parts", run=f"r{n}") for n in range(MOST_WHOLES)}
    assert len(found.alerts) == MOST_ALERTS == len(found.lapses) and {a.kind for a in found.alerts} == {
        "run_failed", "recovered"}  # fmt: skip
    over = alerts.not_kept(1, 5, 1.0)
    ends = {f"s{n}": Request("ended", run=f"r{n}") for n in range(MOST_ENDS)}
    move = settle(KEYS, settled_seen=1, position=found.position, alerts=found.alerts, again=over,
                  requests=ends | parts, lapses=found.lapses)  # fmt: skip
    assert move.operations <= 100


def test_a_job_lapses_with_its_failure_and_recovers_with_its_next_success() -> None:
    def ends(*kinds: str) -> list[tuple[int, str, bytes]]:
        return [(n, *out(f"j.1.x{n}", kind)) for n, kind in enumerate(kinds, 1)]

    found = consequences(KEYS, ends("succeeded", "failed", "cancelled", "succeeded", "succeeded"), Position())
    assert [alert.kind for alert in found.alerts] == ["run_failed", "recovered"] and not found.lapses
    found = consequences(KEYS, ends("succeeded"), Position(), lapsed={"j"})
    assert [alert.id for alert in found.alerts] == ["recovered.j.1.x1"] and found.lapses == {"j": False}
    found = consequences(KEYS, ends("succeeded", "failed"), Position(), lapsed={"j"})
    assert [alert.kind for alert in found.alerts] == ["recovered", "run_failed"] and not found.lapses
    assert [(end.job, end.failed) for end in found.over] == [("j", False), ("j", True)]


def test_an_attempt_and_the_end_of_one_run_are_one_alert() -> None:
    both = [(1, *out("r")), (2, KEYS.out("r", "end"), outcome("r", kind="failed", reason="again").encode())]
    found = consequences(KEYS, both, Position())
    assert [alert.id for alert in found.alerts] == ["run_failed.r"] and found.position.revision == 2
    move = settle(KEYS, settled_seen=7, position=found.position, alerts=found.alerts)
    assert set(move.puts) == {KEYS.settled, KEYS.alert("run_failed.r"), KEYS.notice("run_failed.r")}
    assert move.seen == {KEYS.settled: 7, KEYS.chains: 0}


def test_who_leads_is_noted_and_only_a_change_is_told() -> None:
    def puts(before: LastLeader | None) -> set[str]:
        return set(take_the_lead(KEYS, Part(), name="b", term=9, before=before, before_seen=3, at=1.0).puts)

    assert puts(None) == puts(LastLeader("b", 5)) == {KEYS.last_leader(0)}
    assert puts(LastLeader("a", 5)) == {
        KEYS.last_leader(0), KEYS.alert("leader_changed.0.9"), KEYS.notice("leader_changed.0.9")}  # fmt: skip
    assert puts(LastLeader("a", 5, handed_over=True)) == {KEYS.last_leader(0)}


@pytest.mark.parametrize(
    "changes",
    [{"at": "x"}, {"at": float("inf")}, {"at": True}, {"attempt": 1.5}, {"times": None}, {"reason": 7}, {"v": 99}],
)
def test_an_alert_that_is_none_is_told_as_unreadable(changes: dict[str, Any]) -> None:
    good = Alert("x", "run_failed", 5.0, run="r")
    assert alerts.read("x", good.encode(), 9.0) == good
    value = json.dumps({**good.payload(), **changes}).encode()
    found = alerts.read("x", value, 9.0)
    assert (found.kind, found.at) == ("unreadable", 9.0) and "run_failed" in found.reason


def test_an_alert_is_who_its_key_says_and_ids_fit_a_row() -> None:
    assert alerts.read("mine", Alert("yours", "node_lost", 1.0).encode(), 0.0).id == "mine"
    longest = alerts.read("x" * 5000, b"?", 0.0).id
    assert len(longest) <= alerts.ID_LIMIT and longest != alerts.read("x" * 5001, b"?", 0.0).id
    assert len(f"run_failed.{'r' * 128}") <= alerts.ID_LIMIT


def test_sentences() -> None:
    failed = alerts.run_failed("r", outcome("r", kind="timed_out", reason="too slow").encode())
    assert failed is not None
    assert failed.sentence() == "run r of job billing/close-day ended as timed out: too slow"
    assert replace(failed, outcome="failed", reason="").sentence() == "run r of job billing/close-day failed"
    assert alerts.node_lost("i", "n1", 0.0).sentence().startswith("node n1 is lost")
    assert "two leads now, before it one did" in alerts.leader_changed(Part(), 5, "two", "one", 0.0).sentence()
    waits = alerts.queue_age("r", "j", "a/b", 0.0, 900.0, "no node fits; no node is alive", "")
    assert (
        waits.sentence() == "run r of job a/b has not begun: it has waited for 15 min; no node fits; no node is alive"
    )
    assert alerts.not_kept(5, 7, 0.0).sentence().startswith("7 alerts were not kept")


def test_the_outcome_shape_this_rests_on() -> None:
    """The quick look takes the first `"kind":` of a record for the record's own."""
    assert list(Outcome.__dataclass_fields__).index("kind") < list(Outcome.__dataclass_fields__).index("result")
