"""The Celery app that the transport's tests run in real workers: tasks that record what they did."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import threading
import time
from typing import Any

from celery import Celery
from celery.worker.control import inspect_command

import crony.transport_etcd  # noqa: F401  # registers the scheme

faulthandler.register(signal.SIGVTALRM)  # a test that waits too long asks where it hangs

app = Celery("judge", broker=os.environ["JUDGE_BROKER"])
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        "session_ttl": float(os.environ.get("JUDGE_TTL", "3")),
        "eta_in_etcd": float(os.environ.get("JUDGE_ETA", "60")),
        "delivery_limit": int(os.environ.get("JUDGE_DELIVERY_LIMIT", "20")),
    },
    task_ignore_result=True,
    worker_prefetch_multiplier=int(os.environ.get("JUDGE_MULTIPLIER", "1")),
    worker_send_task_events=os.environ.get("JUDGE_EVENTS") == "1",
    task_send_sent_event=os.environ.get("JUDGE_EVENTS") == "1",
)


app.conf.update(json.loads(os.environ.get("JUDGE_CONF", "{}")))


def record(line: str) -> None:
    with open(os.environ["JUDGE_RECORD"], "a", encoding="utf-8") as file:
        file.write(line + "\n")


@app.task(name="judge.note")
def note(word: str) -> str:
    record(word)
    return word


@app.task(name="judge.pass_on")
def pass_on(word: str) -> None:
    """Publishes from where tasks run: a forked child, or a thread."""
    note.delay(word)


@app.task(name="judge.hold", acks_late=True, bind=True)
def hold(self, word: str, until_file: str, seconds: float = 30.0) -> None:  # type: ignore[no-untyped-def]
    """Records its start, waits for a file to appear, records its end."""
    facts = self.request.properties["crony"]
    record(f"start {word} {facts['count']}")
    deadline = time.monotonic() + seconds
    while not os.path.exists(until_file) and time.monotonic() < deadline:
        time.sleep(0.02)
    record(f"end {word} {facts['count']}")


@app.task(name="judge.answer", ignore_result=False)
def answer(word: str) -> list[Any]:
    """What was asked, and by which process it was done."""
    return [word, os.getpid()]


@app.task(name="judge.sleep", acks_late=True, ignore_result=False)
def sleep(word: str, seconds: float) -> None:
    """Takes its time, whatever signal comes."""
    record(f"start {word}")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.02)
    record(f"end {word}")


def _die_once(request: Any, word: str) -> None:
    count = request.properties["crony"]["count"]
    record(f"try {word} {count} {request.delivery_info['redelivered']}")
    if count == 1:
        os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="judge.die_late", acks_late=True, reject_on_worker_lost=True, bind=True)
def die_late(self, word: str) -> None:  # type: ignore[no-untyped-def]
    """Kills its own process when it is delivered for the first time."""
    _die_once(self.request, word)


@app.task(name="judge.die_early", bind=True)
def die_early(self, word: str) -> None:  # type: ignore[no-untyped-def]
    """The same, acknowledged before it began."""
    _die_once(self.request, word)


@inspect_command()
def census(state: Any) -> dict[str, int]:
    """What there is in this worker of everything that can leak."""
    hub = state.consumer.hub
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "readers": len(hub.readers),
        "timers": len(hub.timer._queue),
    }


@app.task(name="judge.killer", acks_late=True, reject_on_worker_lost=True)
def killer(word: str) -> None:
    """Records its start and takes its process with it."""
    record(word)
    os.kill(os.getpid(), signal.SIGKILL)
