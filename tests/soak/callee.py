"""A service whose work is answered later: it accepts, forgets, contradicts itself, overtakes its own acceptance.

What it was asked, what it said and what it was answered is written down: the judge holds that against etcd.
"""

from __future__ import annotations

import hashlib
import threading
import time
from typing import TYPE_CHECKING, Any

import requests

from tests.helpers.service import Asked, service

if TYPE_CHECKING:
    from tests.soak.world import World

WAYS = ("well", "badly", "never", "before", "twice", "heartbeats")
"""What becomes of a call: by the run's id and attempt, so that a seed repeats it."""
PATIENCE = 25.0
"""Seconds for which it repeats a report that got no answer."""


def way_of(run: str, attempt: int) -> str:
    """What it does with a call."""
    return WAYS[hashlib.sha256(f"{run} {attempt}".encode()).digest()[0] % len(WAYS)]


class Callee:
    """Use as a context; `url` is where jobs call it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._service = service(self._answer)
        self._threads: list[threading.Thread] = []
        self.url = ""

    def __enter__(self) -> Callee:
        self.url = self._service.__enter__().url
        return self

    def __exit__(self, *error: Any) -> None:
        self._service.__exit__(None, None, None)

    def _answer(self, asked: Asked) -> tuple[int, dict[str, str], bytes]:
        headers = asked.headers
        run, attempt = headers["x-crony-run"], int(headers["x-crony-attempt"])
        self._world.journal.note("callee", what="called", run=run, attempt=attempt)
        way = way_of(run, attempt)
        work = threading.Thread(target=self._work, args=(headers, run, attempt, way), daemon=True)
        if way == "before":  # it has ended before its node knows that it was accepted
            self._say(headers, run, attempt, "complete", patience=2.0)
        else:
            work.start()
        return 202, {}, b"accepted\n"

    def _work(self, headers: dict[str, str], run: str, attempt: int, way: str) -> None:
        wait = self._world.stopping.wait
        match way:
            case "well":
                wait(0.5)
                self._say(headers, run, attempt, "complete")
            case "badly":
                wait(0.7)
                self._say(headers, run, attempt, "fail", {"reason": "the soak wants it"})
            case "twice":
                wait(0.3)
                for verb in ("complete", "complete", "fail"):
                    self._say(headers, run, attempt, verb, {"reason": "contradicts"} if verb == "fail" else {})
            case "heartbeats":
                for _ in range(3):
                    wait(0.6)
                    self._say(headers, run, attempt, "heartbeat", patience=0.0)
                self._say(headers, run, attempt, "complete")

    def _say(
        self, headers: dict[str, str], run: str, attempt: int, verb: str, body: Any = None, patience: float = PATIENCE
    ) -> None:
        """As the contract says: repeat a report as it was until somebody has answered for good."""
        until = time.monotonic() + patience
        while not self._world.stopping.is_set():
            status, told = 0, {}
            try:
                answer = requests.post(
                    f"{headers['x-crony-callback']}:{verb}", json=body or {}, timeout=5,
                    headers={"Authorization": f"Bearer {headers['x-crony-token']}"},
                )  # fmt: skip
                status = answer.status_code
                told = answer.json() if answer.content else {}
            except (requests.RequestException, ValueError):
                pass
            outcome = told.get("outcome", "") if isinstance(told, dict) else ""
            self._world.journal.note(
                "callee", what="said", run=run, attempt=attempt, verb=verb, status=status, outcome=outcome
            )
            if (status and status not in (429, 500, 503)) or time.monotonic() >= until:
                return
            self._world.stopping.wait(0.3)
