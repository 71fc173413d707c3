"""What `crony dev` says: one line per run as it ends, remarks, warnings. Thread-safe; bears a closed pipe."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

from crony.domain.outcome import Kind, Outcome

_COLOURS = {"succeeded": "32", "skipped": "33", "cancelled": "33"}


class Voice:
    """Lines on one stream."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._gone: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._open = True
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not self._stream.isatty()
        self.coloured = not plain

    def on_gone(self, call: Callable[[], None]) -> None:
        """`call` once, when nobody reads the stream any more (`crony dev | head`)."""
        self._gone = call

    def line(self, text: str = "") -> None:
        """One line, at once."""
        with self._lock:
            if not self._open:
                return
            try:
                print(text, file=self._stream, flush=True)
            except (OSError, ValueError):
                self._open = False
                self._gone()

    def paint(self, text: str, code: str) -> str:
        """`text` in a colour where there are colours."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.coloured else text

    def remark(self, text: str) -> None:
        """A line about Crony itself, with the time."""
        self.line(f"{stamp(time.time())}  {self.paint(text, '36')}")

    def warning(self, text: str) -> None:
        """A line that should be read."""
        self.line(f"{stamp(time.time())}  {self.paint('warning: ' + text, '33')}")

    def outcome(self, outcome: Outcome) -> None:
        """One line for an attempt that ended, or a fire that was skipped."""
        kind = outcome.kind if outcome.final else f"{outcome.kind}, retry"
        took = "" if outcome.started_at is None else f"{max(0.0, outcome.ended_at - outcome.started_at):.2f}s"
        word = self.paint(f"{kind:<16}", _COLOURS.get(outcome.kind, "31"))
        if outcome.kind == Kind.SKIPPED:
            many = f" ({outcome.count} fires)" if outcome.count > 1 else ""
            tail = f"{outcome.reason}{many}"
        else:
            tail = f"{took:>7}  {outcome.node or '-'}  attempt {outcome.attempt}"
            if outcome.kind != Kind.SUCCEEDED and outcome.reason:
                tail += f"  {_short(outcome.reason)}"
        self.line(f"{stamp(outcome.ended_at)}  {word}  {_short(outcome.name, 40):<40}  {tail}")


def stamp(at: float) -> str:
    """Local time with its zone's offset: 14:03:07+0100."""
    return time.strftime("%H:%M:%S%z", time.localtime(at))


def _short(text: str, most: int = 80) -> str:
    line = "".join(character if character.isprintable() else "?" for character in text)
    return line if len(line) <= most else line[: most - 1] + "…"
