"""What ends come to for jobs that follow, as far as it needs no etcd: late ends, nonsense in records, many at once."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from crony.domain.chain import End, Graph, Link, key_of
from crony.domain.gathering import MOST_AT_ONCE, Gathering, consequences, overdue
from crony.domain.ids import chained_run_id
from crony.domain.outcome import Outcome
from crony.domain.run import Request
from crony.etcd.keys import Keys
from crony.lifecycle.settle import Position, settle
from crony.lifecycle.settle import consequences as all_consequences

KEYS = Keys("n")
NOW = 1_700_000_100.0
CHAIN = "top.1.mabc"


def graph(*links: Link) -> Graph:
    made = Graph()
    for link in links:
        made.put(link.job, link.encode())
    return made


def link(job: str = "child", parents: str = "ab", **more: Any) -> Link:
    return Link(job, f"name of {job}", 1, 1, **{"on": "success", "parents": {p: p for p in parents}, **more})


def outcome(run: str, kind: str = "succeeded", **more: Any) -> Outcome:
    job = run.split(".")[0]
    known = {"chain": CHAIN, "chain_at": NOW - 100, **more}
    return Outcome(run, job, job, 1, 1, 1, kind, True, "chain", NOW, **known)


def end(run: str, kind: str = "succeeded", **more: Any) -> End:
    found = End.of(outcome(run, kind, **more).encode())
    assert found is not None
    return found


BOTH = graph(link(need=2), Link("a", "a", 1, 1, "end", {"top": "top"}), Link("b", "b", 1, 1, "end", {"top": "top"}))


def test_an_end_after_its_time_counts_for_nothing_and_says_so() -> None:
    (late,) = consequences(end("a.1.m1"), BOTH, {}, NOW + 90_000)
    assert late.request is None and late.gathered is None and late.skip is not None
    assert late.skip.detail == "a ended more than 1d after its chain began"
    (first,) = consequences(end("a.1.m1"), BOTH, {}, NOW)
    assert first.gathered is not None and first.gathered[1] is not None
    known = {first.gathered[0]: first.gathered[1]}
    (second,) = consequences(end("b.1.m1"), BOTH, known, NOW + 90_000)
    assert second.request is not None, "as long as it gathers they count"
    assert late.skip.run != second.request[1].run, "the record is not the run's"


def test_a_late_fire_is_late_by_its_own_instant() -> None:
    fire = f"a.1.{int(NOW - 200_000)}"
    assert key_of(fire) == str(int(NOW - 200_000))
    (late,) = consequences(end(fire, chain=""), BOTH, {}, NOW)
    assert late.skip is not None and "more than 1d after" in late.skip.detail


def test_a_second_end_of_a_parent_in_one_chain_is_none() -> None:
    (first,) = consequences(end("a.1.m1", "failed"), BOTH, {}, NOW)
    assert first.skip is not None and first.gathered is not None and first.gathered[1] is not None
    known = {first.gathered[0]: first.gathered[1]}
    assert consequences(end("a.1.m2"), BOTH, known, NOW) == []


def test_a_record_about_many_fires_concerns_so_many_chains_at_most() -> None:
    at = int(NOW) - 90
    waiting = [
        Gathering(chained_run_id("child", 1, str(at)), "child", str(at), f"a.1.{at}", at, at + 9e4)
        for at in range(at, at + 60)
    ]
    known = {each.run: each for each in waiting}
    skipped = end(f"b.1.{at}", "skipped", chain="", fire_at=at, to_at=at + 60)
    found = consequences(skipped, BOTH, known, NOW)
    assert len(found) == MOST_AT_ONCE and all(each.skip for each in found)
    wide = graph(*(link(f"c{number:02d}", need=2) for number in range(40)))
    waiting = [replace(each, job=f"c{number:02d}", run=f"{number}{each.run}") for each in waiting for number in (1, 2)]
    value = outcome(f"b.1.{at}", "skipped", chain="", fire_at=at, to_at=at + 60).encode()
    outs = [(5, KEYS.out(f"b.1.{at}", 0), value)]
    told = all_consequences(KEYS, outs, Position(), wide, {each.run: each for each in waiting}, NOW)
    assert told.position.revision == 5, "one end always fits"


BROKEN: list[dict[str, Any]] = [
    {"need": 3}, {"need": 0}, {"parents": ["a"]}, {"parents": {"a": 1}}, {"within": "1d"}, {"on": 1}, {"job": "other"},
    {"results": []}, {"results": {"x": {"job": "a"}}}, {"given": "x"},
]  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [b"", b"[]", b"3", b"{}", b'{"job": "x"}', b'{"v": 9}']
    + [json.dumps({**link().payload(), **each}).encode() for each in BROKEN],
)
def test_a_link_that_makes_no_sense_is_none(value: bytes) -> None:
    made = Graph()
    made.put("child", link().encode())
    assert [each.job for each in made.after("a")] == ["child"]
    made.put("child", value)
    assert made.after("a") == [] and made.link("child") is None


TAKES = {
    "total": {"job": "a", "fact": "result", "path": "sum.0"},
    "how": {"job": "b", "fact": "outcome", "path": ""},
    "all": {"job": "a", "fact": "result", "path": ""},
}


def test_parameters_are_taken_from_each_parent_s_end() -> None:
    links = graph(link(need=2, on="end", results=TAKES), Link("b", "b", 1, 1, "end", {"top": "top"}))
    links.put("a", Link("a", "a", 1, 1, "end", {"top": "top"}).encode())
    (first,) = consequences(end("a.1.m1", result={"sum": [7]}), links, {}, NOW)
    assert first.gathered is not None and first.gathered[1] is not None
    (last,) = consequences(end("b.1.m1", "failed"), links, {first.gathered[0]: first.gathered[1]}, NOW)
    assert last.request is not None and last.request[1].params == {"total": 7, "how": "failed", "all": {"sum": [7]}}
    assert Request.read(last.request[1].encode()).params["total"] == 7


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (None, "the run of a has no `sum.0`"),
        ({"sum": []}, "the run of a has no `sum.0`"),
        ({"sum": {"1": 2}}, "the run of a has no `sum.0`"),
        ({"truncated": True}, "the run of a has no `sum.0`"),
        ({"sum": ["x" * 5000]}, "what is taken from its parents is larger than 4 KiB"),
    ],
)
def test_a_parameter_that_is_not_there(result: Any, said: str) -> None:
    """Told, unless the job has a value of its own."""
    takes = {"total": TAKES["total"]}
    told = end("a.1.m1")._replace(facts={"result": result})
    (missing,) = consequences(told, graph(link(parents="a", results=takes)), {}, NOW)
    assert missing.skip is not None and missing.skip.detail == f"there is nothing for the parameter total; {said}"
    (own,) = consequences(told, graph(link(parents="a", results=takes, given=["total"])), {}, NOW)
    assert own.request is not None and own.request[1].params == {}


def test_any_of_several_takes_what_there_is() -> None:
    takes = {"total": TAKES["total"]}
    links = graph(link(results=takes), *(Link(each, each, 1, 1, "end", {"top": "top"}) for each in "ab"))
    (found,) = consequences(end("b.1.m1"), links, {}, NOW)
    assert found.skip is not None and found.skip.detail.endswith("the parameter total; a has not ended")


def test_half_a_character_in_a_result_stops_nobody() -> None:
    takes = {"all": TAKES["all"]}
    value = outcome("a.1.m1").encode().replace(b'"chain":', b'"result":"\\ud800","chain":', 1)
    outs = [(5, KEYS.out("a.1.m1", 1), value)]
    found = all_consequences(KEYS, outs, Position(), graph(link(parents="a", results=takes)), {}, NOW)
    assert found.position.revision == 5 and len(found.requests) == 1


def test_large_results_share_no_transaction() -> None:
    """A hundred ends whose followers carry what they may: each settle stays below what etcd takes."""
    takes = {"all": TAKES["all"]}
    wide = graph(*(link(f"c{number:02d}", "a", results=takes) for number in range(40)))
    many = [(at, KEYS.out(run := f"a.1.m{at}", 1), outcome(run, result="x" * 1500).encode()) for at in range(9)]
    position = Position()
    while not position.covers(*many[-1][:2]):
        left = [each for each in many if not position.covers(*each[:2])]
        found = all_consequences(KEYS, left, position, wide, {}, NOW)
        assert found.requests and found.position != position
        move = settle(KEYS, settled_seen=1, position=found.position, requests=found.requests)
        assert move.size < 400 * 1024 and move.operations <= 100
        position = found.position


@pytest.mark.parametrize(
    "wrong", [{"ends": []}, {"ends": {"a": "x"}}, {"ends": {"a": ["x", 1]}}, {"until_at": "1"}, {"decided": 1}]
)
def test_a_record_that_makes_no_sense_is_seen_as_such(wrong: dict[str, Any]) -> None:
    sound = Gathering("r", "child", "k", CHAIN, 1.0, 2.0, {"a": ["succeeded", "a.1.m1"]})
    assert sound.sound and not Gathering.read({**sound.payload(), **wrong}).sound


@pytest.mark.parametrize("value", [b"{}", b"[]", b'"x"', b'{"final": true}', b'{"final": true, "run": 3}'])
def test_an_outcome_that_makes_no_sense_is_no_end(value: bytes) -> None:
    assert End.of(value) is None


def test_a_circle_that_somebody_wrote_into_etcd_ends_nowhere() -> None:
    ring = graph(link("a", "b"), link("b", "a"))
    assert ring.follows("a", "b") and not ring.follows("a", "c")


def test_of_a_job_that_is_gone_nothing_is_recorded() -> None:
    waits = Gathering("r", "gone", "k", CHAIN, 1.0, 2.0, {"a": ["succeeded", "a.1.m1"]})
    assert overdue(waits, BOTH, NOW) is None


def test_one_settle_is_one_transaction_however_much_follows() -> None:
    """Twenty ends of jobs that thirty others follow: each transaction has at most 100 operations, all are told."""
    wide = graph(*(link(f"c{number:02d}", "ab", need=2) for number in range(30)))
    many = [(at, KEYS.out(run := f"a.1.{int(NOW) - at}", 1), outcome(run, chain="").encode()) for at in range(20)]
    position, gathered, told = Position(), dict[str, Gathering](), 0
    while not position.covers(*many[-1][:2]):
        left = [each for each in many if not position.covers(*each[:2])]
        found = all_consequences(KEYS, left, position, wide, gathered, NOW)
        assert found.position != position, "it goes on"
        move = settle(
            KEYS, settled_seen=1, position=found.position, alerts=found.alerts, requests=found.requests,
            skips=found.skips, gathered={run: (0, each) for run, each in found.gathered.items()},
        )  # fmt: skip
        assert move.operations <= 100
        gathered |= {run: each for run, each in found.gathered.items() if each is not None}
        told += len(found.gathered)
        position = found.position
    assert told == 600
