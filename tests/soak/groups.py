"""Histories of runs in parts, pools, backfills, callees that answer later, and a recovered etcd: sound ones, and edited
ones that each break a rule."""

from __future__ import annotations

import json
from typing import Any

from tests.soak.tale import JOB, T0, Tale, breaks, message, sealed

WHOLE = f"{JOB}.1.{T0 + 10}"
FILL = "b" + "0" * 20
ANSWERED = f"{JOB}.1.mlater"


# -- parts -------------------------------------------------------------------------------------


def split(total: int = 2, **envelope: Any) -> Tale:
    """A fire that is carried out in parts, the first of which is made."""
    tale = Tale().begin(routing={"parts": total})
    told = {"run": WHOLE, "job": JOB, "revision": 1, "generation": 1, "requested_at": T0 + 10.1, **envelope}
    tale.joined = {"run": WHOLE, "envelope": sealed(told), "total": total, "made": 0, "ends": ""}  # type: ignore[attr-defined]
    tale.step({f"done/{JOB}": {"upto_at": T0 + 10}, f"run/join/{WHOLE}": tale.joined}, after=T0 + 10.1 - tale.at)  # type: ignore[attr-defined]
    return tale


def made(tale: Tale, *numbers: int, count: int | None = None) -> None:
    """These parts are made, and the record counts `count` of them."""
    join = tale.joined  # type: ignore[attr-defined]
    join |= {"made": numbers[-1] + 1 if count is None else count}
    puts: dict[str, Any] = {f"run/join/{WHOLE}": join}
    for number in numbers:
        puts |= message(f"{WHOLE}.{number}", place=f"9000000000000000{number}.{WHOLE}.{number}")
    tale.step(puts, after=0.1)


def part_ends(tale: Tale, number: int, kind: str = "succeeded") -> None:
    """A part is claimed, and ends."""
    place = f"9000000000000000{number}.{WHOLE}.{number}"
    run, fence = f"{WHOLE}.{number}", tale.claim(place)
    tale.mark("start", run, fence=fence)
    tale.mark("end", run, fence=fence)
    tale.ends(fence, run=run, place=place, kind=kind)


def whole_ends(tale: Tale, kind: str = "succeeded") -> None:
    """The run itself."""
    told = {"kind": kind, "final": True, "run": WHOLE, "job": JOB, "ended_at": tale.at}
    puts: dict[str, Any] = {f"run/out/{WHOLE}/end": told}
    tale.step(puts, f"run/join/{WHOLE}", after=0.2)


def in_parts() -> Tale:
    tale = split()
    made(tale, 0)
    made(tale, 1)
    part_ends(tale, 0)
    part_ends(tale, 1)
    whole_ends(tale)
    tale.end(runs=[[WHOLE, "succeeded"]])
    return tale


@breaks("each part is made once")
def a_part_that_nobody_counted() -> Tale:
    tale = split()
    made(tale, 0, count=0)
    return tale


@breaks("each part is made once")
def a_part_made_twice() -> Tale:
    tale = split()
    made(tale, 0)
    part_ends(tale, 0)
    made(tale, 1, count=1)
    return tale


@breaks("the whole ends with its parts")
def ended_before_a_part() -> Tale:
    tale = split()
    made(tale, 0, 1)
    part_ends(tale, 0)
    whole_ends(tale)
    return tale


@breaks("the whole ends with its parts")
def ended_before_all_were_made() -> Tale:
    tale = split()
    made(tale, 0)
    part_ends(tale, 0)
    whole_ends(tale, "failed")
    return tale


@breaks("the whole ends as its parts")
def well_though_a_part_failed() -> Tale:
    tale = split()
    made(tale, 0, 1)
    part_ends(tale, 0)
    part_ends(tale, 1, "failed")
    whole_ends(tale)
    return tale


# -- pools -------------------------------------------------------------------------------------


def pooled(*slots: str, runs: int = 1, limit: int = 1, written: bool = True) -> Tale:
    """Runs of a job with a pool in these slots, one each."""
    tale = Tale().begin(limits=["pool:few"])
    tale.step({"obj/pool/few": sealed({"name": "few", "limit": limit})})
    for number in range(runs):
        run, held = f"{JOB}.1.m{number}", [slots[number]] if number < len(slots) else []
        puts: dict[str, Any] = message(run, pools=["few"], slots=held, requested_at=tale.at)
        if written:
            puts |= {f"pool/{slot}": {"run": run} for slot in held}
        tale.step(puts, after=0.2)
    return tale


def in_slots() -> Tale:
    return pooled("few/0", "few/1", runs=2, limit=2)


@breaks("a pool is not overrun")
def one_too_many() -> Tale:
    return pooled("few/0", "few/1", runs=2)


