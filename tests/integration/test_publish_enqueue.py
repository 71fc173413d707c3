"""Enqueue (transaction 4) and look: one key, one run, whatever happens on the way; and what is seen of live runs."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from crony.domain import ids
from crony.domain.outcome import Outcome
from crony.domain.run import Claim, Envelope, Request, State, Wait
from crony.domain.signing import Sealer, new_key
from crony.errors import Conflict, Invalid, Unavailable, Unknown
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.lifecycle.enqueue import cancel, submit
from crony.lifecycle.look import live_runs
from crony.transport_etcd import message
from tests.helpers.etcd import EtcdServer
from tests.helpers.proxy import Proxy

JOB = "j1m81s8xkj3qm4nka4921"


def _request(**facts: object) -> Request:
    return replace(Request(kind="run", job=JOB, name="a", generation=2, params={"n": 1}, by="ann"), **facts)  # type: ignore[arg-type]


def _inbox(client: Client, keys: Keys) -> list[Request]:
    return [Request.read(kv.value) for kv in client.list(keys.run_in("")).kvs]


def test_without_a_key_each_call_is_a_run(client: Client, keys: Keys) -> None:
    found = [submit(client, keys, _request()) for _ in range(3)]
    assert all(each.created for each in found)
    assert len({each.run for each in found}) == 3
    assert {request.run for request in _inbox(client, keys)} == {each.run for each in found}
    parts = ids.parse_run_id(found[0].run)
    assert (parts.job, parts.generation, parts.fire) == (JOB, 2, None)
    assert client.count(keys.idem(JOB, "")) == 0


def test_a_key_stands_for_one_run(client: Client, keys: Keys) -> None:
    first = submit(client, keys, _request(), idempotency="order 17")
    again = submit(client, keys, _request(params={"n": 2}), idempotency="order 17")
    assert (first.created, again.created, first.run) == (True, False, again.run)
    (request,) = _inbox(client, keys)
    assert (request.idem, request.params, request.run) == ("order 17", {"n": 1}, first.run)
    assert request.requested_at > 1_700_000_000
    other = submit(client, keys, _request(job="j" + "0" * 20), idempotency="order 17")
    assert other.created  # keys belong to a job


def test_a_key_goes_on_standing_for_a_run_that_has_ended(client: Client, keys: Keys) -> None:
    """Q1: the message was executed and everything of the run is gone; the repeated call must still find it."""
    first = submit(client, keys, _request(), idempotency="k")
    client.delete_prefix(keys.run)
    assert submit(client, keys, _request(), idempotency="k") == replace(first, created=False)


def test_a_key_ends_with_its_window(client: Client, keys: Keys) -> None:
    first = submit(client, keys, _request(), idempotency="k", window=86400)
    (kv,) = client.list(keys.idem(JOB, "")).kvs
    client.put(kv.key, kv.value.replace(b'"until":1', b'"until":0.1'))
    second = submit(client, keys, _request(), idempotency="k")
    assert second.created and second.run != first.run


def test_on_conflict(client: Client, keys: Keys) -> None:
    first = submit(client, keys, _request(), idempotency="k")
    with pytest.raises(Conflict, match=first.run):
        submit(client, keys, _request(), idempotency="k", on_conflict="error")
    second = submit(client, keys, _request(), idempotency="k", on_conflict="replace")
    assert second.created and second.run != first.run
    inbox = _inbox(client, keys)
    assert [request.run for request in inbox if request.kind == "cancel"] == [first.run]
    assert [request.run for request in inbox if request.kind == "run"] == [first.run, second.run]
    assert submit(client, keys, _request(), idempotency="k").run == second.run


def test_eight_threads_and_lost_answers(etcd: EtcdServer, keys: Keys) -> None:
    """Eight callers with few keys over a line that loses answers: each key has exactly one request, known to all."""
    seed = random.randrange(2**32)
    print("seed", seed)
    told: dict[str, set[str]] = {f"key {n}": set() for n in range(12)}
    created: list[str] = []
    with Proxy(etcd.endpoint) as proxy:

        def call(number: int) -> None:
            dice = random.Random(seed + number)
            with Client([proxy.endpoint], timeout=2) as client:
                wanted = list(told) * 2
                dice.shuffle(wanted)
                for key in wanted:
                    if dice.random() < 0.2:
                        proxy.lose_answer(b"/v3/kv/txn")
                    while True:
                        try:
                            found = submit(client, keys, _request(), idempotency=key)
                            break
                        except (Unavailable, Unknown):
                            continue
                    told[key].add(found.run)
                    if found.created:
                        created.append(key)

        with ThreadPoolExecutor(8) as pool:
            for future in [pool.submit(call, number) for number in range(8)]:
                future.result(60)
        assert proxy.lost > 0
    with Client([etcd.endpoint]) as client:
        inbox = _inbox(client, keys)
    assert {key: len(found) for key, found in told.items()} == dict.fromkeys(told, 1)
    assert {request.idem: request.run for request in inbox} == {key: next(iter(found)) for key, found in told.items()}
    assert len(inbox) == 12
    assert len(created) <= 12  # a call that was told "unknown" finds its own run as existing when it repeats


def test_a_lost_answer_without_a_key_is_cleared_up(etcd: EtcdServer, keys: Keys) -> None:
    with Proxy(etcd.endpoint) as proxy, Client([proxy.endpoint], timeout=1) as client:
        submit(client, keys, _request())
        proxy.lose_answer(b"/v3/kv/txn")
        found = submit(client, keys, _request())
        assert found.created and proxy.lost == 1
        assert found.run in {request.run for request in _inbox(client, keys)}


def test_cancel_is_a_request(client: Client, keys: Keys) -> None:
    run = f"{JOB}.1.1790000000"
    ident = cancel(client, keys, run, by="ann", reason="wrong day")
    kv = client.get(keys.run_in(ident))
    assert kv is not None
    request = Request.read(kv.value)
    assert (request.kind, request.run, request.job, request.by, request.reason) == (
        "cancel",
        run,
        JOB,
        "ann",
        "wrong day",
    )
    with pytest.raises(Invalid):
        cancel(client, keys, "nonsense")


@pytest.mark.parametrize(
    ("facts", "options", "field"),
    [
        ({"kind": "cancel"}, {}, "kind"),
        ({"job": ""}, {}, "kind"),
        ({"params": {"x": "y" * 300_000}}, {}, "params"),
        ({}, {"idempotency": ""}, "idempotency_key"),
        ({}, {"idempotency": "k" * 513}, "idempotency_key"),
        ({}, {"idempotency": "k", "on_conflict": "maybe"}, "on_conflict"),
        ({}, {"on_conflict": "replace"}, "on_conflict"),
        ({}, {"idempotency": "k", "window": 0}, "window"),
    ],
)
def test_bad_requests(client: Client, keys: Keys, facts: dict, options: dict, field: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(Invalid) as refused:
        submit(client, keys, _request(**facts), **options)
    assert refused.value.field == field
    assert client.count(keys.root) == 0


# -- look ------------------------------------------------------------------------------------------

SEALER = Sealer(new_key()[0])


def _envelope(run: str, attempt: int = 1, node: str = "n1", **facts: object) -> Envelope:
    return replace(
        Envelope(
            run=run,
            job=run.split(".")[0],
            name="a",
            generation=1,
            revision=4,
            attempt=attempt,
            queue=f"run.{node}",
            incarnation="i1",
            trigger="schedule",
            action={},
            fire_at=50.0,
            requested_at=51.0,
            priority=3,
        ),
        **facts,  # type: ignore[arg-type]
    )


def _queue(client: Client, keys: Keys, run: str, sequence: int, claim: Claim | None, node: str = "n1") -> None:
    sealed = SEALER.seal(_envelope(run, node=node).payload()).decode()
    place = ids.place(3, sequence, run)
    value = message.task_message("crony.run", f"{run}:1", [sealed], {})
    client.put(keys.message(f"run.{node}", place), value)
    if claim is not None:
        client.put(keys.claim(f"run.{node}", place), claim.encode())


def test_look_shows_each_run_where_it_is(client: Client, keys: Keys) -> None:
    other = "j" + "0" * 20
    requested = submit(client, keys, _request(not_before_at=99.0)).run
    cancel(client, keys, requested)
    waiting, queued, released, running = (f"{JOB}.1.{second}" for second in (101, 102, 103, 104))
    sealed = SEALER.seal(_envelope(waiting, 2).payload()).decode()
    client.put(keys.run_wait(waiting), Wait(waiting, sealed, 2, "ended", 77.0, due_at=88.0, detail="soon").encode())
    _queue(client, keys, queued, 1, None)
    _queue(client, keys, released, 2, Claim("", 1))
    _queue(client, keys, running, 3, Claim("i9", 1, node="knoten/ö", at=60.0), node="knoten/ö")
    _queue(client, keys, f"{other}.1.105", 4, None)
    _queue(client, keys, f"{JOB}.1.1040", 5, None)  # its id begins like another's
    ended = Outcome(f"{JOB}.1.106", JOB, "a", 1, 1, 1, "succeeded", True, "schedule", 9.0)
    client.put(keys.out(ended.run, 1), ended.encode())
    client.put(keys.run_wait("garbage"), b"{")
    client.put(keys.message("run.n1", "5garbage"), b"\xff")
    client.put(keys.message("run.n1", ids.place(1, 1, "x")), b'{"v":1}\nnonsense')

    found = {live.run: live for live in live_runs(client, keys)}
    assert {run: live.state for run, live in found.items()} == {
        requested: State.REQUESTED,
        waiting: State.WAITING,
        queued: State.QUEUED,
        released: State.QUEUED,
        running: State.RUNNING,
        f"{other}.1.105": State.QUEUED,
        f"{JOB}.1.1040": State.QUEUED,
    }
    assert (found[requested].due_at, found[requested].attempt, found[requested].name) == (99.0, 1, "a")
    wait = found[waiting]
    assert (wait.attempt, wait.reason, wait.due_at, wait.since_at, wait.detail, wait.node) == (
        3,
        "ended",
        88.0,
        77.0,
        "soon",
        "",
    )
    held = found[running]
    assert (held.node, held.since_at, held.incarnation, held.fire_at, held.priority) == (
        "knoten/ö",
        60.0,
        "i9",
        50.0,
        3,
    )
    assert found[queued].node == "n1"
    assert {live.run for live in live_runs(client, keys, job=other)} == {f"{other}.1.105"}
    assert {live.run for live in live_runs(client, keys, job=JOB)} == set(found) - {f"{other}.1.105"}
    assert [live.run for live in live_runs(client, keys, run=running)] == [running]
    assert live_runs(client, keys, run=ended.run) == []
