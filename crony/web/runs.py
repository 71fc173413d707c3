"""Runs from both places they are kept: the archive and etcd. What ended but is not archived yet is shown too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from crony.clock import SYSTEM
from crony.domain import ids
from crony.domain.grounds import Grounds
from crony.domain.outcome import Kind, Outcome
from crony.domain.run import Beat, State, Trigger, WaitReason
from crony.errors import NotFound, Unavailable
from crony.lifecycle.look import LiveRun
from crony.store import runs as archive
from crony.store.cursor import limit_of
from crony.store.db import Database
from crony.store.runs import AttemptView, Filter, RunView
from crony.web.live import Live

PATIENCE = 60.0
"""Seconds after its end that the output of an attempt may still come."""
LIVE_STATES = tuple(state.value for state in State if state is not State.ENDED)
ANY_LIVE = "live"
"""As `Filter.state`: any state but ended."""
OUTCOME_KINDS = tuple(kind.value for kind in Kind if kind is not Kind.SKIPPED)


@dataclass(frozen=True, slots=True)
class Run:
    """One run as shown: instants are epoch seconds, `outcome` is empty until it has ended."""

    id: str
    job: str
    job_name: str
    state: str
    trigger: str = ""
    generation: int = 0
    revision: int = 0
    outcome: str = ""
    reason: str = ""
    attempt: int = 0
    code: int | None = None
    node: str = ""
    fire_at: float | None = None
    requested_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    since_at: float | None = None
    """Since when it is in its present state, for live runs."""
    due_at: float | None = None
    """Not before this, for waiting runs."""
    result: Any = None
    params: Any = None
    why: str = ""
    idem: str = ""
    deadline_at: float | None = None
    """By when the callee of an accepted run has to complete."""
    beat: Beat | None = None
    """The last sign of life of that callee, or how far a running attempt is."""
    attempts: tuple[AttemptView, ...] = field(default=())
    parent: str = ""
    """The run it is a part of."""
    part: int | None = None
    """Which part, from 0."""
    parts: int = 0
    """How many parts its run has; 0: it is not split."""
    chain: str = ""
    """The run that its chain began with; empty: it began one itself."""
    cause: str = ""
    """The run whose end it follows."""
    parts_ended: int | None = None
    """Of a whole run whose parts are under way: how many have ended."""

    @property
    def in_parts(self) -> bool:
        """Whether it is a whole run that is, or was, carried out in parts."""
        return self.parts > 0 and self.part is None

    @property
    def status(self) -> str:
        """The outcome when there is one, else the state."""
        return self.outcome or self.state

    @property
    def grounds(self) -> Grounds:
        """Why its node and why not the others; for a run that waits because nobody fits, why each was refused."""
        reason, _, detail = self.reason.partition(": ")
        return Grounds.read(detail if self.state == State.WAITING and reason == WaitReason.NO_NODE else self.why)

    @property
    def live(self) -> bool:
        """Not ended."""
        return self.state != State.ENDED

    @property
    def held(self) -> bool:
        """Waiting for a person to release or cancel it."""
        return self.state == State.WAITING and self.reason.partition(":")[0] == WaitReason.HOLD

    @property
    def duration(self) -> float | None:
        """Seconds from the first start to the end."""
        return None if self.started_at is None or self.ended_at is None else max(0.0, self.ended_at - self.started_at)

    @property
    def lateness(self) -> float | None:
        """Seconds from the nominal instant (or the request) to the first start; a backfill is not late by years, nor a
        run that follows another by how long that took."""
        asked = self.fire_at is None or self.trigger in (Trigger.BACKFILL, Trigger.CHAIN)
        due = self.requested_at if asked else self.fire_at
        return None if due is None or self.started_at is None else self.started_at - due


def list_runs(
    db: Database, live: Live, wanted: Filter, *, limit: int | None = None, cursor: str | None = None
) -> tuple[list[Run], str | None, list[Unavailable]]:
    """A page of runs, newest first, its next cursor, and what was away (then the page holds what the other knew).

    Live runs come first, on the first page. Raises `Unavailable` only when both places are away.
    """
    size, away = limit_of(limit), list[Unavailable]()
    archived: list[Run] = []
    after = None
    if wanted.state in (None, State.ENDED):
        try:
            page = archive.list_runs(db, wanted, limit=size, cursor=cursor)
            archived, after = [from_archive(view) for view in page.items], page.next_cursor
        except Unavailable as error:
            away.append(error)
    present: list[Run] = []
    if cursor is None:
        try:
            present = [run for run in in_etcd(live) if _matches(run, wanted)]
        except Unavailable as error:
            away.append(error)
    if len(away) == 2 or (away and wanted.state not in (None, State.ENDED)):
        raise away[0]
    known = {run.id: run for run in present}
    ended = {run.id for run in archived if not run.live}
    if after is not None:
        ended |= _on_later_pages(db, known.values(), archived)
    merged = [known.pop(run.id, run) if run.live else run for run in archived]
    fresh = [run for run in known.values() if run.id not in ended]
    merged = sorted([*fresh, *merged], key=lambda run: (run.live, _moment(run)), reverse=True)
    return merged, after, away


def _on_later_pages(db: Database, present: Iterable[Run], page: list[Run]) -> set[str]:
    """Ended runs that etcd still has, and that follow this page in the archive."""
    last = min(map(_asked, page)) + 0.001  # the archive keeps milliseconds
    return archive.ended(db, [run.id for run in present if not run.live and _asked(run) <= last])


def find(db: Database, live: Live, run: str) -> tuple[Run, list[Unavailable]]:
    """One run with its attempts, and what was away. Raises `NotFound`, or `Unavailable` when it cannot be told."""
    away = list[Unavailable]()
    stored: Run | None = None
    try:
        stored = from_archive(archive.get(db, run))
    except NotFound:
        pass
    except Unavailable as error:
        away.append(error)
    if stored is not None and not stored.live:
        return stored, away
    try:
        alive, outcomes = live.run(run), live.outcomes_of(run)
    except Unavailable as error:
        away.append(error)
        alive, outcomes = None, []
    if alive is None and not outcomes and stored is None:
        if away:
            raise away[0]
        raise NotFound(f"There is no run {run}", hint="it may have been removed by the retention rule")
    return _combined(stored, alive, outcomes), away


def output_ended(db: Database, live: Live, run: str, attempt: int, *, brought: bool) -> bool:
    """Whether no more output is to be waited for. `brought`: its node has brought all; a callee may go on sending."""
    if brought:
        return live.accepted(run) != attempt
    try:
        return is_over(find(db, live, run)[0], attempt)
    except Unavailable:
        return False


def is_over(run: Run, attempt: int) -> bool:
    """Whether no more output is to be waited for: the attempt ended, and its node had time to bring the rest."""
    if run.live and attempt >= run.attempt:
        return False
    ended = next((item.ended_at for item in run.attempts if item.n == attempt), run.ended_at)
    return ended is not None and SYSTEM.wall() - ended > PATIENCE


def from_archive(view: RunView) -> Run:
    """A run of the archive."""
    return Run(
        id=view.id, job=view.job, job_name=view.job_name, state=view.state, trigger=view.trigger,
        generation=view.generation, revision=view.revision, outcome=view.outcome if view.state == "ended" else "",
        reason=view.reason, attempt=view.attempt, code=view.code, node=view.node, fire_at=view.fire_at,
        requested_at=view.requested_at or None, started_at=view.started_at, ended_at=view.ended_at, result=view.result,
        params=view.params, why=view.why, idem=view.idem, attempts=tuple(view.attempts), parent=view.parent,
        part=view.part, parts=view.parts, chain=view.chain, cause=view.cause,
    )  # fmt: skip


def from_live(alive: LiveRun) -> Run:
    """A run that has not ended."""
    running = alive.state in (State.RUNNING, State.ACCEPTED)
    whole = alive.part is None and alive.parts > 0
    reason = f"{alive.reason}: {alive.detail}" if alive.reason and alive.detail else alive.reason or alive.detail
    return Run(
        id=alive.run, job=alive.job, job_name=alive.name, state=str(alive.state), trigger=alive.trigger,
        generation=alive.generation, revision=alive.revision, reason=reason, attempt=alive.attempt, node=alive.node,
        fire_at=alive.fire_at, requested_at=alive.requested_at or None, since_at=alive.since_at or None,
        due_at=alive.due_at or None, started_at=_started(alive) if running and not whole else None,
        deadline_at=alive.deadline_at or None, beat=alive.beat, why=alive.why,
        parent=ids.whole(alive.run) if alive.part is not None else "", part=alive.part, parts=alive.parts,
        parts_ended=alive.ended if whole else None, chain=alive.chain, cause=alive.cause,
    )  # fmt: skip


def _started(alive: LiveRun) -> float | None:
    return alive.started_at or alive.since_at or None


def from_outcomes(outcomes: list[Outcome]) -> Run:
    """A run of which etcd knows outcomes the archive does not have yet."""
    last = outcomes[-1]
    started, part = next((o.started_at for o in outcomes if o.started_at), None), ids.part_of(last.run)
    return Run(
        id=last.run, job=last.job, job_name=last.name, state=State.ENDED if last.final else State.WAITING,
        trigger=last.trigger, generation=last.generation, revision=last.revision,
        outcome=last.kind if last.final else "", reason=_reason(last), attempt=last.attempt, code=last.code,
        node=last.node, fire_at=last.fire_at, requested_at=last.requested_at or None, started_at=started,
        ended_at=last.ended_at if last.final else None, result=last.result, params=last.params, why=last.why,
        idem=last.idem, attempts=tuple(_attempts(outcomes)), parent=ids.whole(last.run) if part is not None else "",
        part=part, parts=last.parts, chain=last.chain, cause=last.cause,
    )  # fmt: skip


def _reason(outcome: Outcome) -> str:
    """As the archive gives it: of what did not run with the detail."""
    if outcome.kind == Kind.SKIPPED and outcome.detail:
        return f"{outcome.reason}: {outcome.detail}"
    return outcome.reason


def in_etcd(live: Live) -> Iterable[Run]:
    """Live runs, and ended ones that the archive may not have yet."""
    alive = {run.run: run for run in live.runs()}
    for run in alive.values():
        yield from_live(run)
    for ident, outcomes in live.outcomes().items():
        if ident not in alive and (last := _ordered(outcomes)[-1]).final and last.kind != Kind.SKIPPED:
            yield from_outcomes(_ordered(outcomes))


def _combined(stored: Run | None, alive: LiveRun | None, outcomes: list[Outcome]) -> Run:
    ended = from_outcomes(_ordered(outcomes)) if outcomes else None
    if ended is not None and not ended.live:
        return ended if stored is None else _with_attempts(ended, stored)
    base = from_live(alive) if alive is not None else ended or stored
    assert base is not None
    for other in (ended, stored):
        if other is not None and other is not base:
            base = _with_attempts(base, other)
    return base


def _with_attempts(run: Run, other: Run) -> Run:
    """`run` with facts and attempts that only `other` knows."""
    attempts = {attempt.n: attempt for attempt in (*other.attempts, *run.attempts)}
    return replace(
        run,
        attempts=tuple(attempts[n] for n in sorted(attempts)),
        revision=run.revision or other.revision,
        generation=run.generation or other.generation,
        requested_at=run.requested_at or other.requested_at,
        started_at=min((t for t in (run.started_at, other.started_at) if t), default=None),
        params=run.params if run.params is not None else other.params,
        why=run.why or other.why,
    )


def _ordered(outcomes: list[Outcome]) -> list[Outcome]:
    return sorted(outcomes, key=lambda outcome: (outcome.final, outcome.attempt))


def _attempts(outcomes: list[Outcome]) -> list[AttemptView]:
    return [
        AttemptView(
            n=o.attempt, outcome=o.kind, final=o.final, reason=o.reason, detail=o.detail, code=o.code, node=o.node,
            fence=o.fence, started_at=o.started_at, ended_at=o.ended_at, result=o.result, why=o.why,
        )
        for o in outcomes
        if o.attempt > 0
    ]  # fmt: skip


def _matches(run: Run, wanted: Filter) -> bool:
    outcomes = [wanted.outcome] if isinstance(wanted.outcome, str) else wanted.outcome
    moment = _moment(run)
    return (
        (wanted.job is None or run.job == wanted.job)
        and (wanted.state is None or run.state == wanted.state or (wanted.state == ANY_LIVE and run.live))
        and (outcomes is None or run.outcome in outcomes)
        and (wanted.node is None or run.node == wanted.node)
        and (run.part is None or wanted.node is not None or wanted.state in LIVE_STATES)
        and (wanted.trigger is None or run.trigger == wanted.trigger)
        and (wanted.since is None or moment >= wanted.since)
        and (wanted.until is None or moment < wanted.until)
    )


def _moment(run: Run) -> float:
    return run.ended_at or run.since_at or run.started_at or run.requested_at or run.fire_at or 0.0


def _asked(run: Run) -> float:
    """What the archive's pages go by."""
    return run.requested_at or run.fire_at or run.started_at or run.ended_at or 0.0
