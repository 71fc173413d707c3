"""What Celery's own smoke tests ask of a broker, on real workers: how workers end, how their children end, control."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.utils.nodenames import worker_direct

from crony.domain.run import Claim
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.transport_etcd import link
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until
from tests.integration.transport_helpers import Worker, application, connected, workers


@pytest.fixture(autouse=True)
def _no_links_left() -> Iterator[None]:
    yield
    link.shut()


def send(app: Any, task: str, *args: Any, **options: Any) -> Any:
    return app.send_task(f"judge.{task}", args, **options)


def held(client: Client, keys: Keys, queue: str = "celery") -> list[str]:
    """Places of the messages that somebody holds."""
    found = client.list(keys.claims(queue)).kvs
    return [kv.key.removeprefix(keys.claims(queue)) for kv in found if Claim.read(kv.value).incarnation]


def left(etcd: EtcdServer, keys: Keys) -> list[str]:
    """The words of the tasks that can be had at once from the queue, in order."""
    words = []
    with connected(etcd, keys) as connection:
        while (message := connection.default_channel.basic_get("celery")) is not None:
            words.append(message.payload[0][0])
            message.ack()
    return words


# -- how a worker ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_cold_shutdown_gives_back_at_once(
    etcd: EtcdServer, keys: Keys, client: Client, tmp_path: Path, pool: str
) -> None:
    app, gate = application(etcd, keys), tmp_path / "gate"
    with workers(Worker(etcd, keys, tmp_path, pool, concurrency=1, multiplier=3, ttl=60)) as (worker,):
        send(app, "note", "done")
        worker.saw("done")
        until(lambda: client.count(keys.messages("celery")) == 0, what="it is acknowledged")
        for word in "abc":
            send(app, "hold", word, str(gate))
        worker.saw("start a 1")
        worker.signal(signal.SIGQUIT)
        if pool != "prefork":
            gate.touch()  # a thread cannot be ended from outside
        worker.wait(20)
    assert held(client, keys) == []
    ended = [line.split()[1] for line in worker.lines() if line.startswith("end")]
    assert left(etcd, keys) == [word for word in "abc" if word not in ended]
    assert pool != "prefork" or "a" not in ended  # "b": Celery ends no task that it has just put into a child's pipe


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_warm_shutdown_ends_what_runs(
    etcd: EtcdServer, keys: Keys, client: Client, tmp_path: Path, pool: str
) -> None:
    app, gate = application(etcd, keys), tmp_path / "gate"
    with workers(Worker(etcd, keys, tmp_path, pool, concurrency=1, multiplier=3, ttl=60)) as (worker,):
        for word in "abcd":
            send(app, "hold", word, str(gate))
        worker.saw("start a 1")
        worker.signal(signal.SIGTERM)
        gate.touch()
        assert worker.wait(20) == 0
    ended = [line.split()[1] for line in worker.lines() if line.startswith("end")]
    assert "a" in ended and len(ended) == len(set(ended))
    assert left(etcd, keys) == [word for word in "abcd" if word not in ended]


def test_a_soft_shutdown_waits_for_a_while(etcd: EtcdServer, keys: Keys, client: Client, tmp_path: Path) -> None:
    app = application(etcd, keys)
    conf = json.dumps({"worker_soft_shutdown_timeout": 2.0})
    # Nothing prefetched: what already lies in a child's pipe, Celery neither cancels nor gives back.
    with workers(Worker(etcd, keys, tmp_path, "prefork", concurrency=2, ttl=60, conf=conf)) as (worker,):
        send(app, "sleep", "short", 1.0)
        send(app, "sleep", "long", 60.0)
        send(app, "sleep", "unstarted", 60.0)
        worker.saw("start short", "start long")
        worker.signal(signal.SIGQUIT)
        worker.wait(20)
    assert "end short" in worker.lines() and "start unstarted" not in worker.lines()
    assert held(client, keys) == []
    assert sorted(left(etcd, keys)) == ["long", "unstarted"]


def test_what_ends_while_draining_is_acknowledged_before_a_kill(
    etcd: EtcdServer, keys: Keys, client: Client, tmp_path: Path
) -> None:
    # On threads Celery keeps acks back until the last task has ended.
    app, first, second = application(etcd, keys), tmp_path / "first", tmp_path / "second"
    with workers(Worker(etcd, keys, tmp_path, "prefork", concurrency=2, ttl=2)) as (worker,):
        send(app, "hold", "a", str(first))
        send(app, "hold", "b", str(second))
        worker.saw("start a 1", "start b 1")
        worker.signal(signal.SIGTERM)
        until(lambda: b"Warm shutdown" in worker.log.read_bytes(), what="it drains")
        first.touch()
        worker.saw("end a 1")
        until(lambda: client.count(keys.messages("celery")) == 1, 10, "the ack arrives though the loop has ended")
        worker.kill()
    until(lambda: client.count(keys.sessions) == 0, 20, "its lease ends")
    with workers(Worker(etcd, keys, tmp_path, "solo", name="heir")) as (heir,):
        second.touch()
        heir.saw("end b 2")
        until(lambda: client.count(keys.messages("celery")) == 0, 10, "all is done")
    assert "start a 2" not in heir.lines()


# -- how a child ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_children_come_and_go(etcd: EtcdServer, keys: Keys, client: Client, tmp_path: Path, start: str) -> None:
    app = application(etcd, keys)
    app.conf.update(result_backend="rpc://", result_serializer="json")
    conf = {"worker_pool_start_method": start, "worker_direct": True, "result_backend": "rpc://"}
    each, total = (2, 8) if start == "fork" else (3, 6)  # a spawned child takes its time to begin
    arguments = ("--without-mingle", "--max-tasks-per-child", str(each))
    worker = Worker(etcd, keys, tmp_path, "prefork", arguments=arguments, conf=json.dumps(conf), multiplier=2)
    with workers(worker):
        asked = [send(app, "answer", number) for number in range(total)]
        answers = [result.get(timeout=30) for result in asked]
        assert [answer for answer, _ in answers] == list(range(total))
        assert len({pid for _, pid in answers}) >= total // each, "so many tasks a child"
        direct = worker_direct("w@test")
        assert send(app, "answer", "direct", queue=direct).get(timeout=20)[0] == "direct"

        slow = send(app, "sleep", "slow", 60.0, time_limit=1)
        with pytest.raises(Exception, match="TimeLimitExceeded"):
            slow.get(timeout=30)
        send(app, "die_early", "early")
        send(app, "die_late", "late")
        send(app, "pass_on", "from inside")
        worker.saw("try early 1 False", "try late 1 False", "try late 2 True", "from inside", timeout=30)
        until(lambda: client.count(keys.messages("celery")) == 0, 20, "all is acknowledged")
        assert "try early 2 True" not in worker.lines(), "acknowledged early is delivered once"
        assert worker.stop() == 0
    app.backend.result_consumer.stop()
    app.close()


# -- control -------------------------------------------------------------------------------------------


def test_remote_control_of_a_running_worker(etcd: EtcdServer, keys: Keys, client: Client, tmp_path: Path) -> None:
    app, gate = application(etcd, keys), tmp_path / "gate"
    database = f"sqlite:///{tmp_path}/results.db"
    app.conf.update(result_backend=f"db+{database}")
    conf = json.dumps({"result_backend": f"db+{database}"})
    first = Worker(etcd, keys, tmp_path, "prefork", name="a", arguments=("--autoscale", "2,1"), conf=conf)
    with workers(first):
        inspect = app.control.inspect(timeout=3, destination=["a@test"])

        def tell(order: str, **arguments: Any) -> str:
            (reply,) = app.control.broadcast(order, arguments, reply=True, timeout=5, destination=["a@test"], limit=1)
            return str(reply["a@test"])

        assert send(app, "answer", "kept").get(timeout=20)[0] == "kept"
        assert "ok" in tell("add_consumer", queue="more")
        send(app, "note", "from more", queue="more")
        first.saw("from more")
        assert "ok" in tell("cancel_consumer", queue="more")
        send(app, "note", "unheard", queue="more")
        assert "ok" in tell("autoscale", max=3, min=3)
        until(lambda: len(inspect.stats()["a@test"]["pool"]["processes"]) == 3, 15, "three children", every=0.2)
        for word in "abcd":
            send(app, "hold", word, str(gate))
        first.saw("start a 1", "start b 1", "start c 1")
        assert len(held(client, keys)) in (3, 4)
        gate.touch()
        first.saw("end d 1")

        assert "ok" in tell("rate_limit", task_name="judge.note", rate_limit="2/s")
        begun = time.monotonic()
        for word in ("r1", "r2", "r3", "r4"):
            send(app, "note", word)
        first.saw("r4")
        assert time.monotonic() - begun > 1.0
        assert client.count(keys.messages("more")) == 1 and "unheard" not in first.lines()

        app.control.revoke("11111111-2222-3333-4444-555555555555")
        until(lambda: inspect.revoked()["a@test"], 10, "it is revoked", every=0.1)
        # A neighbour that starts now is told of it by the first (mingle).
        with workers(Worker(etcd, keys, tmp_path, "solo", name="b", arguments=("-Q", "other"))) as (second,):
            assert b"sync with 1 nodes" in second.log.read_bytes()
            told = app.control.inspect(timeout=3, destination=["b@test"]).revoked()
            assert told == {"b@test": ["11111111-2222-3333-4444-555555555555"]}
            send(app, "note", "never", queue="other", task_id="11111111-2222-3333-4444-555555555555")
            send(app, "note", "after it", queue="other")
            second.saw("after it")
            assert "never" not in second.lines()


def test_gevent(own_etcd: EtcdServer, keys: Keys, tmp_path: Path) -> None:
    app, gate = application(own_etcd, keys), tmp_path / "gate"
    with workers(Worker(own_etcd, keys, tmp_path, "gevent", concurrency=10, ttl=2)) as (worker,):
        for number in range(10):
            send(app, "hold", str(number), str(gate))
        worker.saw(*(f"start {number} 1" for number in range(10)))
        assert app.control.inspect(timeout=5, destination=["w@test"]).ping()
        gate.touch()
        send(app, "pass_on", "from inside")
        worker.saw(*(f"end {number} 1" for number in range(10)), "from inside")
        own_etcd.stop()
        until(lambda: b"re-establish" in worker.log.read_bytes(), 30, "the loss is noticed")
        own_etcd.start()
        send(app, "note", "after")
        worker.saw("after", timeout=40)
        assert worker.stop() == 0
        with Client([own_etcd.endpoint]) as client:
            assert client.count(keys.messages("celery")) == 0
    assert sorted(worker.lines()) == sorted(set(worker.lines())), "nothing was done twice"
