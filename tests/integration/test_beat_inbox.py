"""The inbox: runs by hand and by API, delays, overrides, refusals, cancels; each request acts once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from crony.domain import ids
from crony.domain.backfill import Backfill
from crony.domain.outcome import Kind
from crony.domain.run import Request
from crony.etcd.keys import Keys
from crony.lifecycle.enqueue import cancel, submit
from crony.lifecycle.hold import turn
from tests.helpers.beat import Stage, narrow, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until


@pytest.fixture
def place(etcd: EtcdServer, keys: Keys) -> Iterator[Stage]:
    with stage(etcd.endpoint, keys, imports=("reports",)) as made:
        made.lead()
        yield made


def test_a_run_by_hand_with_overrides(place: Stage) -> None:
    node = place.node("n1", labels={"zone": "b"})
    job = place.publish(params={"region": "cn", "day": "1"}, timeout="20m", retry={"max": 1}, priority=3)
    run = place.ask(job, params={"region": "eu"}, timeout=5.0, retries=4, priority=9, labels={"zone": "b"}).run
    message = until(node.messages, 10, "the run")[0]
    told = message.envelope
    assert told.run == run and told.params == {"region": "eu", "day": "1"} and told.trigger == "api"
    assert (told.timeout, told.retry["max"], told.priority, told.labels) == (5.0, 4, 9, {"zone": "b"})
    assert message.place.startswith("0"), "highest priority first"
    until(lambda: not place.requests(), 5, "the request to be taken off")


def test_overlap_holds_for_manual_runs_too(place: Stage) -> None:
    node = place.node("n1")
    job = place.publish()
    first, second = place.ask(job).run, place.ask(job).run
    skip = until(lambda: place.outs().get((second, "0")), 10, "the second to be skipped")
    assert (skip.kind, skip.reason, skip.final) == ("skipped", "overlap", True) and first in skip.detail
    until(lambda: [message.run for message in node.messages()] == [first], 10, "the first to be handed out")
    node.run_all()
    third = place.ask(job).run
    until(lambda: [m.run for m in node.messages()] == [third], 10, "the third to run")


def test_an_allow_job_runs_many_at_once(place: Stage) -> None:
    node = place.node("n1")
    job = place.publish(overlap="allow")
    runs = {place.ask(job).run for _ in range(60)}
    until(lambda: {m.run for m in node.messages()} == runs, 10, "all of them")
    assert [m.run for m in node.messages()] == [m.run for m in sorted(node.messages(), key=lambda m: m.place)]


def test_what_cannot_run_is_refused_with_a_reason(place: Stage) -> None:
    place.node("n1")
    gone = place.publish()
    place.delete(gone)
    strange = ids.job_id()
    refused = [
        place.ask(gone).run,
        place.request(Request("run", run=ids.fresh_run_id(strange, 1), job=strange, name="x", generation=1)),
        place.request(Request("run", run=f"{gone.id}.1.{int(time.time())}", job=gone.id, name="x", generation=1)),
        place.request(Request("dance", run=ids.fresh_run_id(strange, 1), job=strange, name="x")),
    ]
    place.client.put(place.keys.run_in("q0"), b"not json")
    until(lambda: not place.requests(), 10, "the inbox to be empty")
    outs = place.outs()
    assert outs[refused[0], "end"].kind == Kind.REFUSED and "deleted" in outs[refused[0], "end"].reason
    assert {out.kind for out in outs.values()} == {Kind.REFUSED} and len(outs) == 3
    assert "no such job" in next(out.reason for out in outs.values() if out.job == strange and "job" in out.reason)
    assert place.client.count(f"{place.keys.root}dead/") == 2, "those that name no run are set aside"
    assert place.messages() == []


def test_tasks_by_name_only_from_the_modules_allowed(place: Stage) -> None:
    node = place.node("n1")

    def ask(task: str) -> str:
        request = Request("run", job=ids.task_job_id(task), name=f"task:{task}", args=[1], params={"x": 2})
        return submit(place.client, place.keys, request).run

    good, bad, near = ask("reports.daily"), ask("os.system"), ask("reportsx.daily")
    message = until(node.messages, 10, "the task")[0]
    assert message.run == good and message.envelope.action["task"] == "reports.daily"
    assert message.envelope.args == [1] and message.envelope.params == {"x": 2} and message.envelope.overlap == "allow"
    assert message.head["headers"]["timelimit"][1] == message.envelope.timeout
    until(lambda: (bad, "end") in place.outs() and (near, "end") in place.outs(), 10, "refusals")
    assert "may be run by name" in place.outs()[bad, "end"].reason


def test_a_delayed_run_waits_does_not_block_fires_and_can_be_cancelled(place: Stage) -> None:
    node = place.node("n1")
    job = place.publish(schedule={"every": "1s"})
    soon = place.ask(job, not_before_at=time.time() + 2.2).run
    later = place.ask(job, not_before_at=time.time() + 3600).run
    assert until(lambda: place.waits().get(later), 10, "it to wait").reason == "delay"
    fires = until(node.messages, 10, "a fire nevertheless")
    assert {m.envelope.trigger for m in fires} == {"schedule"}
    skip = until(lambda: place.outs().get((soon, "0")), 10, "the delayed one to meet the fire")
    assert skip.reason == "overlap"
    cancel(place.client, place.keys, later, by="me")
    out = until(lambda: place.outs().get((later, "1")), 10, "the cancelled end")
    assert out.kind == Kind.CANCELLED and out.final and out.reason == "cancelled by me" and not place.waits()


def test_cancel_where_it_lies(place: Stage) -> None:
    node = place.node("n1")
    job = place.publish(overlap="allow")
    queued, claimed = place.ask(job).run, place.ask(job).run
    messages = until(lambda: len(found := node.messages()) == 2 and found, 10, "two runs")
    fence = node.claim(next(m for m in messages if m.run == claimed))
    for run in (queued, claimed, claimed, ids.fresh_run_id(job.id, 1)):
        cancel(place.client, place.keys, run, by="me")
    out = until(lambda: place.outs().get((queued, "1")), 10, "the queued one to end")
    assert out.kind == Kind.CANCELLED and out.final
    until(lambda: place.client.get(place.keys.cmd("n1", claimed)), 10, "an order for the claimed one")
    until(lambda: not place.requests(), 10, "all requests to be taken off")
    (left,) = node.messages()
    node.end(left, fence, Kind.CANCELLED)
    assert place.client.count(f"{place.keys.root}cmd/") == 0 and not place.messages() and not place.waits()


def test_a_job_is_found_although_its_watch_is_behind(place: Stage) -> None:
    node = place.node("n1")
    runs = [place.ask(place.publish()).run for _ in range(10)]
    until(lambda: {m.run for m in node.messages()} == set(runs), 10, "all to run")
    assert place.outs() == {}


def test_the_stop_switch_holds_everything_but_cancels(place: Stage) -> None:
    node = place.node("n1")
    job = place.publish(overlap="allow")
    until(lambda: node.name in place.centres[0].centre.leader.office.book.nodes, 10, "the node to be seen")  # type: ignore[union-attr]
    place.client.put(place.keys.control, b'{"v": 1, "calendars": 7}')
    turn(place.client, place.keys, True, by="li", reason="a test")
    hourly = place.publish(schedule={"every": "1h"}, done=int(time.time()) - 7300)
    run, other = place.ask(job).run, place.ask(job).run
    cancel(place.client, place.keys, run)
    assert until(lambda: place.outs().get((run, "end")), 10, "the cancel").kind == Kind.CANCELLED
    assert not node.messages()
    assert place.done(hourly).upto_at < time.time() - 7000 and not place.skips(hourly), "no cursor moves meanwhile"
    turn(place.client, place.keys, False, by="li")
    kept = place.client.get(place.keys.control)
    assert kept is not None and json.loads(kept.value)["calendars"] == 7, "what others keep there stays"
    until(lambda: len(place.fires(hourly)) == 1 and place.skips(hourly), 10, "what was due, by its misfire policy")
    until(lambda: other in {m.run for m in node.messages()}, 10, "the other to go")


def test_what_is_too_large_for_a_message_is_refused_and_large_ones_go_few_at_a_time(place: Stage) -> None:
    node = place.node("n1")
    small = place.publish(overlap="allow")
    run = ids.fresh_run_id(small.id, 1)
    request = Request("run", run=run, job=small.id, name=small.name, generation=1, params={"x": '"' * 120_000})
    place.request(request)
    big = place.publish(overlap="allow", params={"x": "y" * 20_000})
    runs = {place.ask(big).run for _ in range(30)}
    until(lambda: {m.run for m in node.messages()} == runs, 15, "the large ones")
    out = until(lambda: place.outs().get((run, "end")), 10, "the refusal")
    assert out.kind == Kind.REFUSED and "too large" in out.reason


def test_a_run_id_that_is_part_of_no_key_of_ours_is_set_aside(place: Stage) -> None:
    place.node("n1")
    job = place.publish(overlap="allow")
    base = f"{job.id}.1."
    for suffix in ("m1/2", "m1/end", "M1", "m1 ", "m.x", "m\n"):
        place.request(Request("run", run=base + suffix, job=job.id, name=job.name, generation=1))
        place.request(Request("cancel", run=base + suffix, job=job.id))
    place.request(
        Request("run", run=base + "m.1", job=job.id, name=job.name, generation=1)
    )  # a part is asked for by none
    place.request(Request("cancel", run=["x"], job=job.id))  # type: ignore[arg-type]
    place.request(Request("cancel"))
    place.request(Request("run", run=base + "m1", job=["x"]))  # type: ignore[arg-type]
    until(lambda: not place.requests(), 10, "the inbox to be empty")
    assert place.client.count(f"{place.keys.root}dead/in/") == 16
    assert not place.messages() and not place.outs() and not place.waits()


def test_the_rest_of_a_fire_all_that_became_too_large_leaves_a_record(place: Stage) -> None:
    place.node("n1")
    narrow(place.centres[0], 200 * 1024)
    job = place.publish({"action": {"kind": "shell", "script": '"' * 30_000}}, overlap="allow")
    rest = Backfill(ids.backfill_id(), job.id, job.name, 1, "schedule", fires=[1_700_000_000, 1_700_000_060])
    place.client.put(place.keys.backfill(rest.id), rest.encode())
    until(lambda: place.skips(job), 10, "it to be given up")
    assert place.client.count(place.keys.backfill("")) == 0
    (skip,) = place.skips(job)
    assert (skip.reason, skip.count, skip.to_at) == ("error", 2, 1_700_000_060) and "too large" in skip.detail


def test_an_outcome_names_the_key_it_was_asked_for_with(place: Stage) -> None:
    node = place.node("n1")
    run = place.ask(place.publish(), idempotency="invoice 7").run
    until(node.messages, 10, "the run")
    node.run_all()
    assert place.outs()[run, "1"].idem == "invoice 7"
