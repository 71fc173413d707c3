"""Each rule of the judge speaks: small histories written by hand, a sound one, and one or more that break each rule."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.soak import groups
from tests.soak.judge import History, judged
from tests.soak.tale import BAD, JOB, PLACE, RUN, T0, Tale, asked, breaks, message, sealed, skip, wait


def test_a_job_that_never_fired_keeps_the_second_of_its_h_to_itself() -> None:
    tale = Tale().begin(schedule={"cron": "H * * * * *", "dialect": "cron6"})
    tale.step({}, after=66)
    tale.end()
    assert "every fire is accounted for" not in str(tale.found())


def test_a_sound_history_has_no_findings() -> None:
    tale = Tale().begin(overlap="skip")
    tale.op("create", 201, revision=1)
    tale.runs()
    tale.settle()
    tale.step({}, f"run/out/{RUN}/1", after=2)
    over = skip(T0 + 20, T0 + 20, 1, "overlap", T0 + 20.1)
    tale.step({"done/j1": {"upto_at": T0 + 20}, **over}, after=T0 + 20.1 - tale.at)
    tale.publish(revision=2, enabled=False, after=3)
    tale.step({}, "session/i1", "node/n1")
    tale.end(skips=[[f"j1.1.{T0 + 20}", 1]])
    assert not tale.found()


def test_fires_of_a_pause_are_recorded_when_it_ends_however_late() -> None:
    tale = Tale().begin()
    tale.runs()
    tale.publish(revision=2, enabled=False)
    live = {"revision": 3, "generation": 1, "published_at": tale.at + 30, "document": tale.document()}
    over = skip(T0 + 20, T0 + 40, 3, "paused", tale.at + 30)
    tale.step({f"job/{JOB}": sealed(live), f"done/{JOB}": {"upto_at": T0 + 40}, **over}, after=30)
    assert not tale.found() & {"in time", "every fire is accounted for", "records count right"}


def test_what_was_created_and_deleted_while_etcd_was_away_need_not_be_published() -> None:
    tale = Tale().begin()
    tale.op("create", 202, job="j2", revision=1)
    tale.op("delete", 204, job="j2")
    tale.end()
    assert not [finding for finding in judged(History(tale.lines)) if "was deleted for" in str(finding)]


def fired() -> Tale:
    """A fire in its queue."""
    tale = Tale().begin()
    tale.fire()
    return tale


def claimed() -> tuple[Tale, int]:
    """A fire that a node has."""
    tale = fired()
    return tale, tale.claim()


@breaks("one run, one place")
def put_twice() -> Tale:
    tale = fired()
    tale.step(message(place=f"90000000000000002.{RUN}"))
    return tale


@breaks("no run vanishes")
def deleted() -> Tale:
    tale, _ = claimed()
    tale.step({}, f"run/q/run.n1/m/{PLACE}", f"run/q/run.n1/c/{PLACE}")
    return tale


@breaks("no run vanishes")
def not_final_and_nowhere() -> Tale:
    tale, fence = claimed()
    tale.ends(fence, kind="failed", final=False)
    return tale


@breaks("an attempt ends once")
@breaks("a run ends once")
@breaks("no end rests on an absence")
def ended_twice() -> Tale:
    tale, fence = claimed()
    tale.ends(fence)
    tale.ends(fence, kind="failed")
    return tale


@breaks("ended is ended")
def back_after_its_end() -> Tale:
    tale, fence = claimed()
    tale.ends(fence)
    tale.step(wait())
    return tale


@breaks("every run ends")
def still_there() -> Tale:
    tale = fired()
    tale.end(runs=[])
    return tale


@breaks("no claim without message")
def claim_stays() -> Tale:
    tale, fence = claimed()
    tale.step({f"run/out/{RUN}/1": {"kind": "succeeded", "final": True, "fence": fence}}, f"run/q/run.n1/m/{PLACE}")
    return tale


@breaks("only the living claim")
def claimed_by_the_dead() -> Tale:
    tale = fired()
    tale.claim(holder="i9")
    return tale


@breaks("a holder keeps it")
def taken_from_its_holder() -> Tale:
    tale, _ = claimed()
    tale.step({"session/i2": {}})
    tale.claim(holder="i2", count=2)
    return tale


@breaks("a holder keeps it")
def taken_over_from_the_living() -> Tale:
    tale, _ = claimed()
    tale.ends(0, kind="lost", final=False, puts=wait())
    return tale


@breaks("deliveries are counted")
def not_counted() -> Tale:
    tale, _ = claimed()
    tale.claim(holder="", count=1)
    tale.claim(count=1)
    return tale


@breaks("ended by its fence")
def ended_by_an_earlier_fence() -> Tale:
    tale, fence = claimed()
    tale.claim(holder="", count=1)
    tale.claim(count=2)
    tale.ends(fence)
    return tale


@breaks("ended by its fence")
def ended_without_fence() -> Tale:
    tale, _ = claimed()
    tale.ends(0)
    return tale


@breaks("attempts only grow")
def the_same_attempt_again() -> Tale:
    tale, fence = claimed()
    tale.ends(fence, kind="failed", final=False, puts=wait())
    tale.step(message(place=f"90000000000000002.{RUN}"), f"run/wait/{RUN}")
    return tale


@breaks("attempts only grow")
def rerouted_and_used_up() -> Tale:
    tale = fired()
    tale.step(wait(finished=1, reason="reroute"), f"run/q/run.n1/m/{PLACE}")
    return tale


@breaks("sent to the living")
def sent_to_the_dead() -> Tale:
    tale = Tale().begin()
    tale.fire(incarnation="i9")
    return tale


@breaks("only a leader dispatches")
def nobody_leads() -> Tale:
    tale = Tale().begin()
    tale.step({}, "beat/0/leader")
    tale.fire()
    return tale


@breaks("the document that stands")
def old_document() -> Tale:
    tale = Tale().begin()
    tale.publish(revision=2)
    tale.fire()
    return tale


@breaks("stopped is stopped")
def sent_while_stopped() -> Tale:
    tale = Tale().begin()
    tale.step({"control": {"stop": True}})
    tale.fire()
    return tale


@breaks("one at a time")
def two_at_once() -> Tale:
    tale = Tale().begin(overlap="skip")
    tale.fire()
    tale.fire(T0 + 20)
    return tale


@breaks("one at a time")
def work_overlaps() -> Tale:
    tale = Tale().begin(overlap="skip")
    fence = tale.runs()
    tale.mark("start", run=f"j1.1.{T0 + 20}", fence=fence)
    tale.lines[-1]["when"] -= 1.0
    tale.mark("end", run=f"j1.1.{T0 + 20}", fence=fence)
    return tale


@breaks("the line is bounded")
def too_many_wait() -> Tale:
    tale = Tale().begin(overlap="queue_one")
    tale.fire()
    for second in (T0 + 20, T0 + 30):
        run = f"j1.1.{second}"
        tale.step({"done/j1": {"upto_at": second}, **wait(run, 0, "overlap", requested_at=second)}, after=10)
    return tale


@breaks("every fire is accounted for")
def passed_over() -> Tale:
    tale = Tale().begin()
    tale.fire(T0 + 20)
    return tale


@breaks("every fire is accounted for")
def never_decided() -> Tale:
    tale = Tale().begin()
    tale.runs()
    tale.step({}, after=30)
    tale.end()
    return tale


@breaks("every fire is accounted for")
def lost_from_a_backfill() -> Tale:
    tale = Tale().begin(misfire={"after": "2s", "policy": "fire_all"})
    rest = {"id": "b1", "job": JOB, "trigger": "schedule", "fires": [T0 + 10, T0 + 20]}
    tale.step({"done/j1": {"upto_at": T0 + 20}, "run/backfill/b1": rest}, after=30)
    tale.step({"run/backfill/b1": {**rest, "fires": [T0 + 20]}})
    return tale


@breaks("no fire twice")
def decided_again() -> Tale:
    tale = Tale().begin()
    tale.runs()
    tale.step({"done/j1": {"upto_at": T0}})
    tale.step({"done/j1": {"upto_at": T0 + 10}, **message(place=f"90000000000000002.{RUN}")})
    return tale


@breaks("no fire twice")
def ran_and_skipped() -> Tale:
    tale = Tale().begin()
    second = T0 + 10
    tale.step({"done/j1": {"upto_at": second}, **message(), **skip(second, second, 1)}, after=10)
    return tale


@breaks("decided is decided")
def cursor_goes_back() -> Tale:
    tale = fired()
    tale.step({"done/j1": {"upto_at": T0}})
    return tale


@breaks("decided is decided")
def dispatched_without_cursor() -> Tale:
    tale = Tale().begin()
    tale.step(message(), after=10)
    return tale


@breaks("nothing fires that is not due")
def fires_at_a_wrong_second() -> Tale:
    tale = Tale().begin()
    tale.fire(T0 + 13)
    return tale


@breaks("nothing fires that is not due")
def fires_while_paused() -> Tale:
    tale = Tale().begin()
    tale.publish(revision=2, enabled=False)
    tale.fire(revision=2)
    return tale


@breaks("nothing fires early")
def too_early() -> Tale:
    tale = Tale().begin()
    tale.step({"done/j1": {"upto_at": T0 + 10}, **message()}, after=2)
    return tale


@breaks("no cursor runs ahead")
def decided_for_an_hour() -> Tale:
    tale = Tale()
    tale.publish(cursor=T0 + 3600)
    return tale


@breaks("records count right")
def miscounted() -> Tale:
    tale = Tale().begin(misfire={"after": "2s", "policy": "skip"})
    tale.step({"done/j1": {"upto_at": T0 + 30}, **skip(T0 + 10, T0 + 30, 2, at=T0 + 40)}, after=40)
    return tale


@breaks("late fires by their policy")
def ran_too_late() -> Tale:
    tale = Tale().begin(misfire={"after": "2s", "policy": "skip"})
    tale.step({"done/j1": {"upto_at": T0 + 10}, **message(requested_at=T0 + 15)}, after=15)
    return tale


@breaks("late fires by their policy")
def skipped_too_soon() -> Tale:
    tale = Tale().begin(misfire={"after": "1h"})
    tale.step({"done/j1": {"upto_at": T0 + 10}, **skip(T0 + 10, T0 + 10, 1, at=T0 + 12)}, after=12)
    return tale


@breaks("late fires by their policy")
def skipped_for_what_is_allowed() -> Tale:
    tale = Tale().begin()
    tale.step({"done/j1": {"upto_at": T0 + 10}, **skip(T0 + 10, T0 + 10, 1, "overlap", T0 + 10.1)}, after=9.5)
    return tale


@breaks("started once for each attempt")
def started_twice() -> Tale:
    tale = Tale().begin()
    tale.mark("start", fence=tale.runs())
    return tale


@breaks("started under a claim")
def started_by_no_claim() -> Tale:
    tale = fired()
    tale.mark("start", fence=100)
    return tale


@breaks("success is true")
def succeeded_without_end() -> Tale:
    tale, fence = claimed()
    tale.mark("start", fence=fence)
    tale.ends(fence)
    return tale


@breaks("what started has ended")
def no_outcome() -> Tale:
    tale, fence = claimed()
    tale.mark("start", fence=fence)
    tale.end(runs=[])
    return tale


@breaks("at most once")
def started_again() -> Tale:
    tale = Tale().begin(delivery="at_most_once")
    fence = tale.runs()
    tale.mark("start", attempt=2, fence=fence)
    return tale


def permitted() -> tuple[Tale, int]:
    """A fire of work that needs a permit, and has it."""
    tale = Tale().begin()
    tale.fire(delivery="at_most_once")
    tale.claim()
    return tale, tale.step({f"run/q/run.n1/c/{PLACE}": {"incarnation": "i1", "count": 1, "phase": "S"}})


@breaks("a permit first")
def began_without_permit() -> Tale:
    tale, fence = permitted()
    tale.mark("start", fence=fence - 2)
    return tale


@breaks("a permit is kept")
def permitted_and_rerouted() -> Tale:
    tale, _ = permitted()
    tale.step(wait(finished=0, reason="reroute"), f"run/q/run.n1/m/{PLACE}", f"run/q/run.n1/c/{PLACE}")
    return tale


@breaks("a permit is kept")
def permitted_and_claimed_anew() -> Tale:
    tale, _ = permitted()
    tale.claim(holder="", count=1)
    return tale


@breaks("a delay counts from the end")
def too_soon_after_the_end() -> Tale:
    tale = Tale().begin(schedule={"every": "10s", "after": "end"})
    tale.runs()
    tale.fire(T0 + 14)
    place = f"90000000000000001.j1.1.{T0 + 14}"
    tale.ends(tale.claim(place), run=f"j1.1.{T0 + 14}", place=place)
    return tale


@breaks("revisions only rise")
def lowered() -> Tale:
    tale = Tale().begin()
    tale.publish(revision=3)
    tale.publish(revision=2)
    return tale


@breaks("terms only rise")
def old_term() -> Tale:
    tale = Tale().begin()
    tale.step({"beat/0/last": {"name": "c2", "term": 4}})
    return tale


@breaks("settled in order")
def settled_back() -> Tale:
    tale = Tale().begin()
    tale.step({"settled": {"revision": 50, "key": "x"}})
    tale.step({"settled": {"revision": 40, "key": "x"}})
    return tale


@breaks("archived behind settled")
def archived_first() -> Tale:
    tale = Tale().begin()
    tale.runs()
    tale.step({}, f"run/out/{RUN}/1")
    return tale


@breaks("failures are told")
def nobody_was_told() -> Tale:
    tale, fence = claimed()
    tale.ends(fence, kind="failed")
    tale.settle()
    return tale


@breaks("leases where they belong")
def leased_job() -> Tale:
    tale = Tale().begin()
    tale.step({"done/j1": {"upto_at": T0}}, lease=7)
    return tale


@breaks("small transactions")
def large() -> Tale:
    tale = Tale().begin()
    tale.step({f"idem/j1/{number}": {} for number in range(101)})
    return tale


@breaks("the witness saw everything")
def a_gap() -> Tale:
    tale = Tale().begin()
    tale.revision += 1
    tale.step({})
    return tale


@breaks("saves go live")
def never_live() -> Tale:
    tale = Tale().begin()
    tale.op("edit", revision=2)
    tale.end(runs=[])
    return tale


@breaks("saves go live")
def deleted_and_still_there() -> Tale:
    tale = Tale().begin()
    tale.op("delete", 204)
    tale.end(runs=[])
    return tale


@breaks("saves go live")
def live_too_late() -> Tale:
    tale = Tale().begin()
    tale.op("edit", revision=2)
    tale.publish(revision=2, after=3)
    return tale


@breaks("one key, one run")
def two_runs() -> Tale:
    tale = Tale().begin()
    tale.step(asked("q1", "j1.1.ma", idem="k"))
    tale.step(asked("q2", "j1.1.mb", idem="k"))
    return tale


@breaks("one key, one run")
def two_answers() -> Tale:
    tale = Tale().begin()
    for number in ("a", "b"):
        tale.step(asked(f"q{number}", f"j1.1.m{number}"))
        tale.op("run", 202, run=f"j1.1.m{number}", key="k")
    return tale


@breaks("what was accepted is there")
def unheard_of() -> Tale:
    tale = Tale().begin()
    tale.op("run", 202, run="j1.1.mz")
    return tale


@breaks("nothing is left behind")
def left() -> Tale:
    tale = Tale().begin()
    tale.end(runs=[], left=["session/i1"])
    return tale


@breaks("everybody ends when told")
def had_to_be_killed() -> Tale:
    tale = Tale().begin()
    tale.end(runs=[], exits={"n1": -9})
    return tale


@breaks("all ends in time")
def drains_for_ever() -> Tale:
    tale = Tale().begin()
    tale.end(runs=[], drained=61.0)
    return tale


@breaks("all is archived")
def not_archived() -> Tale:
    tale = Tale().begin()
    tale.runs()
    tale.end(runs=[])
    return tale


@breaks("archived once")
def archived_twice() -> Tale:
    tale = Tale().begin()
    tale.runs()
    tale.end(runs=[[RUN, "succeeded"], [RUN, "succeeded"]])
    return tale


@breaks("nobody ends by itself")
def died() -> Tale:
    tale = Tale().begin()
    tale.note("process", what="died", name="c1")
    return tale


@breaks("a restored etcd stands still")
def dispatched_after_a_restore() -> Tale:
    tale = Tale().begin()
    tale.note("restored", line=len(tale.lines) + 1)
    tale.fire()
    return tale


@breaks("what is away is said")
def nothing_said() -> Tale:
    tale = Tale().begin()
    tale.fault("E2", tale.at, tale.at + 20, etcd_away=True)
    tale.at += 10
    tale.note("ready", status=200, text="etcd: there")
    return tale


@breaks("in time")
def decided_late() -> Tale:
    tale = Tale().begin()
    tale.step({"done/j1": {"upto_at": T0 + 10}, **message(requested_at=T0 + 20)}, after=20)
    return tale


@breaks("in time")
def nobody_takes_over() -> Tale:
    tale = Tale().begin()
    tale.at += 20
    tale.fault("L1", tale.at, tale.at, leader_gone="killed", term=101)
    tale.step({}, after=10)
    return tale


@breaks("in time")
def work_of_a_lost_node_stays() -> Tale:
    tale, _ = claimed()
    tale.at += 30
    tale.fault("N1", tale.at, tale.at, nodes_gone=["i1"])
    tale.step({}, after=10)
    return tale


@breaks("in time")
def not_claimed() -> Tale:
    tale = fired()
    tale.step({}, after=10)
    return tale


@breaks("no request is overlooked")
def passed_by() -> Tale:
    tale = Tale().begin()
    tale.step(asked("q1", "j1.1.ma"))
    tale.step(asked("q2", "j1.1.mb"), after=3)
    tale.step({"run/out/j1.1.mb/end": {"kind": "refused", "final": True}}, "run/in/q2")
    tale.step({}, after=5)
    return tale


@pytest.mark.parametrize("tell", groups.GOOD, ids=lambda tell: tell.__name__)
def test_sound_histories_of_parts_pools_backfills_and_callees(tell: Callable[[], Tale]) -> None:
    assert not tell().found()


@pytest.mark.parametrize(
    ("rule", "tell"), [pytest.param(rule, tell, id=tell.__name__) for rule, tales in BAD.items() for tell in tales]
)
def test_a_broken_rule_is_named(rule: str, tell: Callable[[], Tale]) -> None:
    assert rule in tell().found()


def test_every_rule_has_a_history_that_breaks_it() -> None:
    said: set[str] = set()
    for path in (Path(__file__).parent / "judge").glob("*.py"):
        said |= set(re.findall(r"self\.say\(\s*\"([^\"]+)\"", path.read_text()))
    assert said == set(BAD)
