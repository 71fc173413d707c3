"""What narrows or shifts a schedule: a window of time, a number of fires, a jitter, as fields of the schedule itself.

`start` and `end` are instants; a fire is due from `start` on and before `end`, so that windows that follow one
another share no fire. `count` is a number of fires counted from `start`: the first n instants of the schedule in its
window are due. It is worked out from the schedule alone, never from what has run: fires that were skipped, missed
or let pass in a pause are among the n, and an edit counts anew from its own `start`. So every leader, and every
preview, comes to the same last fire.

`jitter` spreads jobs that are due in the same second: all fires of a job come the same time later, at least 0 and at
most the jitter, by a hash of the job's id. So the instants themselves are shifted: what is due stays a plain set of
seconds that follows from the document and the id, in the order of the schedule; cursor, edits, misfire rules and run
ids need to know nothing of it. Another delay for each fire would overtake the next fire, and would have to be
remembered. The window is about the instants before the shift.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from crony.domain.check import integer
from crony.domain.durations import duration_words, format_duration, parse_duration
from crony.domain.instants import parse_instant
from crony.domain.zones import FIRST, LAST
from crony.errors import Invalid

FIELDS = ("start", "end", "count", "jitter")
"""Fields of a schedule that are read here."""
MOST = 1000
"""Fires that `count` may ask for; they are found one by one."""
LONGEST_JITTER = 86400


@dataclass(frozen=True, slots=True)
class Window:
    """Which instants of a schedule are due. An empty text or a count of 0: not limited by it."""

    first: int = FIRST
    """The first second that may be due."""
    last: int = LAST
    """The last one, before `count` is looked at."""
    count: int = 0
    start_text: str = ""
    end_text: str = ""
    jitter: int = 0
    """Seconds a job's fires may be later than the schedule says."""
    shift: int = 0
    """Seconds the fires of one job are later; 0 until `resolved` says which job."""

    def resolved(self, ident: str) -> Window:
        """The window as the job of that id has it."""
        digest = hashlib.sha256(ident.encode()).digest()
        return replace(self, shift=int.from_bytes(digest[:8]) % (self.jitter + 1))

    def document(self) -> dict[str, Any]:
        """The fields that were given, in normal form."""
        values = (self.start_text, self.end_text, self.count, format_duration(self.jitter) if self.jitter else "")
        return {name: value for name, value in zip(FIELDS, values, strict=True) if value}

    def words(self) -> str:
        """What follows the schedule in a sentence: `, from 2026-12-01T00:00:00Z, up to 30 seconds later`."""
        parts = (
            f", from {self.start_text}" if self.start_text else "",
            f", until {self.end_text}" if self.end_text else "",
            f", {self.count} times at most" if self.count else "",
            f", up to {duration_words(self.jitter)} later" if self.jitter else "",
        )
        return "".join(parts)


def parse_window(given: Mapping[str, Any], field: str) -> Window | None:
    """The window of a schedule with these fields, None without one. Raises `Invalid` naming the field."""
    named = [name for name in FIELDS if given.get(name) is not None]
    if not named:
        return None
    if given.get("at") is not None:
        raise Invalid(f"{field}.{named[0]}", "does not go with `at`, which is one instant", hint="remove it")
    first, last, count, start_text, end_text, jitter = FIRST, LAST, 0, "", "", 0.0
    if "start" in named:
        first, start_text = parse_instant(given["start"], f"{field}.start")
    if "end" in named:
        end, end_text = parse_instant(given["end"], f"{field}.end")
        last = end - 1
        if last < first:
            raise Invalid(f"{field}.end", "is not later than `start`", hint="a fire at `end` itself is not due")
    if "count" in named:
        count = integer(given["count"], f"{field}.count", 1, MOST)
        if "start" not in named:
            raise Invalid(f"{field}.count", "needs `start`: it counts from there", hint="add the instant to count from")
    if "jitter" in named:
        jitter = parse_duration(given["jitter"], f"{field}.jitter", least=1, most=LONGEST_JITTER)
        if jitter != int(jitter):
            raise Invalid(f"{field}.jitter", "must be whole seconds", hint="write 1s or more, such as 90s")
    return Window(first, last, count, start_text, end_text, int(jitter))