@breaks("one slot, one run")
def a_slot_for_two() -> Tale:
    return pooled("few/0", "few/0", runs=2, limit=2)


@breaks("one slot, one run")
def a_slot_that_is_not_written() -> Tale:
    return pooled("few/0", written=False)


@breaks("in a slot of its pool")
def sent_without_a_slot() -> Tale:
    return pooled()


# -- backfills ---------------------------------------------------------------------------------


def fill_run(instant: int) -> str:
    """Its run."""
    return f"{JOB}.1.{FILL}{instant}"


def filling(*instants: int, still: bool = False, **record: Any) -> Tale:
    """A backfill of three instants, some of which got their run."""
    tale = Tale().begin(schedule={"every": "1000s"})
    told = {"id": FILL, "job": JOB, "name": "x", "generation": 1, "trigger": "backfill", "parallel": 1, "total": 3,
            "schedule": json.dumps({"every": "10s"}), "from_at": T0 - 40, "to_at": T0 - 10, "made": 0}  # fmt: skip
    told |= record
    tale.step({f"run/backfill/{FILL}": told})
    for number, instant in enumerate(instants):
        place = f"9000000000000000{number}.{fill_run(instant)}"
        puts: dict[str, Any] = message(fill_run(instant), place=place, requested_at=tale.at, trigger="backfill")
        told |= {"made": number + 1}
        tale.step(puts if still else {**puts, f"run/backfill/{FILL}": told}, after=0.2)
        if record.get("parallel") != 0:
            fence = tale.claim(place)
            tale.mark("start", fill_run(instant), fence=fence)
            tale.mark("end", fill_run(instant), fence=fence)
            tale.ends(fence, run=fill_run(instant), place=place)
    tale.filled = told  # type: ignore[attr-defined]
    return tale


def filled(tale: Tale, **record: Any) -> Tale:
    """It ends."""
    told = {**tale.filled, "ended_at": tale.at, **record}  # type: ignore[attr-defined]
    tale.step({f"run/backfill/{FILL}": told})
    return tale


INSTANTS = (T0 - 30, T0 - 20, T0 - 10)


def a_period_again() -> Tale:
    return filled(filling(*INSTANTS), succeeded=3)


@breaks("each instant once")
def an_instant_left_out() -> Tale:
    return filled(filling(*INSTANTS[:2]), succeeded=2)


@breaks("each instant once")
def an_instant_that_is_none() -> Tale:
    return filled(filling(*INSTANTS[:2], T0 - 15), succeeded=3)


@breaks("each instant once")
def its_record_stands_still() -> Tale:
    return filling(INSTANTS[0], still=True)


@breaks("so many at a time")
def too_many_at_a_time() -> Tale:
    return filling(*INSTANTS[:2], parallel=0)


@breaks("a backfill counts right")
def counted_too_few() -> Tale:
    return filled(filling(*INSTANTS), succeeded=2)


@breaks("every backfill ends")
def a_backfill_that_goes_on() -> Tale:
    tale = filling(INSTANTS[0])
    tale.end()
    return tale


@breaks("what was accepted is there")
def a_backfill_that_nobody_knows() -> Tale:
    tale = Tale().begin()
    tale.op("backfill", 202, backfill="b9")
    return tale


# -- callees -----------------------------------------------------------------------------------


def accepted(deadline: float = 6.0) -> Tale:
    """A run that its callee has accepted."""
    tale = Tale().begin(tags=[])
    place, told = f"90000000000000009.{ANSWERED}", {"deadline": 6.0, "requested_at": T0 + 1.0}
    tale.step(message(ANSWERED, place=place, **told))
    fence = tale.claim(place)
    tale.note("callee", what="called", run=ANSWERED, attempt=1)
    envelope = sealed({"run": ANSWERED, "job": JOB, "attempt": 1, **told})
    record = {"run": ANSWERED, "attempt": 1, "fence": fence, "deadline_at": tale.at + deadline, "envelope": envelope}
    gone = f"run/q/run.n1/m/{place}", f"run/q/run.n1/c/{place}"
    tale.step({f"run/acc/{ANSWERED}": record}, *gone, after=0.1)
    return tale


def answered(tale: Tale, kind: str = "succeeded", after: float = 1.0, **more: Any) -> Tale:
    """It ends."""
    told = {"kind": kind, "final": True, "run": ANSWERED, "job": JOB, "ended_at": tale.at + after, **more}
    alert = {f"alert/run_failed.{ANSWERED}": {"run": ANSWERED}} if kind != "succeeded" else {}
    tale.step({f"run/out/{ANSWERED}/1": told, **alert}, f"run/acc/{ANSWERED}", after=after)
    return tale


