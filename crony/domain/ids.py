"""Identities: of jobs, runs, requests, incarnations, and the place of a message in its queue."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from typing import NamedTuple

_PART = re.compile("0|[1-9][0-9]{0,4}")
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_BACKFILL = 21
"""Characters of a backfill's id."""


def fresh(prefix: str) -> str:
    """A new id: `prefix`, 9 characters of time (milliseconds), 11 random ones. Sorts by age."""
    stamp, text = int(time.time() * 1000), ""
    for _ in range(9):
        text, stamp = _ALPHABET[stamp & 31] + text, stamp >> 5
    return prefix + text + "".join(secrets.choice(_ALPHABET) for _ in range(11))


def job_id() -> str:
    """A new job id."""
    return fresh("j")


def incarnation() -> str:
    """A new id of one process start; never reused."""
    return fresh("i")


def request_id() -> str:
    """A new id of a request to the leader."""
    return fresh("q")


def task_job_id(task: str) -> str:
    """Id of the implicit job `task:<name>`: the same for the same task everywhere."""
    return "t" + hashlib.sha256(task.encode()).hexdigest()[:20]


class RunId(NamedTuple):
    """What a run id says: job, generation, the nominal second of a fire or a fresh suffix, and which part it is."""

    job: str
    generation: int
    suffix: str
    part: int | None = None
    """Place among the parts of the run it belongs to, from 0; None: it is no part."""

    @property
    def fire(self) -> int | None:
        """Nominal UTC second of the fire, or None for a manual, API or backfill run, and for a part of a run."""
        return int(self.suffix) if self.suffix.isdigit() and self.part is None else None

    @property
    def backfill(self) -> str:
        """The backfill that made it; empty for every other run."""
        ident, instant = self.suffix[:_BACKFILL], self.suffix[_BACKFILL:]
        return ident if ident.startswith("b") and instant.isdigit() else ""


def fire_run_id(job: str, generation: int, second: int) -> str:
    """The name of a fire (D4): the same fire has the same name on every leader."""
    return f"{job}.{generation}.{second}"


def fresh_run_id(job: str, generation: int) -> str:
    """A run that no schedule asked for."""
    return f"{job}.{generation}.{fresh('m')}"


def chained_run_id(job: str, generation: int, after: str) -> str:
    """The run of a job that follows `after`: the same for the same, whoever asks for it, and however often."""
    number = int.from_bytes(hashlib.sha256(f"{job}\0{after}".encode()).digest()[:13])
    return f"{job}.{generation}.c" + "".join(_ALPHABET[number >> 5 * place & 31] for place in range(20))


def backfill_id() -> str:
    """A new id of a backfill."""
    return fresh("b")


def keyed_backfill_id(job: str, key: str) -> str:
    """The id of the backfill of a job that an idempotency key stands for."""
    number = int.from_bytes(hashlib.sha256(f"{job}\0{key}".encode("utf-8", "surrogatepass")).digest()[:13])
    return "b" + "".join(_ALPHABET[number >> 5 * place & 31] for place in range(_BACKFILL - 1))


def backfill_run_id(job: str, generation: int, backfill: str, second: int) -> str:
    """A run of a backfill for an instant: not the name of the fire, which may have run already (S10)."""
    return f"{job}.{generation}.{backfill}{second}"


def parse_run_id(run: str) -> RunId:
    """What a run id says. Raises ValueError when it is not one."""
    job, generation, suffix, *part = run.split(".", 3)
    if not job or not suffix or (part and not _PART.fullmatch(part[0])):
        raise ValueError(f"not a run id: {run!r}")
    return RunId(job, int(generation), suffix, int(part[0]) if part else None)


def part_id(run: str, number: int) -> str:
    """The run that is this part, from 0, of a run."""
    return f"{run}.{number}"


def part_of(run: str) -> int | None:
    """Which part of its run a run is, from 0; None: it is a whole one, or no run id at all."""
    try:
        return parse_run_id(run).part
    except ValueError:
        return None


def whole(run: str) -> str:
    """The run that a run is a part of; itself when it is no part."""
    return run.rpartition(".")[0] if run.count(".") == 3 else run


def place(priority: int, sequence: int, ident: str) -> str:
    """Place of a message in its queue: higher priority (0-9) first, then by sequence (microseconds)."""
    return f"{9 - priority}{sequence:016x}.{ident}"


def place_ident(place_: str) -> str:
    """The message or run id at the end of a place."""
    return place_.split(".", 1)[1]
