"""Flower, unchanged, over the transport: pages, API and metrics of a live one, before and after an outage of etcd."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from crony.etcd.keys import Keys
from crony.transport_etcd import link
from tests.helpers.etcd import EtcdServer, free_ports
from tests.helpers.wait import until
from tests.integration.transport_helpers import ROOT, Worker, application, connected, put, workers

SIGN_IN = ("somebody", "sesame")
COLUMNS = {"name", "messages", "messages_ready", "messages_unacknowledged", "consumers", "idle_since"}


@pytest.fixture(autouse=True)
def _no_links_left() -> Iterator[None]:
    yield
    link.shut()


class Flower:
    """`celery flower` as a process of its own, and its answers."""

    def __init__(self, environment: dict[str, str], log: Path, *start: str) -> None:
        """`start`: the command line before Flower's own options."""
        (port,) = free_ports(1)
        self.base, self.log = f"http://127.0.0.1:{port}", log
        command = [sys.executable, "-m", *start, f"--port={port}", "--inspect_timeout=3000"]
        environment = {**environment, "FLOWER_BASIC_AUTH": ":".join(SIGN_IN)}
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL
            )

    def get(self, path: str) -> requests.Response | None:
        """The answer, if it is a good one."""
        try:
            found = requests.get(self.base + path, timeout=10, auth=SIGN_IN)
        except requests.RequestException:
            return None
        return found if found.status_code == 200 else None

    def json(self, path: str) -> Any:
        """The answer as data; None if there is none."""
        found = self.get(path)
        return found.json() if found is not None else None

    def order(self, path: str, **form: Any) -> str:
        """Ask for something to be done; what Flower says of it."""
        answer = requests.post(self.base + path, data=form, timeout=15, auth=SIGN_IN)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return answer.text

    def __enter__(self) -> Flower:
        """Waits until it answers."""
        try:
            until(lambda: self.get("/") or self._ended(), 60, f"Flower answers (see {self.log})")
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def _ended(self) -> bool:
        assert self.process.poll() is None, f"Flower ended: {self.log.read_text()[-3000:]}"
        return False

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Kills it; shows its log if the test failed."""
        self.process.kill()
        self.process.wait(10)
        if error is not None:
            print(self.log.read_text()[-4000:])


def queue(flower: Flower, name: str = "celery") -> dict[str, Any]:
    """A row of `/api/queues/length`."""
    rows = (flower.json("/api/queues/length") or {}).get("active_queues", [])
    return next((row for row in rows if row["name"] == name), {})


def online(flower: Flower, name: str) -> bool:
    """What `/metrics` says of a worker."""
    found = flower.get("/metrics")
    return found is not None and f'flower_worker_online{{worker="{name}"}} 1.0' in found.text


def test_flower_shows_and_steers_everything(own_etcd: EtcdServer, keys: Keys, tmp_path: Path) -> None:
    app, gate = application(own_etcd, keys), tmp_path / "gate"
    pair = [
        Worker(own_etcd, keys, tmp_path, "threads", name="a", events="1", ttl=20),
        Worker(own_etcd, keys, tmp_path, "prefork", name="b", events="1", ttl=20, concurrency=1),
    ]
    start = ("celery", "-A", "tests.integration.transport_app", "flower")
    flower = Flower(pair[0].environment, tmp_path / "flower.log", *start)
    with flower, workers(*pair) as (first, second):

        def seen() -> Any:
            found = flower.json("/api/workers?refresh=1") or {}
            return found if found.keys() == {"a@test", "b@test"} and all(map(bool, found.values())) else None

        found = until(seen, 30, "both workers are listed")
        assert found["a@test"]["stats"]["broker"]["transport"] == "etcd3"

        for number in range(20):
            app.send_task("judge.note", (str(number),))
        first.saw(*map(str, range(20)))

        def states() -> list[str]:
            return [task["state"] for task in (flower.json("/api/tasks") or {}).values()]

        until(lambda: states() == ["SUCCESS"] * 20, 20, "all tasks are seen to succeed")

        with connected(own_etcd, keys) as connection:
            put(connection, "side", *range(3))
        for each in (first, second):
            assert "new worker" not in flower.order(f"/api/worker/queue/add-consumer/{each.name}@test", queue="calm")
        app.send_task("judge.hold", ("h", str(gate)), queue="calm")
        first.saw("start h 1")
        until(seen, 20, "the new queue is known")
        until(lambda: queue(flower, "calm").get("messages_unacknowledged") == 1, 10, "it is held")
        held = queue(flower, "calm")
        assert held.keys() == COLUMNS
        assert (held["messages"], held["messages_ready"], held["idle_since"]) == (1, 0, None)
        assert held["consumers"] == 2
        gate.touch()
        until(lambda: queue(flower, "calm").get("messages") == 0, 10, "it is done")
        rest = queue(flower, "calm")["idle_since"]
        assert rest and queue(flower, "calm")["idle_since"] == rest
        page = flower.get("/broker")
        assert (
            page is not None and 'id="calm"' in page.text and f"127.0.0.1:{own_etcd.port}/{keys.namespace}" in page.text
        )
        assert "side" not in page.text  # nobody consumes it, so Flower does not ask

        flower.order("/api/worker/pool/grow/b@test", n=1)
        flower.order("/api/worker/pool/shrink/b@test", n=1)
        flower.order("/api/worker/queue/cancel-consumer/a@test", queue="calm")
        flower.order("/api/task/rate-limit/judge.note", workername="a@test", ratelimit="100/s")
        late = app.send_task("judge.note", ("never",), countdown=30)
        flower.order(f"/api/task/revoke/{late.id}", terminate="false")
        until(lambda: all(b"revoked" in each.log.read_bytes() for each in pair), 15, "the order reached both")

        own_etcd.kill()
        own_etcd.start()
        app.send_task("judge.note", ("after",))
        first.saw("after")
        until(lambda: states().count("SUCCESS") >= 22, 40, "Flower hears events after etcd's restart")
        until(lambda: queue(flower).get("messages") in (0, 1), 10, "and reads queues")

        assert online(flower, "a@test") and online(flower, "b@test")
        flower.order("/api/worker/shutdown/b@test")
        assert second.wait(30) == 0
        until(lambda: not online(flower, "b@test") and online(flower, "a@test"), 20, "the gauge drops")


def test_the_password_is_not_on_the_page(etcd: EtcdServer, keys: Keys, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CRONY_", "CELERY_"))}
    environment |= {
        "PYTHONPATH": str(ROOT),
        "CRONY_ETCD_ENDPOINTS": f"http://127.0.0.1:{urlsplit(etcd.endpoint).port}",
        "CRONY_ETCD_USER": "somebody",
        "CRONY_ETCD_PASSWORD": "hunter22",
        "CRONY_NAMESPACE": keys.namespace,
    }
    with Flower(environment, tmp_path / "flower.log", "crony", "flower") as flower:
        page = until(lambda: flower.get("/broker"), 20, "the page of an etcd without sign-in")
        assert "somebody:**@" in page.text
        assert "hunter22" not in page.text + flower.log.read_text()
