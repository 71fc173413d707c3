"""Runs: the list with its filters in the address, one run with reason, attempts and live output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from markupsafe import Markup
from starlette.responses import Response

from crony.catalog.views import JobView
from crony.domain.job import Job
from crony.domain.run import State
from crony.domain.stamps import cut
from crony.errors import Conflict, CronyError, NotFound, Unavailable
from crony.lifecycle import enqueue
from crony.store import output
from crony.store.runs import Filter
from crony.web import ansi, parts
from crony.web.api.runs import check_run, job_id
from crony.web.auth import OPERATOR, VIEWER, address_of
from crony.web.chains import is_chained
from crony.web.forms import only
from crony.web.jobs import parsed
from crony.web.pages.common import Form, TheWeb, Who, go
from crony.web.printed import state_of
from crony.web.runs import LIVE_STATES, OUTCOME_KINDS, Run, find, is_over, list_runs, output_ended
from crony.web.shown_output import to_html
from crony.web.triggering import let_go_on, note
from crony.web.wiring import Web

router = APIRouter()

TAIL = 256 * 1024
"""Bytes of output shown at first; the rest is a link away, never silently missing."""
PIECE = 128 * 1024
SHOWS = ("", "live", "bad", *OUTCOME_KINDS, *LIVE_STATES)
BAD = ("failed", "timed_out", "lost", "unknown", "refused")
TRIGGERS = ("schedule", "manual", "api", "enqueue", "backfill", "chain")


@router.get("/runs", dependencies=[Depends(VIEWER)])
def page(
    web: TheWeb,
    request: Request,
    job: Annotated[str, Query(max_length=255)] = "",
    show: Annotated[str, Query(max_length=20)] = "",
    node: Annotated[str, Query(max_length=255)] = "",
    trigger: Literal["", "schedule", "manual", "api", "enqueue", "backfill", "chain"] = "",
    cursor: Annotated[str | None, Query(max_length=2000)] = None,
) -> Response:
    """Runs, newest first."""
    show = show if show in SHOWS else ""
    away: list[Unavailable] = []
    job, node = job.strip(), node.strip()
    try:
        wanted = Filter(
            job=job_id(web, job) if job else None, node=node or None, trigger=trigger or None,
            state="live" if show == "live" else show if show in LIVE_STATES else None,
            outcome=BAD if show == "bad" else show if show in OUTCOME_KINDS else None,
        )  # fmt: skip
        found, after, away = list_runs(web.db, web.live, wanted, limit=50, cursor=cursor)
    except Unavailable as error:
        found, after = [], None
        away.append(error)
    query: dict[str, str | None] = {"job": job, "show": show, "node": node, "trigger": trigger}
    return web.render.page(
        request, "runs.html", away=away, section="runs", runs=found, brief=parts.shown(web, found), filters=query,
        filtered=any(query.values()),
        next_url=_url(query | {"cursor": after}) if after else None, first_url=_url(query) if cursor else None,
        chip=lambda value: _url(query | {"show": value}), outcomes=OUTCOME_KINDS, states=LIVE_STATES, triggers=TRIGGERS,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Output:
    """What the page shows of an attempt's output."""

    html: Markup
    start: int
    next: int
    size: int
    state: str
    """open, complete, truncated, removed, none (the run printed nothing or it is not here yet) or away"""
    excerpt: str = ""
    """The last lines, for the banner of a run that went badly."""


@router.get("/runs/{run}", dependencies=[Depends(VIEWER)])
def one(
    web: TheWeb,
    request: Request,
    run: str,
    attempt: Annotated[int | None, Query(ge=1, le=10_000)] = None,
    first: Annotated[int, Query(ge=0, le=100_000)] = 0,
    times: bool = False,
) -> Response:
    """One run: the reason on top, facts, attempts, output (`times`: with the time of each line); of a run in parts
    these, from number `first` on."""
    check_run(run)
    found, away = find(web.db, web.live, run)
    zone, shown = "UTC", attempt or max(1, found.attempt)
    view: JobView | None = None
    job: Job | None = None
    try:
        view = web.catalog.get(found.job)
        job = parsed(view.document)
        zone = job.schedules[0].timezone if job and job.schedules else "UTC"
    except NotFound:
        pass
    except Unavailable as error:
        away.append(error)
    listed: list[Run] = []
    if found.in_parts:
        try:
            listed = parts.parts(web.db, web.live, run, first=first)
        except Unavailable as error:
            away.append(error)
    following = first + parts.MOST
    return web.render.page(
        request, "run.html", away=away, section="runs", run=found, zone=zone, shown=shown, view=view, parts=listed,
        next_url=f"/runs/{run}?first={following}" if found.in_parts and following < found.parts else None,
        first_url=f"/runs/{run}" if first else None,
        chained=bool(found.chain) or (found.part is None and is_chained(web, found.job)),
        retries=job.retry.max if job else None, times=zone if times else "",
        output=_tail(web, found, shown, zone if times else ""),
    )  # fmt: skip


