"""Whether the worker's event loop still moves: a node whose loop is stuck must not look alive.

A stuck loop delivers nothing and hears no pool process that ends, while the session's thread could go on renewing the
lease for ever. So the session asks here first; when the lease has ended, the node's work goes to others as after any
other loss. The node comes back by itself when its loop moves again.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback

log = logging.getLogger("crony.worker")


class LoopWatch:
    """Told by the loop that it moves, asked by others. A fresh one is paused: not watching."""

    def __init__(self, patience: float) -> None:
        """`patience`: seconds without a move after which the loop counts as stuck; 0: it never does."""
        self._patience = patience
        self._moved_at: float | None = None
        self._thread = 0
        self._told = False

    def moved(self) -> None:
        """The loop moves; called from its own thread. Begins to watch."""
        if self._moved_at is None:
            log.info("the loop is watched: it has to move at least every %g s", self._patience)
        self._moved_at, self._thread = time.monotonic(), threading.get_ident()
        if self._told:
            log.warning("the worker's loop moves again")
            self._told = False

    def pause(self) -> None:
        """No loop runs now, rightly: the worker stops, or connects anew."""
        self._moved_at, self._told = None, False

    @property
    def stuck(self) -> bool:
        """Whether it should have moved and did not. The first time it says where the loop is."""
        moved = self._moved_at
        if not self._patience or moved is None or time.monotonic() - moved <= self._patience:
            return False
        if not self._told:
            self._told = True
            frame = sys._current_frames().get(self._thread)
            log.critical(
                "the worker's loop has not moved for %g s: this node lets its lease end, and its work goes to others. "
                "The loop is here:\n%s",
                self._patience, "".join(traceback.format_stack(frame)) if frame else "(nowhere)",
            )  # fmt: skip
        return True
