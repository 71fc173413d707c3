"""What a web does for a callee that answers later. Only etcd is needed; the database knows what ended long ago."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from crony.clock import SYSTEM
from crony.domain.callback import Token
from crony.lifecycle.complete import Told, envelope
from crony.lifecycle.heartbeat import how
from crony.lifecycle.standing import Archive, Over, find
from crony.store import output
from crony.store import runs as archive
from crony.web.problems import TooLarge, TooOften

if TYPE_CHECKING:
    from crony.web.wiring import Web

CALLS = 20
"""Most calls a second of one attempt, through one web."""
TEXT = 64 << 10
"""Most bytes of one piece of log."""


class Pace:
    """How often each of many callers may come: `most` times a second, and as many at once after a pause."""

    def __init__(self, most: int, remembered: int = 10_000) -> None:
        self._most, self._remembered = most, remembered
        self._lock = threading.Lock()
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, who: str) -> None:
        """One more call of `who`. Raises `TooOften`."""
        now = SYSTEM.monotonic()
        with self._lock:
            left, at = self._left.pop(who, (float(self._most), now))
            left = min(self._most, left + (now - at) * self._most)
            self._left[who] = (max(0.0, left - 1), now)
            while len(self._left) > self._remembered:
                self._left.popitem(last=False)
        if left < 1:
            raise TooOften(f"More than {self._most} calls a second", hint="wait a second; a heartbeat needs no hurry")


def archived(web: Web, run: str, attempt: int) -> Archive:
    """Looks an attempt up in the database, whose outcome etcd does not hold any more."""

    def look() -> Over | None:
        found = archive.reported(web.db, run, attempt)
        return Over(*found) if found is not None else None

    return look


def log(web: Web, run: str, attempt: int, token: Token, text: str, offset: int | None) -> tuple[Told, int]:
    """Append to the attempt's output what its callee sends; how it stands, and how many bytes it has sent.

    Once the attempt has ended its text is dropped. Raises `TooLarge`, as `find` does, and `Unavailable` with the
    database away.
    """
    data = text.encode("utf-8")
    if len(data) > TEXT:
        raise TooLarge(f"`text` has {len(data)} bytes; at most {TEXT}", hint="send it in pieces")
    found = find(web.client, web.keys, run, attempt, token, archive=archived(web, run, attempt))
    told = how(web.client, web.keys, run, found)
    if isinstance(found, Over):
        return told, (offset or 0) + len(data)
    data = web.hiding.output(envelope(found), data)
    return told, output.add(web.db, run, attempt, data, offset, most=web.settings.output_limit)
