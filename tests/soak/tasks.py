"""Celery tasks of the soak's Python jobs (`CRONY_IMPORTS=tests.soak.tasks`)."""

from __future__ import annotations

import os
import signal

from celery import shared_task


@shared_task
def harmless(number: int = 0) -> int:
    """A short task."""
    return number + 1


@shared_task
def poison(how: str = "exit") -> None:
    """Take the pool process with it."""
    if how == "exit":
        os._exit(7)
    os.kill(os.getpid(), signal.SIGSEGV if how == "crash" else signal.SIGKILL)
