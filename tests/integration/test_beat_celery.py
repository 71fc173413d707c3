"""`celery beat` with a scheduling centre inside: jobs, and plain entries exactly once whoever leads."""

from __future__ import annotations

import configparser
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from crony.beat.celery_beat import CentreScheduler
from crony.beat.plain import Captured, Cursor, Cursors, Moved, commit
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.transport_etcd import link
from crony.transport_etcd.message import decode
from tests.helpers.beat import CENTRE, WEB, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until
from tests.integration.beat_entries import ENTRIES
from tests.integration.transport_helpers import ROOT, connected, url


@pytest.fixture(autouse=True)
def _no_links_left() -> Iterator[None]:
    yield
    link.shut()


def installed(folder: Path) -> Path:
    """The metadata that an installation of this checkout would have, whatever is installed here."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    place = folder / "crony_scheduler-0.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {config['metadata']['name']}\nVersion: 0\n")
    lines = [f"[{group}]\n{entries.strip()}\n" for group, entries in config["options.entry_points"].items()]
    (place / "entry_points.txt").write_text("\n".join(lines))
    return folder


class Beat:
    """`celery beat` as a process of its own."""

    def __init__(self, server: EtcdServer, keys: Keys, folder: Path, name: str, *command: str, **more: str) -> None:
        self.log = folder / f"{name}.log"
        self.name = name
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("CRONY_", "CELERY_"))}
        shim = folder / f"{name}-installed"
        self.environment = {
            **kept,
            "PYTHONPATH": f"{installed(shim)}{os.pathsep}{ROOT}",
            "CRONY_ETCD_ENDPOINTS": server.endpoint,
            "CRONY_NAMESPACE": keys.namespace,
            "CRONY_SIGNING_KEY": CENTRE[0],
            "CRONY_CENTRE_KEYS": CENTRE[1],
            "CRONY_WEB_KEYS": WEB[1],
            "CRONY_LEADER_TTL": "2",
            "CRONY_CENTRE": name,
            "CRONY_STATE_DIR": str(folder / name),
            "JUDGE_BROKER": url(server, keys),
            **more,
        }
        self.command = [sys.executable, "-m", "celery", *command, "-l", "info"]
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Beat:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env=self.environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL
            )
        return self

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def __enter__(self) -> Beat:
        return self.start()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.kill()
        if error is not None:
            print(f"--- {self.log}\n{self.log.read_text()[-5000:]}")


def leader(client: Client, keys: Keys) -> str:
    found = client.get(keys.leader(0))
    return str(json.loads(found.value).get("name", "")) if found else ""


def ticks(client: Client, keys: Keys) -> list[dict[str, Any]]:
    return [decode(kv.value) for kv in client.list(keys.messages("ticks")).kvs]


def cursor(client: Client, keys: Keys, app: str, entry: str) -> dict[str, Any]:
    found = client.get(keys.plain(app, entry))
    return json.loads(found.value) if found else {"count": 0}


def test_entries_are_sent_once_though_leaders_are_killed(
    etcd: EtcdServer, keys: Keys, client: Client, tmp_path: Path
) -> None:
    command = ("-A", "tests.integration.beat_entries", "beat", "-S", "crony")
    client.put(keys.plain("billing", "gone"), b"{}")
    with Beat(etcd, keys, tmp_path, "one", *command) as one, Beat(etcd, keys, tmp_path, "two", *command) as two:
        pair = {"one": one, "two": two}
        for _ in range(2):
            sent = cursor(client, keys, "billing", "tick")["count"]
            until(lambda sent=sent: cursor(client, keys, "billing", "tick")["count"] >= sent + 2, 40, "two more ticks")
            name = until(lambda: leader(client, keys), 20, "somebody leads")
            pair[name].kill()
            pair[name].start()
        sent = cursor(client, keys, "billing", "tick")["count"]
        until(lambda: cursor(client, keys, "billing", "tick")["count"] >= sent + 2, 40, "the last leader sends too")
        for each in pair.values():
            each.kill()
    found = ticks(client, keys)
    assert len(found) == cursor(client, keys, "billing", "tick")["count"], "one message for each step of the cursor"
    assert len({message["headers"]["id"] for message in found}) == len(found)
    assert {message["headers"]["task"] for message in found} == {"billing.tick"}
    assert {message["properties"]["priority"] for message in found} == {4}
    assert cursor(client, keys, "billing", "never")["count"] == 0 and client.count(keys.messages("celery")) == 0
    assert cursor(client, keys, "billing", "huge")["count"] == 0
    assert b"entry huge cannot be sent" in one.log.read_bytes() + two.log.read_bytes(), "and it holds up nobody"
    assert client.get(keys.plain("billing", "gone")) is None, "an entry that was removed from the schedule"


def test_celery_beat_of_crony_is_the_scheduling_centre(
    etcd: EtcdServer, keys: Keys, client: Client, tmp_path: Path
) -> None:
    beat = Beat(etcd, keys, tmp_path, "one", "-A", "crony", "beat", CRONY_IMPORTS="tests.integration.beat_entries")
    with stage(etcd.endpoint, keys) as scene, beat:
        node = scene.node("n1")
        scene.publish(schedule={"every": "1s"})
        until(node.messages, 40, "a job is fired")
        until(lambda: ticks(client, keys), 20, "a plain entry is sent")
        assert leader(client, keys) == "one"
        assert beat.process is not None
        beat.process.send_signal(signal.SIGTERM)
        assert beat.process.wait(15) == 0
        assert client.get(keys.leader(0)) is None, "it gave the lead back"
    assert b"Traceback" not in beat.log.read_bytes()


@pytest.mark.parametrize(
    ("broker", "wanted"),
    [("", "CRONY_SIGNING_KEY"), ("memory://", "broker_url"), ("etcd3://127.0.0.1:1/x", "CRONY_ETCD_ENDPOINTS")],
)
def test_beat_says_what_is_missing(
    etcd: EtcdServer, keys: Keys, monkeypatch: pytest.MonkeyPatch, broker: str, wanted: str
) -> None:
    app = Celery("billing", broker=broker or url(etcd, keys), set_as_current=False)
    app.conf.beat_schedule = ENTRIES
    monkeypatch.setenv("CRONY_ETCD_ENDPOINTS", etcd.endpoint)
    monkeypatch.setenv("CRONY_SIGNING_KEY", CENTRE[0] if broker else "")
    with pytest.raises(SystemExit, match=wanted):
        CentreScheduler(app)
    assert "plain entries" in CentreScheduler(app, lazy=True).info  # only looked at: nothing starts


@pytest.mark.parametrize(("backend", "more"), [("", set()), ("db+sqlite://", {"celery.backend_cleanup"})])
def test_expired_results_are_removed_where_there_are_results(backend: str, more: set[str]) -> None:
    app = Celery("billing", broker="memory://", backend=backend or None, set_as_current=False)
    app.conf.beat_schedule = ENTRIES
    scheduler = CentreScheduler(app, lazy=True)
    scheduler.setup_schedule()
    assert scheduler.schedule.keys() == ENTRIES.keys() | more


@pytest.mark.parametrize("exchange", ["", "topic", "fanout"])
def test_a_message_and_its_cursor_are_one(etcd: EtcdServer, keys: Keys, client: Client, exchange: str) -> None:
    with stage(etcd.endpoint, keys, state_dir="") as scene, connected(etcd, keys) as connection:
        running = scene.lead()
        channel = connection.default_channel
        if exchange:
            channel.exchange_declare(exchange, exchange)
            for queue in ("ticks", "copy"):
                channel.queue_declare(queue, durable=True)
                channel.queue_bind(queue, exchange, "a.#")
        leading = until(lambda: running.centre.leader, 10, "it leads")
        key = Cursors(client, keys, "app").key("e")

        def send(seen: int, number: int) -> int:
            captured = Captured()
            message = channel.prepare_message(b"[]", headers={"id": str(number)}, properties={"delivery_mode": 2})
            captured.basic_publish(message, exchange, "a.b" if exchange else "ticks")
            return commit(leading, key, seen, Cursor(datetime.now(UTC), number), captured, channel)

        first = send(0, 1)
        with pytest.raises(Moved):
            send(0, 1)  # another leader's view
        send(first, 2)
        assert [message["headers"]["id"] for message in ticks(client, keys)] == ["1", "2"]
        assert client.count(keys.messages("copy")) == (2 if exchange else 0)
        client.delete(keys.leader(0))
        with pytest.raises(Moved):
            send(client.get(key).mod, 3)  # type: ignore[union-attr]
        assert len(ticks(client, keys)) == 2


def test_an_entry_waits_for_etcd_and_is_not_lost(own_etcd: EtcdServer, keys: Keys, tmp_path: Path) -> None:
    command = ("-A", "tests.integration.beat_entries", "beat", "-S", "crony")
    with Beat(own_etcd, keys, tmp_path, "one", *command) as beat, Client([own_etcd.endpoint], timeout=1) as client:
        until(lambda: ticks(client, keys), 40, "a tick")
        own_etcd.stop()
        until(lambda: b"wait" in beat.log.read_bytes() or b"campaign" in beat.log.read_bytes(), 20, "it notices")
        own_etcd.start()
        sent = cursor(client, keys, "billing", "tick")["count"]
        until(lambda: cursor(client, keys, "billing", "tick")["count"] >= sent + 2, 40, "it goes on")
        beat.kill()
        assert len(ticks(client, keys)) == cursor(client, keys, "billing", "tick")["count"]
    assert b"beat raised exception" not in beat.log.read_bytes()