def said(tale: Tale, verb: str, status: int = 200) -> Tale:
    """What the callee was answered."""
    tale.note("callee", what="said", run=ANSWERED, attempt=1, verb=verb, status=status)
    return tale


def completed() -> Tale:
    return said(answered(accepted()), "complete")


def never_completed() -> Tale:
    return answered(accepted(), "timed_out", after=6.5, reason="the deadline is over")


@breaks("callees are told the truth")
def told_otherwise() -> Tale:
    return said(answered(accepted(), "failed"), "complete")


@breaks("callees are told the truth")
def refused_though_it_stands() -> Tale:
    return said(answered(accepted()), "complete", 409)


@breaks("called once for each attempt")
def called_twice() -> Tale:
    tale = accepted()
    tale.note("callee", what="called", run=ANSWERED, attempt=1)
    return tale


@breaks("a deadline is kept")
def timed_out_too_early() -> Tale:
    return answered(accepted(20.0), "timed_out", after=2.0, reason="the deadline is over")


@breaks("in time")
def timed_out_too_late() -> Tale:
    return answered(accepted(1.0), "timed_out", after=30.0, reason="the deadline is over")


# -- chains ------------------------------------------------------------------------------------


def chained(*followers: tuple[str, str], kind: str = "succeeded") -> Tale:
    """A run of a job ended; (run, kind) of what followed it, in a job that waits for its success."""
    tale = Tale().begin(retry={"max": 0})
    told = {"revision": 1, "generation": 1, "published_at": tale.at,
            "document": {"after": {"on": "success", "jobs": ["x"], "ids": [JOB]}, "overlap": "allow"}}  # fmt: skip
    tale.step({"job/j2": sealed(told)})
    tale.fire()
    fence = tale.claim()
    tale.mark("start", fence=fence)
    tale.mark("end", fence=fence)
    alert = {f"alert/run_failed.{WHOLE}": {"run": WHOLE}} if kind != "succeeded" else {}
    tale.ends(fence, kind=kind, puts=alert)
    for run, end in followers:
        record = {"kind": end, "final": True, "run": run, "job": "j2", "ended_at": tale.at, "cause": WHOLE}
        tale.step({f"run/out/{run}/{'0' if end == 'skipped' else 'end'}": record})
    known = [[WHOLE, kind], *([run, end] for run, end in followers if end != "skipped")]
    tale.end(runs=known, skips=[[run, 1] for run, end in followers if end == "skipped"])
    return tale


def followed() -> Tale:
    return chained(("j2.1.ca", "succeeded"))


def not_followed_with_a_reason() -> Tale:
    return chained(("j2.1.ca", "skipped"), kind="failed")


@breaks("each end is followed once")
def not_followed() -> Tale:
    return chained()


@breaks("each end is followed once")
def followed_twice() -> Tale:
    return chained(("j2.1.ca", "succeeded"), ("j2.1.cb", "succeeded"))


@breaks("follows what it waits for")
def followed_a_failure() -> Tale:
    return chained(("j2.1.ca", "succeeded"), kind="failed")


# -- recovered ---------------------------------------------------------------------------------


def recovered(runs: list[list[Any]], ranges: list[list[Any]]) -> Tale:
    """Due at T0 + 10, 20 and 30; etcd was restored in between."""
    tale = Tale().begin(retry={"max": 0})
    tale.note("restored", line=len(tale.lines) + 1)
    tale.note("recovered")
    tale.at = T0 + 34.0
    tale.end(runs=runs, ranges=ranges, quiet=tale.at)
    return tale


def run_of(second: int) -> list[Any]:
    """A run as the archive has it."""
    return [f"{JOB}.1.{second}", "succeeded"]


def all_accounted_for() -> Tale:
    return recovered([run_of(T0 + 10), run_of(T0 + 30)], [[JOB, T0 + 20, T0 + 20]])


@breaks("recovered: every fire is accounted for")
def forgotten_by_the_recovery() -> Tale:
    return recovered([run_of(T0 + 10), run_of(T0 + 30)], [])


@breaks("recovered: no fire twice")
def recorded_and_run() -> Tale:
    return recovered([run_of(T0 + 10), run_of(T0 + 20), run_of(T0 + 30)], [[JOB, T0 + 20, T0 + 20]])


@breaks("recovered: every run ends")
def open_after_the_recovery() -> Tale:
    return recovered([run_of(T0 + 10), run_of(T0 + 30), [f"{JOB}.1.mx", None]], [[JOB, T0 + 20, T0 + 20]])


GOOD = (
    in_parts, in_slots, a_period_again, completed, never_completed, all_accounted_for, followed,
    not_followed_with_a_reason,
)  # fmt: skip
