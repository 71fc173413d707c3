"""Outcomes stay within their bytes: texts are cut with a marker, facts are kept."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from crony.domain.outcome import LIMIT, Kind, Outcome

FACTS: dict[str, Any] = {
    "run": "j" + "0" * 20 + ".1.1790000000",
    "job": "j" + "0" * 20,
    "name": "billing/close-day",
    "generation": 1,
    "revision": 3,
    "attempt": 2,
    "kind": Kind.FAILED.value,
    "final": True,
    "trigger": "schedule",
    "ended_at": 1_790_000_060.5,
    "code": 1,
    "node": "n1",
    "incarnation": "i" + "0" * 20,
    "fence": 123456,
}


def test_a_small_outcome_is_kept_whole() -> None:
    outcome = Outcome(**FACTS, result={"rows": 5}, params={"x": 1}, why="its turn")
    assert Outcome.read(outcome.encode()) == outcome


def test_the_result_goes_first() -> None:
    outcome = Outcome(**FACTS, result="x" * 5000, params={"x": 1}, reason="exit code 1")
    stored = Outcome.read(outcome.encode())
    assert stored.result == {"truncated": True}
    assert stored.params == {"x": 1}
    assert stored.reason == "exit code 1"


def test_nodes_that_were_passed_over_go_before_what_the_run_said() -> None:
    why = "the only node that fits; strategy hash; cordoned: " + ", ".join(f"node-{n}" for n in range(60))
    stored = Outcome.read(Outcome(**FACTS, result="x" * 1200, why=why).encode())
    assert stored.result == "x" * 1200 and stored.why == "the only node that fits"


TEXT = st.text('ab é每\u2028"\\', max_size=3000)


@given(TEXT, TEXT, TEXT, TEXT, st.text("ab每", min_size=1, max_size=200), TEXT)
@settings(max_examples=100, deadline=None)
def test_no_outcome_is_larger_than_its_limit(
    reason: str, detail: str, why: str, result: str, name: str, idem: str
) -> None:
    outcome = Outcome(
        **{**FACTS, "name": name},
        reason=reason,
        detail=detail,
        why=why,
        result=result,
        params={"a": result},
        idem=idem,
    )
    data = outcome.encode()
    assert len(data) <= LIMIT
    stored = Outcome.read(data)
    for fact in (
        "run",
        "job",
        "generation",
        "revision",
        "attempt",
        "kind",
        "final",
        "fence",
        "ended_at",
        "code",
        "node",
    ):
        assert getattr(stored, fact) == FACTS[fact]


def test_half_a_surrogate_pair_in_a_result_does_not_stop_the_end() -> None:
    odd = Outcome(**FACTS, result=["caf\udce9.txt"], reason="no such file: caf\udce9")
    assert Outcome.read(odd.encode()).result == ["caf?.txt"]
