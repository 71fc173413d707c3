"""Waiting runs: retries, elsewhere, final ends, parked envelopes that nobody trusted signed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from crony.domain.outcome import Kind
from crony.domain.signing import Sealer, new_key
from crony.etcd.keys import Keys
from crony.lifecycle.enqueue import cancel
from tests.helpers.beat import Stage, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until


@pytest.fixture
def place(etcd: EtcdServer, keys: Keys) -> Iterator[Stage]:
    with stage(etcd.endpoint, keys) as made:
        made.lead()
        yield made


RETRY = {"max": 2, "delay": "1s", "jitter": False, "backoff": "fixed"}


def test_a_failed_attempt_is_tried_elsewhere_after_its_delay(place: Stage) -> None:
    nodes = [place.node("n1"), place.node("n2")]
    job = place.publish(retry=RETRY, enabled=False)
    run = place.ask(job).run
    first = until(place.messages, 10, "attempt 1")[0]
    node = next(n for n in nodes if n.queue == first.queue)
    ended = time.time()
    node.end(first, node.claim(first), Kind.FAILED)
    second = until(place.messages, 10, "attempt 2")[0]
    assert time.time() - ended > 0.7, "after the delay"
    assert second.envelope.attempt == 2 and second.queue != first.queue and "avoided" in second.envelope.why
    other = next(n for n in nodes if n.queue == second.queue)
    other.end(second, other.claim(second), Kind.TIMED_OUT)
    third = until(place.messages, 10, "attempt 3, anywhere")[0]
    last = next(n for n in nodes if n.queue == third.queue)
    last.end(third, last.claim(third), Kind.FAILED)
    until(lambda: place.outs().get((run, "3")), 10, "the last outcome")
    assert place.outs()[run, "3"].final and not place.waits() and not place.messages()
    assert [place.outs()[run, str(n)].final for n in (1, 2)] == [False, False]


def test_a_callee_that_asks_to_be_left_alone_is(place: Stage) -> None:
    node = place.node("n1")
    runs = [
        place.ask(place.publish(retry={**RETRY, "delay": "0s", "max_delay": "3s"}, enabled=False)).run for _ in "ab"
    ]
    until(lambda: len(place.messages()) == 2, 10, "both")
    first = {each.envelope.run: each for each in place.messages()}
    ended = time.time()
    node.end(first[runs[0]], node.claim(first[runs[0]]), Kind.FAILED, retry_after=2.0)
    node.end(first[runs[1]], node.claim(first[runs[1]]), Kind.FAILED, retry_after=1000.0)
    again: dict[str, float] = {}

    def both() -> bool:
        now = time.time() - ended
        again.update({m.envelope.run: again.get(m.envelope.run, now) for m in place.messages()})
        return len(again) == 2

    until(both, 15, "the further attempts")
    assert 1.7 < again[runs[0]] < again[runs[1]], again
    assert again[runs[1]] > 2.7, "`max_delay` is the most"


def test_a_deleted_job_ends_its_waiting_runs(place: Stage) -> None:
    node = place.node("n1")
    job = place.publish(retry={**RETRY, "delay": "60s"})
    run = place.ask(job).run
    until(node.messages, 10, "attempt 1")
    node.run_all(Kind.FAILED)
    assert run in place.waits()
    lost = place.publish(routing={"node": "nobody"})
    stuck = place.ask(lost).run
    until(lambda: stuck in place.waits(), 10, "the other to wait")
    place.delete(lost)
    place.node("nobody")
    out = until(lambda: place.outs().get((stuck, "end")), 10, "its end")
    assert out.kind == Kind.CANCELLED and "deleted" in out.reason and out.final
    cancel(place.client, place.keys, run)
    out = until(lambda: place.outs().get((run, "2")), 10, "the cancelled retry")
    assert out.kind == Kind.CANCELLED and out.attempt == 2 and not place.waits()


def test_only_envelopes_that_a_centre_sealed_are_released(place: Stage) -> None:
    place.node("n1")
    job = place.publish(routing={"node": "n2"})
    run = place.ask(job).run
    wait = until(lambda: place.waits().get(run), 10, "it to wait")
    (kv,) = place.client.list(place.keys.run_wait("")).kvs
    forged = Sealer(new_key()[0]).seal({**replace(node_envelope(wait.envelope), node="n1").payload()}).decode()
    place.client.put(kv.key, replace(wait, envelope=forged).encode())
    out = until(lambda: place.outs().get((run, "end")), 10, "its end")
    assert out.kind == Kind.REFUSED and "not signed" in out.reason and not place.messages() and not place.waits()


def node_envelope(sealed: str):  # type: ignore[no-untyped-def]
    from crony.domain.run import Envelope
    from crony.domain.signing import peek

    return Envelope.read(peek(sealed))


def test_a_cancel_ordered_while_it_ran_stops_the_retry(place: Stage) -> None:
    node = place.node("n1")
    run = place.ask(place.publish(retry=RETRY)).run
    message = until(node.messages, 10, "attempt 1")[0]
    fence = node.claim(message)
    cancel(place.client, place.keys, run)
    until(lambda: place.client.get(place.keys.cmd("n1", run)), 10, "the order")
    node.end(message, fence, Kind.FAILED)
    out = until(lambda: place.outs().get((run, "end")), 10, "its end")
    assert out.kind == Kind.CANCELLED and place.client.count(f"{place.keys.root}cmd/") == 0


def test_a_wait_that_says_nonsense_does_not_stop_the_others(place: Stage) -> None:
    job = place.publish(overlap="allow", routing={"node": "n1"})
    runs = [place.ask(job).run for _ in range(16)]
    waits = until(lambda: len(found := place.waits()) == 16 and found, 10, "them to wait")
    odd = ("soon", [1], {"x": 1}, True, float("nan"), float("inf"), 10**400)
    changes = [{"due_at": value} for value in odd] + [{"since_at": value, "reason": "ended"} for value in odd]
    for run, change in zip(runs, changes, strict=False):
        place.client.put(place.keys.run_wait(run), replace(waits[run], **change).encode())  # type: ignore[arg-type]
    node = place.node("n1")
    until(lambda: {m.run for m in node.messages()} == set(runs), 10, "all to be released")


def test_a_parked_run_too_large_for_a_message_is_ended(place: Stage) -> None:
    job = place.publish(overlap="allow", routing={"node": "n1"})
    run, other = place.ask(job).run, place.ask(job).run
    wait = until(lambda: len(place.waits()) == 2 and place.waits()[run], 10, "them to wait")
    big = replace(node_envelope(wait.envelope), params={"x": "y" * 600_000})
    sealed = Sealer(place.settings.signing_key).seal(big.payload()).decode()
    place.client.put(place.keys.run_wait(run), replace(wait, envelope=sealed).encode())
    node = place.node("n1")
    out = until(lambda: place.outs().get((run, "end")), 10, "its end")
    assert out.kind == Kind.REFUSED and "too large" in out.reason and run not in place.waits()
    until(lambda: [m.run for m in node.messages()] == [other], 10, "the other")
