"""Time zones of our own whose clocks change in a moment: real files, found by `PYTHONTZPATH` before the system's.

So a change of clocks can happen while centres are killed, instead of on two Sundays of the year.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

TZPATH = ("/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo")
DAY = 86400


@dataclass(frozen=True)
class Zone:
    """A zone that changes once: at `instant` its clocks show `label` (seconds of the day), and go on `jump` later."""

    name: str
    instant: int
    label: int
    jump: int

    @property
    def before(self) -> int:
        """Seconds east of UTC before the change: within half a day, or west of it where a whole day is left out."""
        if self.jump >= DAY:
            return (self.label - self.instant) % DAY - DAY
        return (self.label - self.instant + DAY // 2) % DAY - DAY // 2

    def tzif(self) -> bytes:
        """The file: version 2, one transition, no rule for the future."""
        before, after = self.before, self.before + self.jump
        types = struct.pack(">lbb", before, 0, 0) + struct.pack(">lbb", after, 1 if self.jump > 0 else 0, 4)
        names = b"OLD\0NEW\0"

        def block(version: bytes, form: str) -> bytes:
            head = b"TZif" + version + bytes(15) + struct.pack(">6l", 0, 0, 0, 1, 2, len(names))
            return head + struct.pack(form, self.instant) + b"\1" + types + names

        return block(b"2", ">l") + block(b"2", ">q") + b"\n\n"


def zones(instant: int) -> list[Zone]:
    """The kinds of change there are in the world, all at one instant (a full minute)."""
    return [
        Zone("Soak/Forward", instant, 2 * 3600, 3600),
        Zone("Soak/Back", instant, 3 * 3600, -3600),
        Zone("Soak/Half", instant, 2 * 3600, 1800),
        Zone("Soak/Midnight", instant, 0, 3600),
        Zone("Soak/Day", instant, 0 if instant % DAY else 60, DAY),  # at most a minute less than a day from UTC
    ]


def write(folder: Path, found: list[Zone]) -> str:
    """Put the files below `folder`; the `PYTHONTZPATH` that finds them."""
    for zone in found:
        path = folder / zone.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(zone.tzif())
    return ":".join([str(folder), *TZPATH])
