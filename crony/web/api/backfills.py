"""`/api/v1/backfills`, and asking for one: a period of a job that is run because somebody wants it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from crony.lifecycle import backfill as backfills
from crony.web import backfilling
from crony.web.api.jobs import TheWeb, Who
from crony.web.api.query import IdempotencyKey, Ref, one_key
from crony.web.auth import OPERATOR, VIEWER, address_of
from crony.web.backfilling import BackfillOptions, StopOptions
from crony.web.forms import body_schema, json_model

router = APIRouter(tags=["backfills"])


@router.post(
    "/jobs/{ref}:backfill",
    status_code=202,
    dependencies=[Depends(OPERATOR)],
    openapi_extra=body_schema(BackfillOptions),
)
def ask(
    web: TheWeb,
    who: Who,
    request: Request,
    response: Response,
    ref: Ref,
    key: IdempotencyKey,
    options: Annotated[BackfillOptions, Depends(json_model(BackfillOptions))],
) -> dict[str, Any]:
    """Run every instant of a period, whether it ran or not; 200 with `dry_run`: only what would run."""
    wanted = backfilling.plan(web, who, ref, options, one_key(key, options.idempotency_key))
    if options.dry_run:
        response.status_code = 200
        return backfilling.preview(wanted)
    found, created = backfilling.begin(web, who, wanted, address_of(request))
    response.headers["location"] = f"/api/v1/backfills/{found.id}"
    return {**backfilling.body(found), "created": created}


@router.get("/backfills", dependencies=[Depends(VIEWER)])
def list_backfills(
    web: TheWeb, job: Annotated[str | None, Query(max_length=255, description="name or id")] = None
) -> dict[str, Any]:
    """Backfills under way and those that ended within a week, newest first."""
    wanted = None if job is None else web.catalog.get(job).id
    items = [backfilling.body(each) for each in backfills.look(web.client, web.keys, wanted)]
    return {"items": items, "next_cursor": None}


@router.get("/backfills/{ident}", dependencies=[Depends(VIEWER)])
def get(web: TheWeb, ident: str) -> dict[str, Any]:
    """One backfill and how far it is."""
    return backfilling.body(backfills.find(web.client, web.keys, ident))


@router.post("/backfills/{ident}:cancel", dependencies=[Depends(OPERATOR)], openapi_extra=body_schema(StopOptions))
def cancel(
    web: TheWeb,
    who: Who,
    request: Request,
    ident: str,
    options: Annotated[StopOptions, Depends(json_model(StopOptions, optional=True))],
) -> dict[str, Any]:
    """Start no more runs of it, and with `running` cancel those under way; the leader does it."""
    found = backfilling.stop(web, who, ident, running=options.running, address=address_of(request))
    return backfilling.body(found)
