"""Runs in parts of a restored etcd: no part is made that the archive knows, and none is waited for that has ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from crony.domain import ids
from crony.domain.join import Join
from crony.domain.outcome import Kind
from crony.store.recovery import KnownRun


def parts_of(join: Join) -> list[str]:
    """The ids of all its parts, made or not."""
    return [ids.part_id(join.run, number) for number in range(join.total)]


def carried_on(join: Join, known: Mapping[str, KnownRun], *, once: bool) -> Join:
    """As it has to go on: ends that the archive knows are noted, parts that it knows are not made.

    `once`: what may have run must not run again, so parts that were to be made, and may have been, are lost. A part
    of which the archive knows an attempt but no end is lost as well, unless it is alive in the backup.
    """
    found = {number: known.get(part) for number, part in enumerate(parts_of(join))}
    ends = {str(n): run.outcome for n, run in found.items() if run is not None and run.ended and n < join.made}
    ahead = {str(n): run.outcome if run.ended else Kind.LOST.value for n, run in found.items()
             if run is not None and n >= join.made}  # fmt: skip
    if once:
        lost = {str(number): Kind.LOST.value for number in range(join.made, join.total)}
        ahead = {**lost, **ahead}
    if join.cancelled:
        ahead = {}
    return replace(join.with_ended(ends, None), known={**join.known, **ahead})
