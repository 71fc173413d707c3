"""Asking for a backfill: planned from the job as it is saved, previewed or put for the leader, and stopped again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from crony.catalog.keeping import due_schedules, names_of
from crony.clock import rfc3339
from crony.domain import ids
from crony.domain.backfill import PARALLEL, Backfill, Stop, planned
from crony.domain.params import parse_params
from crony.errors import Conflict, Invalid, NotFound
from crony.lifecycle import backfill as backfills
from crony.web.api.query import instant
from crony.web.triggering import note

if TYPE_CHECKING:
    from crony.web.auth import Identity
    from crony.web.wiring import Web

SHOWN = 100
"""Most instants of a preview."""


class BackfillOptions(BaseModel):
    """Body of `jobs/{job}:backfill`. The period begins at `from` and ends before `to`."""

    model_config = ConfigDict(extra="forbid")

    from_: Annotated[str, Field(alias="from", max_length=40, description="RFC 3339 with offset")]
    to: Annotated[str, Field(max_length=40, description="RFC 3339 with offset; not later than now")]
    parallel: Annotated[int, Field(ge=1, le=PARALLEL, description="most runs of it that are alive at a time")] = 1
    order: Literal["oldest", "newest"] = "oldest"
    params: dict[str, Any] = Field(default_factory=dict, description="merged over the job's params")
    chain: Annotated[bool, Field(description="false: jobs that run after it do not follow its runs")] = True
    dry_run: Annotated[bool, Field(description="only say what would run")] = False
    idempotency_key: Annotated[str, Field(min_length=1, max_length=512)] | None = None


class StopOptions(BaseModel):
    """Body of `backfills/{id}:cancel`."""

    model_config = ConfigDict(extra="forbid")

    running: Annotated[bool, Field(description="also cancel those of its runs that are under way")] = False


def plan(web: Web, identity: Identity, ref: str, options: BackfillOptions, key: str | None = None) -> Backfill:
    """The backfill that the options mean. Raises `Invalid` naming the option, `NotFound`."""
    view = web.catalog.get(ref)
    if view.deleted_at is not None:
        raise NotFound(f"There is no job {ref}", why="it was deleted")
    start, end = instant(options.from_, "from"), instant(options.to, "to")
    assert start is not None and end is not None
    if not 1 <= options.parallel <= PARALLEL:
        raise Invalid("parallel", f"must be between 1 and {PARALLEL}")
    job = view.job
    known = web.catalog.calendars.contents(names_of(job.schedules))
    return planned(
        ident=ids.keyed_backfill_id(view.id, key) if key else ids.backfill_id(),
        job=view.id,
        name=view.name,
        generation=view.generation,
        schedules=due_schedules(job, view.id, known),
        schedule=json.dumps(job.filled(known).schedule_document(), ensure_ascii=False, separators=(",", ":")),
        start=start,
        end=end,
        now=web.client.now(),
        parallel=options.parallel,
        order=options.order,
        params=parse_params(options.params),
        no_chain=not options.chain,
        by=identity.actor,
    )


def begin(web: Web, identity: Identity, wanted: Backfill, address: str) -> tuple[Backfill, bool]:
    """Ask for it; the backfill, and whether this call made it. Raises `Conflict` when its key stands for another."""
    found, created = backfills.ask(web.client, web.keys, wanted)
    asked = ("job", "schedule", "from_at", "to_at", "order", "parallel", "params", "no_chain")
    if not created and any(getattr(found, name) != getattr(wanted, name) for name in asked):
        raise Conflict("The idempotency key stands for another backfill", hint="use a new key for new work")
    if created:
        period = {"from": rfc3339(wanted.from_at + 1), "to": rfc3339(wanted.to_at + 1), "total": wanted.total}
        note(web, identity, "job.backfill", "backfill", wanted.id, {"job": wanted.name, **period}, address)
    return found, created


def stop(web: Web, identity: Identity, ident: str, *, running: bool, address: str) -> Backfill:
    """Ask for it to stop. Raises `NotFound`, `Conflict` when it has ended."""
    found = backfills.stop(web.client, web.keys, ident, Stop.ALL if running else Stop.REST, by=identity.actor)
    web.live.forget()
    note(web, identity, "backfill.cancel", "backfill", ident, {"job": found.name, "running": running}, address)
    return found


def preview(wanted: Backfill) -> dict[str, Any]:
    """What would run, in the order in which it would."""
    instants = wanted.next(SHOWN)
    return {
        "count": wanted.total,
        "instants": [rfc3339(at) for at in instants],
        "more": wanted.total - len(instants),
    }


def body(found: Backfill) -> dict[str, Any]:
    """A backfill as the API gives it."""
    following = found.next(1) if found.state == "running" else ()
    return {
        "id": found.id,
        "job": found.job,
        "job_name": found.name,
        "state": found.state,
        "from": rfc3339(found.from_at + 1),
        "to": rfc3339(found.to_at + 1),
        "order": found.order,
        "parallel": found.parallel,
        "params": found.params,
        "chain": not found.no_chain,
        "total": found.total,
        "succeeded": found.succeeded,
        "failed": found.failed,
        "cancelled": found.cancelled,
        "running": found.alive,
        "left": found.left,
        "next_at": rfc3339(following[0]) if following else None,
        "reason": found.reason or None,
        "by": found.by,
        "stopped_by": found.stopped_by or None,
        "requested_at": rfc3339(found.requested_at),
        "ended_at": rfc3339(found.ended_at or None),
    }
