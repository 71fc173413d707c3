"""`/api/v1/runs`: runs from the archive and from etcd, their output, and stopping them; skipped fires; figures."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from starlette.responses import StreamingResponse

from crony.clock import SYSTEM
from crony.domain import ids
from crony.domain.outcome import Kind
from crony.domain.stamps import Source, only
from crony.errors import Conflict, Invalid, NotFound
from crony.lifecycle import enqueue
from crony.store import output
from crony.store import runs as archive
from crony.store.skips import list_skips
from crony.web import parts, platform_shapes, printed, runs, shapes
from crony.web.api.jobs import TheWeb, Who
from crony.web.api.query import Cursor, Limit, instant
from crony.web.auth import OPERATOR, VIEWER, address_of
from crony.web.triggering import let_go_on, note
from crony.web.wiring import Web

router = APIRouter(tags=["runs"])

State = Literal["requested", "waiting", "queued", "running", "accepted", "ended"]
Ended = Literal["succeeded", "failed", "timed_out", "cancelled", "lost", "unknown", "refused"]
Why = Literal["schedule", "manual", "api", "enqueue", "backfill", "chain"]
Stream = Literal["stdout", "stderr", "log", "crony"]
Text = Annotated[str | None, Query(max_length=255)]
PIECE = 1 << 20
"""Most bytes of output in one answer."""


def job_id(web: Web, ref: str | None) -> str | None:
    """The id of a job given by id or name; an id nobody knows (any more) is taken as it is."""
    if ref is None:
        return None
    try:
        found: str = web.catalog.get(ref).id
        return found
    except NotFound:
        return ref


@router.get("/runs", dependencies=[Depends(VIEWER)])
def list_runs(
    web: TheWeb,
    job: Text = None,
    state: State | None = None,
    outcome: Ended | None = None,
    node: Text = None,
    trigger: Why | None = None,
    since: Text = None,
    until: Text = None,
    limit: Limit = None,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Runs, newest first; live ones on the first page."""
    wanted = archive.Filter(
        job=job_id(web, job), outcome=outcome, state=state, node=node, trigger=trigger,
        since=instant(since, "since"), until=instant(until, "until"),
    )  # fmt: skip
    found, after, away = runs.list_runs(web.db, web.live, wanted, limit=limit, cursor=cursor)
    if away:
        raise away[0]  # half a list must not look like a whole one to a program
    return {"items": [shapes.run(run) for run in found], "next_cursor": after}


@router.get("/skips", dependencies=[Depends(VIEWER)])
def skips(
    web: TheWeb, job: Text = None, since: Text = None, until: Text = None, limit: Limit = None, cursor: Cursor = None
) -> dict[str, Any]:
    """Fires that became no run, with their reasons."""
    page = list_skips(
        web.db, job=job_id(web, job), since=instant(since, "since"), until=instant(until, "until"),
        limit=limit, cursor=cursor,
    )  # fmt: skip
    return {"items": [shapes.skip(item) for item in page.items], "next_cursor": page.next_cursor}


@router.get("/stats", dependencies=[Depends(VIEWER)])
def stats(web: TheWeb, hours: Annotated[int, Query(ge=1, le=24 * 31)] = 24) -> dict[str, Any]:
    """Runs by outcome in the last `hours`, live runs by state, nodes by state, who leads, shards nobody leads."""
    now = SYSTEM.wall()
    alive: dict[str, int] = {}
    for run in web.live.runs():
        if run.parts and run.part is None:
            continue  # its parts are counted
        alive[str(run.state)] = alive.get(str(run.state), 0) + 1
    nodes: dict[str, int] = {}
    for node in web.live.nodes().values():
        nodes[node.state] = nodes.get(node.state, 0) + 1
    return {
        "hours": hours,
        "outcomes": archive.counts(web.db, since=now - hours * 3600),
        "live": alive,
        "nodes": nodes,
        "leader": platform_shapes.leading(web.live.centres().leaders.get(0)),
        "shards_vacant": web.live.centres().vacant,
    }


