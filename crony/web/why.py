"""Why a job did, or did not, run at an instant: answered from records only, never from a guess.

What is asked, in this order: the run of that fire, the record of a fire that became none, the job's saves (was there
such a job, was it paused, was it due by the revision in force), and, when none of them says it, how far the leader is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from crony.catalog.keeping import due_schedules, names_of
from crony.catalog.views import JobView, VersionView
from crony.clock import SYSTEM
from crony.domain import ids
from crony.domain.calendar import date_of
from crony.domain.fires import last_fire, next_fire
from crony.domain.livejob import LiveJob
from crony.domain.outcome import Kind
from crony.domain.record import UnknownRecord
from crony.domain.run import Done, State, Trigger, WaitReason
from crony.domain.schedule import Schedule
from crony.domain.signing import peek
from crony.errors import NotFound
from crony.store import runs as archive
from crony.store.runs import Filter
from crony.store.skips import SkipView, skip_of, skips_over
from crony.web import chains, jobs, runs, standstill
from crony.web.answer import Answer
from crony.web.filled import filled
from crony.web.i18n import N_
from crony.web.runs import Run
from crony.web.sentences import At, Reason, Word
from crony.web.wiring import Web

FARTHEST = 400 * 86400
"""Seconds before the instant within which the fire before it is looked for."""


def why(web: Web, ref: str, at: float) -> Answer:
    """The answer for the job and the second of `at`. Raises `NotFound`; `Unavailable` when a record cannot be read."""
    view, second = web.catalog.get(ref), math.floor(at)
    return replace(_why(web, view, second), filled=filled(web, view, second))


def _why(web: Web, view: JobView, second: int) -> Answer:
    run = _run(web, ids.fire_run_id(view.id, view.generation, second))
    if run is not None and run.outcome != Kind.SKIPPED:
        return _with_standstill(web, _of_run(view, second, run))
    if (answer := _followed(web, view, second)) is not None:
        return answer
    saves = list(_saves(web, view.id))
    chosen = next((save for save in saves if math.floor(save.at) < second), None)
    if chosen is None:
        first = saves[-1] if saves else None
        created = At(first.at if first else view.created_at)
        text = N_("The job did not exist: it was created %(created)s by %(actor)s, and its fires count from then on.")
        return Answer(view, second, "did_not_exist", ((text, {"created": created, "actor": _who(first)}),))
    schedules, readable = _schedules(web, chosen, view.id)
    due = next_fire(schedules, second - 1) == second
    skip = _skip(web, view.id, second) if chosen.document.get("enabled") is not False else None
    if skip is not None and (due or run is not None):
        return _of_skip(view, second, skip, chosen)
    return _without_record(web, view, second, saves, chosen, schedules if readable else None, due)


# -- what is recorded ------------------------------------------------------------------------


def _run(web: Web, run: str) -> Run | None:
    try:
        return runs.find(web.db, web.live, run)[0]
    except NotFound:
        return None


def _of_run(view: JobView, at: int, run: Run) -> Answer:
    said: list[tuple[str, dict[str, object]]] = []
    verdict, waits = "ran", None
    facts: dict[str, object] = {"run": run.id, "node": run.node or "?", "revision": run.revision}
    if run.state == State.ENDED:
        said.append((N_("It ran: run %(run)s ended as %(outcome)s."), facts | {"outcome": Word(run.outcome)}))
        if run.in_parts and run.started_at is not None and run.ended_at is not None:
            spans: dict[str, object] = {"n": run.parts, "started": At(run.started_at), "ended": At(run.ended_at)}
            said.append((N_("Its %(n)s parts ran from %(started)s to %(ended)s."), spans))
        elif run.started_at is not None and run.ended_at is not None:
            times = {"started": At(run.started_at), "ended": At(run.ended_at)}
            said.append((N_("It started %(started)s on %(node)s and ended %(ended)s."), facts | times))
        elif run.ended_at is not None:
            said.append((N_("It never started, and ended %(ended)s."), {"ended": At(run.ended_at)}))
        if run.reason:
            said.append((N_("Reason: %(reason)s."), {"reason": Reason(run.reason)}))
    elif run.state in (State.RUNNING, State.ACCEPTED):
        verdict = "running"
        if run.in_parts:
            counts: dict[str, object] = facts | {"n": run.parts_ended or 0, "all": run.parts}
            said.append((N_("Its run %(run)s is under way in parts: %(n)s of %(all)s have ended."), counts))
            return Answer(view, at, verdict, tuple(said), run=run, revision=run.revision or None)
        since = At(run.started_at or run.since_at or at)
        said.append((N_("Its run %(run)s is under way on %(node)s since %(since)s."), facts | {"since": since}))
    elif run.state == State.QUEUED:
        verdict = "waiting"
        if not run.node:
            said.append((N_("Its run %(run)s lies in a shared queue, and no node has taken it yet."), facts))
            return Answer(view, at, verdict, tuple(said), run=run, revision=run.revision or None)
        said.append((N_("Its run %(run)s was handed to %(node)s, which has not started it yet."), facts))
    else:
        verdict, waits = "waiting", run
        said.append((N_("Its run %(run)s still waits."), facts))
        if run.reason.partition(":")[0] == WaitReason.NO_NODE and run.grounds.passed:
            refused = "; ".join(f"{reason}: {', '.join(nodes)}" for reason, nodes in run.grounds.passed)
            said.append((N_("Nodes refused: %(reason)s."), {"reason": Reason(refused)}))
    return Answer(view, at, verdict, tuple(said), run=run, revision=run.revision or None, waits=waits)


def _with_standstill(web: Web, answer: Answer) -> Answer:
    """With what keeps the leader from letting a waiting run go on, whatever else it waits for."""
    if answer.waits is None:
        return answer
    still = standstill.reasons(web, answer.job.id)
    return replace(answer, said=(*answer.said, *((text, dict(values)) for text, values in still)))


def _followed(web: Web, view: JobView, at: int) -> Answer | None:
    """Of a job that runs after others: its run in the chain of the fires of that second, or the record why none."""
    if not view.document.get("after"):
        return None
    for ident in chains.followed_at(web, view, at):
        run = _run(web, ident)
        if run is not None and run.outcome != Kind.SKIPPED:
            return _with_standstill(web, _of_run(view, at, run))
        if run is not None:
            facts: dict[str, object] = {"reason": Reason(run.reason.partition(": ")[2] or run.reason)}
            text = N_("In the chain of the fires of that moment it did not run: %(reason)s.")
            return Answer(view, at, "skipped", ((text, facts),), run=run, revision=run.revision or None)
    return None


def _skip(web: Web, job: str, at: int) -> SkipView | None:
    """The record, archived or not yet, that speaks of this second; of several the one about the fewest fires."""
    found = skips_over(web.db, job, at)
    for outcomes in web.live.outcomes().values():
        found += [skip_of(each) for each in outcomes if each.kind == Kind.SKIPPED and each.job == job]
    over = [
        skip
        for skip in found
        if skip.fire_at is not None and skip.fire_at <= at <= (skip.to_at if skip.to_at is not None else skip.fire_at)
    ]
    return min(over, key=lambda skip: skip.count, default=None)


def _of_skip(view: JobView, at: int, skip: SkipView, save: VersionView) -> Answer:
    reason = {"reason": Word(skip.reason), "detail": Reason(skip.detail)}
    text = (
        N_("This fire became no run: %(reason)s (%(detail)s).")
        if skip.detail
        else N_("This fire became no run: %(reason)s.")
    )
    said: list[tuple[str, dict[str, object]]] = [(text, dict(reason))]
    facts: dict[str, object] = {"decided": At(skip.decided_at)}
    if skip.count > 1 and skip.fire_at is not None and skip.to_at is not None:
        facts |= {"n": skip.count, "first": At(skip.fire_at), "last": At(skip.to_at)}
        said.append((N_("Decided %(decided)s for %(n)s fires from %(first)s to %(last)s."), facts))
    else:
        said.append((N_("Decided %(decided)s."), facts))
    return Answer(view, at, "skipped", tuple(said), skip=skip, revision=save.revision)


# -- what the saves say ----------------------------------------------------------------------


def _saves(web: Web, job: str) -> Iterator[VersionView]:
    """Every save, newest first."""
    cursor: str | None = None
    while True:
        page = web.catalog.versions(job, limit=200, cursor=cursor)
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return


def _schedules(web: Web, save: VersionView, ident: str) -> tuple[tuple[Schedule, ...], bool]:
    """Its schedules as the job of that id has them, and whether this version of Crony can read them.

    Of calendars the days count that they have now.
    """
    job = jobs.parsed(save.document)
    if job is None:
        return (), False
    return due_schedules(job, ident, web.catalog.calendars.contents(names_of(job.schedules))), True


def _who(save: VersionView | None) -> str:
    return save.actor if save is not None and save.actor else "?"


def _without_record(
    web: Web,
    view: JobView,
    at: int,
    saves: list[VersionView],
    save: VersionView,
    schedules: tuple[Schedule, ...] | None,
    due: bool,
) -> Answer:
    facts: dict[str, object] = {"n": save.revision, "actor": _who(save)}
    revision = save.revision

    def answer(verdict: str, text: str, **values: object) -> Answer:
        return Answer(view, at, verdict, ((text, facts | values),), revision=revision)

    if save.action == "delete":
        return answer("deleted", N_("The job was deleted %(at)s by %(actor)s."), at=At(save.at))
    if save.document.get("enabled") is False:
        earlier = [each for each in saves if each.revision <= save.revision]
        on = next((i for i, each in enumerate(earlier) if each.document.get("enabled") is not False), len(earlier))
        began = earlier[max(0, on - 1)]
        text = N_("The job was paused, since %(since)s by %(who)s; fires during a pause are not due.")
        return answer("paused", text, since=At(began.at), who=_who(began))
    until = jobs.parsed(save.document)
    if until is not None and until.paused_until > at:
        ends = At(until.paused_until)
        return answer("paused", N_("The job was paused until %(until)s; fires during a pause are not due."), until=ends)
    done = _done(web, view.id)
    if done is not None and done.held_for and done.upto_at < at and revision == view.revision and due:
        return answer(
            "paused", N_("The leader paused the job %(since)s: %(reason)s. Fires during a pause are not due."),
            since=At(done.held_at), reason=Reason(done.held),
        )  # fmt: skip
    if schedules is None:
        return answer("unreadable", N_("Revision %(n)s was in force, which this version of Crony cannot read."))
    if not schedules and save.document.get("after"):
        text = N_("Revision %(n)s was in force, which has no schedule: it runs after other jobs only.")
        return answer("not_due", text)
    if not schedules:
        return answer("manual_only", N_("Revision %(n)s was in force, which has no schedule: it runs by hand only."))
    if not due and schedules[0].after_end:
        return _follows(web, view, at, facts, revision)
    if not due:
        return _not_due(view, at, schedules, facts, revision)
    if _came_before(web, view.id, at):
        text = N_("That fire had come already when revision %(n)s was saved, before a day was closed.")
        return answer("not_due", text)
    if at > SYSTEM.wall():
        return answer("not_yet", N_("It is due then by revision %(n)s; that moment has not come."))
    return _undecided(web, view, at, facts, revision)


def _follows(web: Web, view: JobView, at: int, facts: dict[str, object], revision: int) -> Answer:
    """Of a delay after the end nothing is due but what follows the end of the run before."""
    said = [
        (
            N_("Revision %(n)s was in force: each fire follows the end of the run before it, and none was due then."),
            facts,
        )
    ]
    now = view.standing
    if now is not None and revision == view.revision and now.awaits and at >= _fire_of(now.awaits):
        run: dict[str, object] = {"run": now.awaits}
        said.append((N_("It waits for the end of run %(run)s."), run))
        return Answer(view, at, "not_due", tuple(said), revision=revision)
    known = Filter(job=view.id, trigger=Trigger.SCHEDULE, until=at + 1)
    before = next(iter(archive.list_runs(web.db, known, limit=1).items), None)
    if before is not None and before.fire_at is not None and before.ended_at is not None:
        values = {"run": before.id, "before": At(before.fire_at), "ended": At(before.ended_at)}
        said.append((N_("The run before it, %(run)s, fired %(before)s and ended %(ended)s."), values))
    after = now.next_at if now is not None and now.next_at is not None and now.next_at > at else None
    if after is not None:
        said.append((N_("The next fire is %(after)s."), {"after": At(after)}))
    return Answer(
        view, at, "not_due", tuple(said), None, None, revision,
        int(before.fire_at) if before is not None and before.fire_at is not None else None, after,
    )  # fmt: skip


def _fire_of(run: str) -> int:
    """The instant of a fire's run."""
    return ids.parse_run_id(run).fire or 0


