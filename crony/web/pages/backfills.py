"""A job's backfills: a form with a preview, how far each is, and stopping them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from crony.catalog.views import JobView
from crony.clock import SYSTEM, rfc3339
from crony.domain import ids
from crony.domain.backfill import Backfill
from crony.errors import Invalid, Unavailable
from crony.lifecycle import backfill as backfills
from crony.web import backfilling, formats
from crony.web.auth import OPERATOR, Identity, address_of
from crony.web.backfilling import BackfillOptions
from crony.web.forms import only
from crony.web.pages.common import Form, TheWeb, Who, go
from crony.web.wiring import Web

router = APIRouter()

FIELDS = ("start", "end", "parallel", "order")
SHOWN = 20
"""Most instants shown before it begins."""


def tab(web: Web, who: Identity, view: JobView, zone: str, given: dict[str, str]) -> dict[str, Any]:
    """What the tab of a job shows: the fields, what they would run or why not, and its backfills."""
    away: list[Unavailable] = []
    found: list[Backfill] = []
    try:
        found = backfills.look(web.client, web.keys, view.id)
    except Unavailable as error:
        away.append(error)
    fields = _fields(view, zone) | {key: value for key, value in given.items() if value}
    planned, wrong = None, None
    if given.get("start"):
        try:
            planned = _plan(web, who, view, zone, fields)
        except Invalid as error:
            wrong = error
    return {
        "fields": fields,
        "planned": planned,
        "instants": planned.next(SHOWN) if planned else (),
        "wrong": wrong,
        "backfills": found,
        "key": ids.fresh("w"),
        "away": away,
    }


@router.post("/jobs/{job}/backfill", dependencies=[Depends(OPERATOR)])
def begin(web: TheWeb, who: Who, request: Request, job: str, form: Form) -> Response:
    """Begin what was previewed. `key` was made with the preview, so that a double click is one backfill."""
    values = only(form, *FIELDS, "key")
    view = web.catalog.get(job)
    wanted = _plan(web, who, view, "UTC", values, values.get("key") or None)
    backfilling.begin(web, who, wanted, address_of(request))
    return go(f"/jobs/{view.id}?tab=backfill", "backfill")


@router.post("/backfills/{ident}/cancel", dependencies=[Depends(OPERATOR)])
def cancel(web: TheWeb, who: Who, request: Request, ident: str, form: Form) -> Response:
    """Start no more of it, or also cancel what runs."""
    values = only(form, "running")
    found = backfilling.stop(web, who, ident, running=values.get("running") == "1", address=address_of(request))
    return go(f"/jobs/{found.job}?tab=backfill", "backfill-stopped")


def _fields(view: JobView, zone: str) -> dict[str, str]:
    """What the form begins with: the last day that is over, where the schedule lives."""
    day = formats.absolute(SYSTEM.wall(), zone)[:10]
    before = formats.absolute(SYSTEM.wall() - 86400, zone)[:10]
    return {"start": f"{before} 00:00:00", "end": f"{day} 00:00:00", "parallel": "1", "order": "oldest"}


def _plan(
    web: Web, who: Identity, view: JobView, zone: str, values: dict[str, str], key: str | None = None
) -> Backfill:
    """The backfill that the fields mean; times without an offset are meant in `zone`."""
    moments = {}
    for name, told in (("start", "from"), ("end", "to")):
        moment = formats.instant(values.get(name, ""), zone)
        if moment is None:
            raise Invalid(told, "is not a time", hint="write it as 2026-12-01 09:00:00")
        moments[told] = str(rfc3339(moment))
    if not values.get("parallel", "").strip().isdigit():
        raise Invalid("parallel", "must be a whole number")
    if values.get("order") not in ("oldest", "newest"):
        raise Invalid("order", "is not one of the choices")
    options = BackfillOptions.model_construct(
        from_=moments["from"], to=moments["to"], parallel=int(values["parallel"]), order=values["order"], params={}
    )
    return backfilling.plan(web, who, view.id, options, key)
