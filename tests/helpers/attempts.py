"""Attempts for tests of runners: a real process part list, a real spool, no broker."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from crony.domain.run import Envelope
from crony.domain.stamps import Source, only, unpack
from crony.settings import Settings
from crony.workers.attempt import Attempt, Held, Verdict
from crony.workers.process import Process
from crony.workers.spool import parse

INCARNATION = "i0"


def envelope(action: dict[str, Any], **changes: Any) -> Envelope:
    """An envelope of run `j1.1.1700000000`, attempt 1, for queue `run.n1`."""
    facts: dict[str, Any] = {
        "run": "j1.1.1700000000",
        "job": "j1",
        "name": "tests/job",
        "generation": 1,
        "revision": 1,
        "attempt": 1,
        "queue": "run.n1",
        "incarnation": INCARNATION,
        "trigger": "schedule",
        "action": action,
        "fire_at": 1700000000.0,
        "timeout": 20.0,
    }
    return Envelope(**{**facts, **changes})


def process(folder: Path, **changes: Any) -> Process:
    """The parts of a process whose spool lies in `folder`."""
    facts: dict[str, Any] = {
        "node": "n1",
        "api": "http://127.0.0.1:9",
        "shell": True,
        "http_allow": ("loopback",),
        "spool_dir": str(folder / "spool"),
    }
    return Process(Settings(**{**facts, **changes}))


def attempt(parts: Process, action: dict[str, Any], /, **changes: Any) -> Attempt:
    """An attempt under way; its deadline starts now."""
    told = envelope(action, **changes)
    held = Held(told.queue, f"9{0:016x}.{told.run}", 77, INCARNATION)
    return Attempt(told, held, parts.spool.open(told.run, told.attempt, INCARNATION), parts)


def output(parts: Process, source: Source = Source.ANY) -> bytes:
    """Everything in the spool, or what came by one stream."""
    found = b""
    for path in sorted(parts.spool.path.iterdir()):
        if (piece := parse(path.name)) is not None:
            stamps = unpack((parts.spool.path / piece.stamps).read_bytes())
            found += only(path.read_bytes(), stamps, source)
    return found


class Aside:
    """A runner's call in another thread, with its verdict when it is done."""

    def __init__(self, run: Any, target: Attempt) -> None:
        self.verdict: Verdict | None = None
        self._run, self._target = run, target
        self._thread = threading.Thread(target=self._go, daemon=True)
        self._thread.start()

    def _go(self) -> None:
        self.verdict = self._run(self._target)

    def join(self, timeout: float = 60.0) -> Verdict:
        """The verdict. AssertionError when it is not there in time."""
        self._thread.join(timeout)
        assert self.verdict is not None, "the runner did not come back"
        return self.verdict
