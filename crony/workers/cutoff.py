"""Until when this node certainly has its session: known to its pool's processes too, and to whoever must stop then.

The session lives in the node's parent process, which writes each renewal into memory that its children share. So a
child knows the instant even when its parent hangs or was killed.
"""

from __future__ import annotations

import math
import mmap
import struct
import time
from collections.abc import Callable

from crony.workers.alarms import Alarm, Alarms


class Cutoff:
    """An instant of the monotonic clock, shared with every process forked afterwards."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)
        self.renewed(math.inf)

    def renewed(self, until: float) -> None:
        """The session is certainly there until then."""
        struct.pack_into("d", self._memory, 0, until)

    @property
    def left(self) -> float:
        """Seconds until the session may be gone; none are left when it may be gone already."""
        until: float = struct.unpack_from("d", self._memory, 0)[0]
        return max(0.0, until - time.monotonic())


CUTOFF = Cutoff()


class Guard:
    """Calls `cut` once when the session may be gone. `close` it when that does not matter any more."""

    def __init__(self, alarms: Alarms, cut: Callable[[], None], cutoff: Cutoff = CUTOFF) -> None:
        self._alarms, self._cut, self._cutoff = alarms, cut, cutoff
        self._alarm: Alarm | None = None
        self._closed = False
        self._look()

    def _look(self) -> None:
        if self._closed:
            return
        left = self._cutoff.left
        if left > 0:
            self._alarm = self._alarms.after(min(left, 60.0), self._look)
        else:
            self._cut()

    def close(self) -> None:
        """It does not matter any more."""
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()