@router.get("/runs/{run}/output", dependencies=[Depends(VIEWER)])
def read_output(
    web: TheWeb,
    run: str,
    attempt: Annotated[int | None, Query(ge=1, le=1000)] = None,
    offset: Annotated[int, Query(ge=0, le=2**40)] = 0,
    follow: bool = False,
    stream: Annotated[Stream | None, Query(description="only what came by this stream")] = None,
    times: bool = False,
    last_event_id: Annotated[int | None, Header(ge=0, le=2**40)] = None,
) -> Response:
    """Raw output from a byte offset. `X-Next-Offset` is where to go on, `X-Output-State` whether more will come.

    With `times=true` lines of JSON: stream, time and text of each piece. With `follow=true` server-sent events of the
    same: what there is, then what comes, to the end of the attempt; a reader that comes back with `Last-Event-ID` goes
    on where it was.
    """
    check_run(run)
    wanted = printed.source_of(stream)
    if follow:
        return _followed(web, run, attempt, offset if last_event_id is None else last_event_id, wanted)
    if attempt is None:
        states = output.states(web.db, run)
        attempt = states[-1].attempt if states else 1
    piece = output.read(web.db, run, attempt, offset, limit=PIECE)
    if not piece.data and not piece.eof and not offset:
        found, _ = runs.find(web.db, web.live, run)  # 404 for a run nobody knows
        if found.in_parts:
            hint = f"each part has an output of its own: that of {ids.part_id(run, 0)}, say"
            raise Conflict(f"Run {run} is carried out in parts", hint=hint)
    idle = piece.eof or not piece.data
    ended = idle and runs.output_ended(web.db, web.live, run, attempt, brought=piece.eof)
    body, following = only(piece.data, piece.stamps, wanted), piece.next
    if times:
        body, following = printed.lines(piece, wanted)
    return Response(
        body,
        media_type="application/x-ndjson" if times else "text/plain; charset=utf-8",
        headers={
            "x-next-offset": str(following),
            "x-output-state": printed.state_of(piece, ended=ended),
            "x-output-attempt": str(attempt),
            "content-disposition": f"attachment; filename=output.{'jsonl' if times else 'txt'}",
        },
    )


def _followed(web: Web, run: str, attempt: int | None, offset: int, wanted: Source) -> Response:
    found, _ = runs.find(web.db, web.live, run)
    if found.in_parts:
        hint = f"follow a part, {ids.part_id(run, 0)}, say"
        raise Conflict(f"Run {run} is carried out in parts", hint=hint)
    attempt = attempt or max(1, found.attempt)
    events = web.tails.follow(run, attempt, offset, wanted)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no", "x-output-attempt": str(attempt)}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


@router.post("/runs/{run}:cancel", status_code=202, dependencies=[Depends(OPERATOR)])
def cancel(web: TheWeb, who: Who, request: Request, run: str) -> dict[str, Any]:
    """Ask for a run to be stopped; the leader decides, a node that holds it obeys."""
    check_run(run)
    found, _ = runs.find(web.db, web.live, run)
    if not found.live:
        if found.outcome == Kind.CANCELLED:
            return {"run": run, "state": "ended"}
        raise Conflict(f"The run ended already as {found.outcome}")
    enqueue.cancel(web.client, web.keys, run, by=who.actor, reason=f"cancelled by {who.actor}")
    web.live.forget()
    note(web, who, "run.cancel", "run", run, {"job": found.job_name}, address_of(request))
    return {"run": run, "state": found.state}


@router.post("/runs/{run}:release", status_code=202, dependencies=[Depends(OPERATOR)])
def release(web: TheWeb, who: Who, request: Request, run: str) -> dict[str, Any]:
    """Let a run go on that is on hold because its node was lost; its next attempt follows."""
    check_run(run)
    let_go_on(web, who, run, address_of(request))
    return {"run": run, "state": "waiting"}


@router.get("/runs/{run}/parts", dependencies=[Depends(VIEWER)])
def list_parts(
    web: TheWeb,
    run: str,
    first: Annotated[int, Query(ge=0, le=100_000, description="number of the first part wanted")] = 0,
    limit: Limit = None,
) -> dict[str, Any]:
    """The parts of a run in order, with their outcomes and results; those that are not made yet are left out."""
    check_run(run)
    found, away = runs.find(web.db, web.live, run)
    if away:
        raise away[0]
    size = limit or parts.MOST
    items = parts.parts(web.db, web.live, run, first=first, limit=size)
    after = first + size
    return {
        "items": [shapes.run(item) for item in items],
        "total": found.parts if found.in_parts else 0,
        "next": after if found.in_parts and after < found.parts else None,
    }


@router.get("/runs/{run}", dependencies=[Depends(VIEWER)])
def get(web: TheWeb, run: str) -> dict[str, Any]:
    """One run with its attempts."""
    check_run(run)
    found, away = runs.find(web.db, web.live, run)
    if away and found.live:
        raise away[0]
    return shapes.run(found, attempts=True)


def check_run(run: str) -> None:
    """Raises `Invalid` for what cannot be a run id: it goes into keys."""
    try:
        parts = ids.parse_run_id(run)
    except ValueError:
        raise Invalid("run", "is not a run id") from None
    if len(run) > 128 or not all(c.isascii() and (c.isalnum() or c in "._-") for c in run) or not parts.job:
        raise Invalid("run", "is not a run id")
