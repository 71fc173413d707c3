"""`crony.enqueue_many`: many requests in few transactions, each request once, and a plain word about the rest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import crony
from crony import face
from crony.domain import ids
from crony.domain.livejob import LiveJob
from crony.domain.run import Request
from crony.domain.signing import Sealer, new_key
from crony.errors import Conflict, Invalid, NotFound, Unavailable
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.lifecycle.publish import publish
from tests.helpers.etcd import EtcdServer
from tests.helpers.proxy import Proxy
from tests.integration.transport_helpers import answer_lost

JOBS = "tests.helpers.jobs"


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch, etcd: EtcdServer, keys: Keys) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("CRONY_") and not name.startswith("CRONY_TEST_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CRONY_ETCD_ENDPOINTS", etcd.endpoint)
    monkeypatch.setenv("CRONY_ETCD_TIMEOUT", "1.5")
    monkeypatch.setenv("CRONY_NAMESPACE", keys.namespace)
    monkeypatch.setenv("CRONY_IMPORTS", JOBS)
    monkeypatch.setattr(face, "_made", None)
    yield
    if face._made is not None:
        face._made.client.close()


@pytest.fixture(autouse=True)
def job(client: Client, keys: Keys) -> str:
    """A published job `report/daily`; its id."""
    document = {"name": "report/daily", "action": {"kind": "shell", "command": ["true"]}}
    live = LiveJob(ids.job_id(), "report/daily", 3, 1, document=document)
    publish(client, keys, Sealer(new_key()[0]), live)
    return live.id


@pytest.fixture
def line(etcd: EtcdServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with Proxy(etcd.endpoint) as line:
        monkeypatch.setenv("CRONY_ETCD_ENDPOINTS", line.endpoint)
        yield line


def asked(client: Client, keys: Keys) -> list[Request]:
    return [Request.read(kv.value) for kv in client.list(keys.run_in("")).kvs]


def regions(count: int, **options: Any) -> list[crony.Ask]:
    return [crony.Ask("report/daily", region=number, **options) for number in range(count)]


def test_many_requests_are_few_transactions_in_order(client: Client, keys: Keys, job: str) -> None:
    runs = crony.enqueue_many(regions(250))
    assert len({kv.mod for kv in client.list(keys.run_in("")).kvs}) == 3
    requests = {request.run: request for request in asked(client, keys)}
    assert [requests[run.id].params for run in runs] == [{"region": number} for number in range(250)]
    assert all(run.created for run in runs) and runs[17].state == "requested"
    assert {(request.job, request.generation, request.trigger) for request in requests.values()} == {
        (job, 3, "enqueue")
    }


def test_each_has_its_own_options(client: Client, keys: Keys) -> None:
    runs = crony.enqueue_many(
        [
            crony.Ask("report/daily", priority=7, delay="5m", params={"timeout": 1}, timeout=60),
            crony.Ask(f"task:{JOBS}.add", 1, b=2, labels={"zone": "a"}, retries=2),
            crony.Ask("report/daily"),
        ]
    )
    first, second, third = (next(each for each in asked(client, keys) if each.run == run.id) for run in runs)
    assert (first.priority, first.params, first.timeout, first.not_before_at > 0) == (7, {"timeout": 1}, 60.0, True)
    assert (second.args, second.params, second.labels, second.retries) == ([1], {"b": 2}, {"zone": "a"}, 2)
    assert (third.priority, third.params, third.not_before_at) == (None, {}, 0.0)
    assert crony.enqueue_many([]) == []


def test_keys_stand_for_their_runs(client: Client, keys: Keys) -> None:
    taken = crony.enqueue("report/daily", idempotency_key="1")
    wanted = [crony.Ask("report/daily", n=n, idempotency_key=str(n)) for n in range(60)]
    runs = crony.enqueue_many(wanted)
    assert [run.created for run in runs] == [n != 1 for n in range(60)] and runs[1] == taken
    again = crony.enqueue_many(wanted)
    assert again == runs and not any(run.created for run in again)
    assert len(asked(client, keys)) == 60
    assert crony.enqueue("report/daily", idempotency_key="59") == runs[59]
    replaced = crony.enqueue_many([crony.Ask("report/daily", idempotency_key="5", on_conflict="replace")])
    assert replaced[0].created and replaced[0] != runs[5]
    assert [each.run for each in asked(client, keys) if each.kind == "cancel"] == [runs[5].id]


@pytest.mark.parametrize(
    ("bad", "error", "said"),
    [
        (lambda: crony.Ask("report/daily", 1), Invalid, r"requests\[2\]\.args"),
        (lambda: crony.Ask("report/daily", x=object()), Invalid, r"requests\[2\]\.params"),
        (lambda: crony.Ask("report/daily", x="x" * 60_000), Invalid, r"requests\[2\]\.params.*larger"),
        (lambda: crony.Ask("report/daily", priority=10), Invalid, r"requests\[2\]\.priority"),
        (lambda: crony.Ask("report/daily", on_conflict="error"), Invalid, r"requests\[2\]\.on_conflict"),
        (
            lambda: crony.Ask("report/daily", idempotency_key="1"),
            Invalid,
            r"requests\[2\].idempotency_key.*requests\[1\]",
        ),
        (lambda: crony.Ask("report/dayly"), NotFound, r"requests\[2\].*did you mean 'report/daily'"),
        (lambda: crony.Ask("report/daily", idempotency_key="taken", on_conflict="error"), Conflict, r"requests\[2\]"),
        (lambda: "report/daily", Invalid, r"requests\[2\]: must be a crony.Ask"),
    ],
)
def test_one_that_is_wrong_stops_all_before_anything_is_written(
    client: Client, keys: Keys, bad: Any, error: type[Exception], said: str
) -> None:
    crony.enqueue("report/daily", idempotency_key="taken")
    good = [crony.Ask("report/daily", idempotency_key=key) for key in ("0", "1")]
    with pytest.raises(error, match=said):
        crony.enqueue_many([*good, bad(), crony.Ask("report/daily")])
    assert len(asked(client, keys)) == 1


def test_too_many_are_refused() -> None:
    with pytest.raises(Invalid, match="more than 10000"):
        crony.enqueue_many(crony.Ask("report/daily") for _ in range(10_001))


def test_a_lost_answer_doubles_nothing_though_the_leader_was_faster(client: Client, keys: Keys) -> None:
    crony.enqueue("report/daily")
    with answer_lost(face._link().client, lambda: client.delete_prefix(keys.run_in(""))):
        runs = crony.enqueue_many(regions(20))
    assert len(runs) == 20 and all(run.created for run in runs)
    assert asked(client, keys) == []


def test_a_lost_answer_on_the_line_doubles_nothing(client: Client, keys: Keys, line: Proxy) -> None:
    crony.enqueue("report/daily")
    line.lose_answer(b"/v3/kv/txn")
    runs = crony.enqueue_many(regions(20))
    assert line.lost == 1 and len(asked(client, keys)) == 1 + len(runs)


def test_what_was_placed_before_the_line_broke_is_told(
    client: Client, keys: Keys, line: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    crony.enqueue("report/daily")
    link = face._link()
    through, count = link.client.txn, 0

    def second_is_lost(txn: Any, **options: Any) -> Any:
        nonlocal count
        count += not txn.read_only
        if count == 2:
            line.cut()
        return through(txn, **options)

    monkeypatch.setattr(link.client, "txn", second_is_lost)
    with pytest.raises(face.PartlyEnqueued, match="99 of 250") as partly:
        crony.enqueue_many(regions(250))
    placed = {request.run for request in asked(client, keys)}
    runs = partly.value.runs
    assert {run.id for run in runs if run is not None} == placed & {run.id for run in runs[:99] if run is not None}
    assert [run is None for run in runs] == [False] * 99 + [True] * 151
    assert partly.value.uncertain == []
    with pytest.raises(Unavailable):
        crony.enqueue_many(regions(5))


def test_what_is_not_certain_is_told(client: Client, keys: Keys) -> None:
    crony.enqueue("report/daily")
    taken = client.delete_prefix
    with (
        answer_lost(face._link().client, lambda: taken(keys.run_in("")), 1),
        pytest.raises(face.PartlyEnqueued, match=r"0 of 120 .* of 99 it is not certain") as partly,
    ):
        crony.enqueue_many(regions(120))
    assert partly.value.uncertain == list(range(99))
    assert asked(client, keys) == []


def test_eight_callers_with_the_same_keys(client: Client, keys: Keys) -> None:
    wanted = [crony.Ask("report/daily", idempotency_key=str(n)) for n in range(70)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: crony.enqueue_many(wanted), range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert [sum(answer[n].created for answer in answers) for n in range(70)] == [1] * 70
    assert {request.run for request in asked(client, keys)} == {run.id for run in answers[0]}
