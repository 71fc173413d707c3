"""Counting: what outcomes add to the figures of the centre, once each, when they are settled."""

from __future__ import annotations

from collections.abc import Iterable

from crony.domain.figures import Figures
from crony.domain.outcome import Kind, Outcome
from crony.domain.record import UnknownRecord


def counting(figures: Figures, values: Iterable[bytes]) -> None:
    """Count these outcomes; what cannot be read is left out."""
    for value in values:
        try:
            _count(figures, Outcome.read(value))
        except (UnknownRecord, TypeError):
            continue


def _count(figures: Figures, told: Outcome) -> None:
    if told.kind == Kind.SKIPPED:
        figures.count("skipped", told.reason, told.count)
        return
    if told.final:
        figures.count("runs", told.kind)
    if not told.fence:  # decided without an attempt, or after its last one
        return
    figures.count("attempts", told.kind)
    if told.attempt > 1:
        figures.count("retries")
    if told.started_at is None:
        return
    figures.took("attempt", told.ended_at - told.started_at, told.action)
    if told.attempt == 1:
        figures.took("start", told.started_at - told.requested_at)
