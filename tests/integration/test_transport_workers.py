"""Real Celery workers over a real etcd: every pool, remote control, events, and what happens when they die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crony.domain.run import Claim
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.transport_etcd import link
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until
from tests.integration.transport_helpers import ROOT, Worker, application, connected, put, workers


@pytest.fixture(autouse=True)
def _no_links_left() -> Iterator[None]:
    yield
    link.shut()


def send(app: Any, task: str, *args: Any, **options: Any) -> None:
    app.send_task(f"judge.{task}", args, **options)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_worker_of_every_pool(etcd: EtcdServer, keys: Keys, client: Client, tmp_path: Path, pool: str) -> None:
    app = application(etcd, keys)
    with workers(Worker(etcd, keys, tmp_path, pool, arguments=())) as (worker,):
        send(app, "note", "plain")
        send(app, "pass_on", "from inside")
        send(app, "note", "later", countdown=0.3)
        worker.saw("plain", "from inside", "later")
        control = app.control.inspect(timeout=3, destination=["w@test"])
        assert control.ping() == {"w@test": {"ok": "pong"}}
        stats = control.stats()["w@test"]
        assert stats["broker"]["transport"] == "etcd3"
        assert stats["total"] == {"judge.note": 3, "judge.pass_on": 1}
        if pool != "solo":  # its only thread is busy
            gate = tmp_path / "gate"
            send(app, "hold", "h", str(gate))
            worker.saw("start h 1")
            assert [task["name"] for task in control.active()["w@test"]] == ["judge.hold"]
            gate.touch()
            worker.saw("end h 1")
        until(lambda: client.count(keys.queue("celery")) == 0, what="all is acknowledged")
        assert worker.stop() == 0
    until(lambda: client.count(keys.sessions) <= 1, what="its session is gone")
    assert client.get(keys.queue_record("w@test.celery.pidbox")) is None


def test_the_command_line_pings_and_listens_to_events(etcd: EtcdServer, keys: Keys, tmp_path: Path) -> None:
    app = application(etcd, keys)
    with workers(Worker(etcd, keys, tmp_path, "threads", events="1")) as (worker,):
        environment = {**worker.environment, "PYTHONUNBUFFERED": "1"}
        celery = [sys.executable, "-m", "celery", "-A", "tests.integration.transport_app"]
        dump = subprocess.Popen(
            [*celery, "events", "--dump"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        heard: list[str] = []
        assert dump.stdout is not None
        reader = threading.Thread(target=lambda: heard.extend(line.decode() for line in dump.stdout or ()), daemon=True)
        reader.start()
        try:
            until(lambda: any(" heartbeat:" in line for line in heard), 20, "heartbeats are heard")
            ping = subprocess.run(
                [*celery, "inspect", "ping", "-t", "3", "-d", "w@test", "--json"],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                timeout=30,
                check=True,
            )
            assert json.loads(ping.stdout) == {"w@test": {"ok": "pong"}}
            send(app, "note", "seen")
            worker.saw("seen")
            for kind in ("task received", "task started", "task succeeded"):
                until(lambda kind=kind: any(kind in line for line in heard), 10, f"{kind} is heard")
        finally:
            dump.kill()
            dump.wait(10)
            reader.join(10)
            dump.stdout.close()


def test_a_killed_workers_plain_task_is_taken_over(
    etcd: EtcdServer, keys: Keys, client: Client, tmp_path: Path
) -> None:
    app, gate = application(etcd, keys), tmp_path / "gate"
    pair = [Worker(etcd, keys, tmp_path, "threads", name=name, ttl=2) for name in "ab"]
    with workers(*pair) as _:
        send(app, "hold", "h", str(gate))
        pair[0].saw("start h 1")
        (claim,) = client.list(keys.claims("celery")).kvs
        holder = Claim.read(claim.value).incarnation
        for worker in pair:
            if "hold[" in worker.log.read_text():
                worker.kill()
        killed = time.monotonic()
        pair[0].saw("start h 2", timeout=10)
        assert time.monotonic() - killed < 2 + 1 + 4  # TTL, a second's absence, slack
        (taken,) = client.list(keys.claims("celery")).kvs
        assert Claim.read(taken.value).incarnation not in ("", holder)
        gate.touch()
        pair[0].saw("end h 2")
        assert "end h 1" not in pair[0].lines()
        until(lambda: client.count(keys.queue("celery")) == 0, what="acknowledged by the second")


def test_sigterm_finishes_what_runs_and_gives_back_what_does_not(
    etcd: EtcdServer, keys: Keys, client: Client, tmp_path: Path
) -> None:
    app, gate = application(etcd, keys), tmp_path / "gate"
    with workers(Worker(etcd, keys, tmp_path, "threads", concurrency=1, multiplier=4, ttl=30)) as (worker,):
        for word in "abcdef":
            send(app, "hold", word, str(gate))
        worker.saw("start a 1")
        until(lambda: client.count(keys.claims("celery")) == 4, what="it prefetched")
        worker.signal(signal.SIGTERM)
        until(lambda: b"Warm shutdown" in worker.log.read_bytes(), what="it stops")
        gate.touch()
        assert worker.wait() == 0
        assert "end a 1" in worker.lines()
        left = client.count(keys.messages("celery"))
        claims = [Claim.read(kv.value) for kv in client.list(keys.claims("celery")).kvs]
        assert left == 6 - sum(line.startswith("end") for line in worker.lines())
        assert all(claim.incarnation == "" for claim in claims)
        with connected(etcd, keys) as connection:
            found = connection.default_channel.basic_get("celery")
            assert found.payload[0][0] == "bcdef"[5 - left]


def test_a_short_outage_of_etcd_is_not_noticed(own_etcd: EtcdServer, keys: Keys, tmp_path: Path) -> None:
    app, gate = application(own_etcd, keys), tmp_path / "gate"
    with workers(Worker(own_etcd, keys, tmp_path, "threads", ttl=20)) as (worker,):
        send(app, "hold", "h", str(gate))
        worker.saw("start h 1")
        own_etcd.kill()
        own_etcd.start()
        gate.touch()
        worker.saw("end h 1")
        send(app, "note", "after")
        worker.saw("after")
        assert worker.lines().count("start h 1") == 1 and "start h 2" not in worker.lines()
        assert b"Trying to re-establish" not in worker.log.read_bytes()
        assert application(own_etcd, keys).control.inspect(timeout=5, destination=["w@test"]).ping()


def test_an_outage_longer_than_the_lease_ends_in_a_reconnect(
    own_etcd: EtcdServer, keys: Keys, client: Client, tmp_path: Path
) -> None:
    app, gate, second = application(own_etcd, keys), tmp_path / "gate", tmp_path / "second"
    with workers(Worker(own_etcd, keys, tmp_path, "prefork", ttl=2)) as (worker,):
        send(app, "hold", "h", str(gate))
        worker.saw("start h 1")
        own_etcd.stop()
        until(lambda: b"Trying to re-establish" in worker.log.read_bytes(), 15, "the loss is noticed")
        own_etcd.start()
        gate.touch()
        worker.saw("end h 1")
        send(app, "note", "after")
        worker.saw("after", timeout=30)
        for word in "pqrs":
            send(app, "hold", word, str(second))
        worker.saw("start p 1", "start q 1")
        with Client([own_etcd.endpoint]) as back:
            until(lambda: back.count(keys.messages("celery")) == 4, 20, "the others are there")
            assert back.count(keys.claims("celery")) == 2, "the prefetch count holds right after a reconnect"
        second.touch()
        worker.saw("end s 1")
        with Client([own_etcd.endpoint]) as back:
            until(lambda: back.count(keys.queue("celery")) == 0, 20, "the running task was acknowledged all the same")
        assert "start h 2" not in worker.lines()
        assert application(own_etcd, keys).control.inspect(timeout=5, destination=["w@test"]).ping()
        assert worker.stop() == 0


def test_a_message_that_is_no_task_does_not_stop_a_worker(
    etcd: EtcdServer, keys: Keys, client: Client, tmp_path: Path
) -> None:
    app = application(etcd, keys)
    with workers(Worker(etcd, keys, tmp_path, "solo")) as (worker,):
        with connected(etcd, keys) as connection:
            put(connection, "celery", {"what": "is this"})
        client.put(keys.message("celery", "9garbage"), os.urandom(100))
        send(app, "unknown")
        send(app, "note", "alive")
        worker.saw("alive")
        until(lambda: client.count(keys.queue("celery")) == 0, what="nothing is left over")
        assert client.get(keys.letter("celery", "9garbage")) is not None
