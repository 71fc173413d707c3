"""The work that is measured: nothing; and text, for what printing it costs."""

from __future__ import annotations

import random
import sys
import time

from celery import shared_task


@shared_task
def noop() -> None:
    """Return at once: what is measured is the way there."""


@shared_task
def lines(size: int, printing: bool) -> None:
    """Make so many bytes of text that is no easier to compress than logs are; print it, or keep it."""
    dice = random.Random()
    left = size
    while left > 0:
        line = f"{time.time():.6f} INFO worker: row {dice.randrange(10**9)} of {dice.randrange(10**6)} {left}\n"
        line = line[-left:]
        left -= len(line)
        if printing:
            sys.stdout.write(line)