def _not_due(
    view: JobView, at: int, schedules: tuple[Schedule, ...], facts: dict[str, object], revision: int
) -> Answer:
    before, after = last_fire(schedules, at - FARTHEST, at - 1), next_fire(schedules, at)
    values = facts | {"before": At(before or 0), "after": At(after or 0)}
    text = N_("It was not due then: revision %(n)s was in force.")
    kept_out, moved_to = next((found for each in schedules if (found := each.kept_out(at))[0]), (False, None))
    if moved_to is not None:
        values["day"] = date_of(moved_to)
        text = N_("Revision %(n)s was in force: that day is closed by its calendars, and the fire moved to %(day)s.")
    elif kept_out:
        text = N_("Revision %(n)s was in force, whose calendars leave that time out.")
    if before is not None and after is not None:
        nearest = N_("The nearest fires by it are %(before)s and %(after)s.")
    elif before is not None:
        nearest = N_("The last fire by it was %(before)s; there are no later ones.")
    elif after is not None:
        nearest = N_("The first fire by it is %(after)s.")
    else:
        nearest = N_("It has no fire near that moment.")
    return Answer(view, at, "not_due", ((text, values), (nearest, values)), None, None, revision, before, after)


# -- how far the leader is -------------------------------------------------------------------


def _undecided(web: Web, view: JobView, at: int, facts: dict[str, object], revision: int) -> Answer:
    def answer(verdict: str, *said: tuple[str, dict[str, object]]) -> Answer:
        return Answer(view, at, verdict, said, revision=revision)

    done = _done(web, view.id)
    if done is not None and done.upto_at >= at:
        days = web.settings.retention_days
        if at < SYSTEM.wall() - days * 86400:
            return answer("not_kept", (N_("It was due; records are kept for %(days)s days only."), {"days": days}))
        return answer("no_record", (N_("It was due and is decided, but no record of it is found: report this."), {}))
    due = N_("It was due by revision %(n)s and is not decided yet."), facts
    if done is not None and done.held:
        text = N_("The leader does not fire the job until it is edited: %(reason)s.")
        return answer("held", due, (text, {"reason": Reason(done.held)}))
    if view.live_revision != view.revision:
        saved: dict[str, object] = {"n": view.revision}
        return answer("undecided", due, (N_("Revision %(n)s is saved and not live yet."), saved))
    if still := standstill.reasons(web, view.id):
        return answer("undecided", due, *((text, dict(values)) for text, values in still))
    if done is None:
        return answer("undecided", due)
    upto: dict[str, object] = {"upto": At(done.upto_at)}
    return answer("undecided", due, (N_("The leader has decided everything up to %(upto)s."), upto))


def _came_before(web: Web, job: str, at: int) -> bool:
    """Whether an edit found that what would be due then had come already, on the day it moved from or to."""
    found = web.client.get(web.keys.job(job))
    try:
        live = LiveJob.read(peek(found.value)) if found is not None else None
    except (UnknownRecord, ValueError, LookupError, TypeError):
        return False
    gone = live.crossed.without if live is not None else ()
    return at in gone or (live is not None and any(at in item.without for item in live.replaced))


def _done(web: Web, job: str) -> Done | None:
    found = web.client.get(web.keys.done(job))
    try:
        return Done.read(found.value) if found is not None else None
    except UnknownRecord:
        return None
