"""The work that is measured: nothing."""

from __future__ import annotations

from celery import shared_task


@shared_task
def noop() -> None:
    """Return at once: what is measured is the way there."""
