"""Imported by a node under test: at a signal its main thread, which runs the loop, hangs until a file is there."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

SIGNAL = signal.SIGRTMIN + 3


def block(*_: Any) -> None:
    """Signal handlers run in the main thread."""
    while not os.path.exists(os.environ["CRONY_TEST_FREE"]):
        time.sleep(0.05)


if "CRONY_TEST_FREE" in os.environ:
    signal.signal(SIGNAL, block)