@router.get("/runs/{run}/output", dependencies=[Depends(VIEWER)])
def more(
    web: TheWeb,
    request: Request,
    run: str,
    attempt: Annotated[int, Query(ge=1, le=10_000)],
    offset: Annotated[int, Query(ge=0, lt=2**53)],
    times: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """The next piece of output with its follower; 204 while there is nothing new. `times`: the zone to show them in."""
    check_run(run)
    piece = output.read(web.db, run, attempt, offset, limit=PIECE)
    data = piece.data[: _whole_lines(piece.data, piece.eof)]
    idle = piece.eof or not data
    ended = idle and output_ended(web.db, web.live, run, attempt, brought=piece.eof)
    if not data and not ended:
        return Response(None, 204)
    if ended:
        data = piece.data
    html = to_html(data, cut(piece.stamps, 0, len(data)), times=times)
    return web.render.fragment(
        request, "output_more.html", run=run, shown=attempt, html=html, next=offset + len(data), times=times,
        state=state_of(piece, ended=ended),
    )  # fmt: skip


@router.post("/runs/{run}/cancel", dependencies=[Depends(OPERATOR)])
def cancel(web: TheWeb, who: Who, request: Request, run: str, form: Form) -> Response:
    """Ask for the run to be stopped."""
    only(form)
    check_run(run)
    found, _ = find(web.db, web.live, run)
    if not found.live:
        raise Conflict("The run ended meanwhile")
    enqueue.cancel(web.client, web.keys, run, by=who.actor, reason=f"cancelled by {who.actor}")
    web.live.forget()
    note(web, who, "run.cancel", "run", run, {"job": found.job_name}, address_of(request))
    return go(f"/runs/{run}", "cancelling")


@router.post("/runs/{run}/release", dependencies=[Depends(OPERATOR)])
def release(web: TheWeb, who: Who, request: Request, run: str, form: Form) -> Response:
    """Let a run on hold go on."""
    only(form)
    check_run(run)
    let_go_on(web, who, run, address_of(request))
    return go(f"/runs/{run}", "released")


def _tail(web: Web, run: Run, attempt: int, times: str) -> Output:
    """The last part of the output, from a line's beginning."""
    try:
        states = {state.attempt: state for state in output.states(web.db, run.id)}
        state = states.get(attempt)
        if state is None:
            return Output(Markup(), 0, 0, 0, "none" if is_over(run, attempt) else "open")
        if state.removed:
            return Output(Markup(), 0, 0, state.size, "removed")
        start = max(0, state.size - TAIL)
        piece = output.read(web.db, run.id, attempt, start, limit=TAIL)
    except CronyError:
        return Output(Markup(), 0, 0, 0, "away")
    skipped = piece.data.find(b"\n") + 1 if start else 0
    ended = (piece.eof and run.state != State.ACCEPTED) or is_over(run, attempt)
    stop = skipped + _whole_lines(piece.data[skipped:], ended)
    data = piece.data[skipped:stop]
    lines = [line for line in ansi.plain(data[-4000:].decode("utf-8", "replace")).splitlines() if line.strip()]
    html = to_html(data, cut(piece.stamps, skipped, stop), times=times)
    next_, status = start + stop, state_of(piece, ended=ended)
    return Output(html, start + skipped, next_, state.size, status, "\n".join(lines[-5:]))


def _whole_lines(data: bytes, ended: bool) -> int:
    """How many bytes go up to the last line end (all of them when ended)."""
    if ended:
        return len(data)
    end = data.rfind(b"\n") + 1
    if end == 0 and len(data) >= PIECE:
        end = len(data) - next((i for i in range(4) if (data[-1 - i] & 0xC0) != 0x80), 0) - 1
    return end


def _url(query: dict[str, str | None]) -> str:
    kept = {key: value for key, value in query.items() if value}
    return f"/runs?{urlencode(kept)}" if kept else "/runs"
