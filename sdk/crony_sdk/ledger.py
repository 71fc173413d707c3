"""Which attempts this service has had: the same one twice is done once, and a success is not done again.

The key is what the signature covers, run and attempt, so that a copied call starts nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crony_sdk import forks
from crony_sdk.contract import Call
from crony_sdk.errors import Conflict
from crony_sdk.handlers import Context

log = logging.getLogger("crony_sdk")

REMEMBERED = 10_000
"""Runs of which the end is remembered in memory."""
KEEP = 86400.0
"""Seconds for which a success is remembered in the directory."""
_TIDY_EVERY = 600.0


@dataclass
class Work:
    """One attempt here."""

    call: Call
    context: Context | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    succeeded: bool = False
    result: Any = None
    answer: Any = None
    """What the caller was told, for the same call again."""


class Ledger:
    """Attempts of this process; with a directory, also the successes of its siblings and before a restart."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._works: OrderedDict[str, Work] = OrderedDict()
        self._tidied = 0.0
        if directory is not None:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.after_fork()
        forks.renew_after_fork(self)

    def after_fork(self) -> None:
        """What the parent works on is not known here, what has ended still is."""
        self._lock = threading.Lock()
        self._works = OrderedDict((run, work) for run, work in self._works.items() if work.ended.is_set())

    def enter(self, call: Call, context: Context) -> tuple[Work, str]:
        """The work of this attempt, and what it is: `new`, `same` (this attempt is or was here), or `done` (an earlier
        attempt succeeded). A later attempt tells the earlier one to stop.

        Raises `Conflict` for an attempt that a later one has followed.
        """
        with self._lock:
            known = self._works.get(call.run)
            if known is not None and (call.attempt, call.fence) < (known.call.attempt, known.call.fence):
                raise Conflict(
                    f"attempt {call.attempt} of run {call.run} is over: {known.call.attempt} has been here",
                    attempt=known.call.attempt,
                )
            if known is not None and known.call.attempt == call.attempt:
                return known, "same"
            if known is not None and known.succeeded:
                return known, "done"
            if known is None and (found := self._recall(call)) is not None:
                return found, "done"
            work = Work(call, context)
            self._works[call.run] = work
            self._works.move_to_end(call.run)
            self._forget_old()
        if known is not None and known.context is not None and not known.ended.is_set():
            log.warning("attempt %d of run %s is here, the earlier one should stop", call.attempt, call.run)
            known.context.cancel()
        return work, "new"

    def succeed(self, work: Work, result: Any) -> None:
        """The work is done; `result` is JSON."""
        work.result, work.succeeded = result, True
        if self._directory is not None:
            try:
                self._write(work)
            except OSError as error:
                log.warning("the success of %s cannot be remembered: %s", work.call.run, error.strerror)

    def leave(self, work: Work, answer: Any = None) -> None:
        """The attempt has ended here, and this is what its caller is told."""
        work.answer, work.context = answer, None
        work.ended.set()

    def forget(self, work: Work) -> None:
        """It was not taken after all."""
        with self._lock:
            if self._works.get(work.call.run) is work:
                del self._works[work.call.run]

    def under_way(self) -> list[Work]:
        """Attempts that have not ended."""
        with self._lock:
            return [work for work in self._works.values() if not work.ended.is_set()]

    def _forget_old(self) -> None:
        surplus = len(self._works) - REMEMBERED
        if surplus > 0:
            for run in [run for run, work in self._works.items() if work.ended.is_set()][:surplus]:
                del self._works[run]

    # -- the directory ---------------------------------------------------------------------------

    def _path(self, run: str) -> Path | None:
        name = hashlib.sha256(run.encode()).hexdigest()[:32]
        return None if self._directory is None else self._directory / f"{name}.json"

    def _recall(self, call: Call) -> Work | None:
        path = self._path(call.run)
        if path is None:
            return None
        try:
            kept = json.loads(path.read_bytes())
            if kept["run"] != call.run or kept["at"] < time.time() - KEEP:
                return None
            work = Work(call, succeeded=True, result=kept["result"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s cannot be read: %s", path, type(error).__name__)
            return None
        work.ended.set()
        return work

    def _write(self, work: Work) -> None:
        path = self._path(work.call.run)
        assert path is not None and self._directory is not None
        scratch = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
        kept = {"run": work.call.run, "attempt": work.call.attempt, "at": time.time(), "result": work.result}
        with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(kept, file, ensure_ascii=False)
        os.replace(scratch, path)
        if time.monotonic() - self._tidied > _TIDY_EVERY:
            self._tidied = time.monotonic()
            for old in self._directory.iterdir():
                if old.stat().st_mtime < time.time() - KEEP:
                    old.unlink(missing_ok=True)
