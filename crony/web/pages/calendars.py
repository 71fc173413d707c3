"""Calendars: the days that schedules keep to, edited as documents."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from crony.catalog.calendars import CalendarView
from crony.errors import Conflict, CronyError, Invalid
from crony.web import documents
from crony.web.auth import ADMIN, VIEWER, Identity, address_of
from crony.web.forms import only
from crony.web.pages.common import Form, TheWeb, Who, go
from crony.web.wiring import Web

router = APIRouter()

EXAMPLE = """name: workdays
description: Monday to Friday, without holidays.
weekdays: [mon, tue, wed, thu, fri]
include: []                         # days taken in: "2026-02-14"
exclude: []                         # days taken out: "2026-10-01..2026-10-07"
periods: []                         # {start: "2026-12-31T20:00:00+08:00", end: "2027-01-01T06:00:00+08:00"}
"""


@router.get("/calendars", dependencies=[Depends(VIEWER)])
def page(web: TheWeb, request: Request) -> Response:
    """All calendars with the jobs that keep to them."""
    return web.render.page(request, "calendars.html", section="calendars", calendars=web.catalog.calendars.every())


@router.get("/calendars/new", dependencies=[Depends(ADMIN)])
def new(web: TheWeb, request: Request) -> Response:
    """An empty calendar."""
    return _page(web, request, None, EXAMPLE)


@router.post("/calendars/new", dependencies=[Depends(ADMIN)])
def create(web: TheWeb, who: Who, request: Request, form: Form) -> Response:
    """Save a new calendar; a name that is taken is refused."""
    return _save(web, who, request, form, None)


@router.get("/calendars/{name}", dependencies=[Depends(VIEWER)])
def one(web: TheWeb, request: Request, name: str) -> Response:
    """One calendar, its jobs and its document."""
    view = web.catalog.calendars.get(name)
    return _page(web, request, view, documents.write(view.document))


@router.post("/calendars/{name}", dependencies=[Depends(ADMIN)])
def update(web: TheWeb, who: Who, request: Request, name: str, form: Form) -> Response:
    """Save an edited calendar."""
    return _save(web, who, request, form, web.catalog.calendars.get(name))


@router.post("/calendars/{name}/delete", dependencies=[Depends(ADMIN)])
def delete(web: TheWeb, who: Who, request: Request, name: str, form: Form) -> Response:
    """Delete a calendar that no job keeps to."""
    only(form)
    web.catalog.calendars.delete(name, who.actor, address=address_of(request))
    return go("/calendars", "calendar-deleted")


def _save(web: Web, who: Identity, request: Request, form: dict[str, str], view: CalendarView | None) -> Response:
    values = only(form, "text", "revision")
    text, revision = values.get("text", ""), values.get("revision", "0")
    try:
        document: dict[str, Any] = documents.read(text)
        if view is not None and document.get("name") != view.name:
            raise Invalid("name", "cannot be changed", hint="make a new calendar, then change the jobs")
        if not revision.isdigit():
            raise Conflict("The form is out of date", hint="reload the page and try again")
        seen = 0 if view is None else int(revision)
        saved = web.catalog.calendars.save(document, who.actor, revision=seen, address=address_of(request))
    except (Invalid, Conflict) as error:
        return _page(web, request, view, text, error=error, revision=revision)
    return go(f"/calendars/{saved.name}", "calendar-waits" if saved.waiting else "calendar")


def _page(
    web: Web,
    request: Request,
    view: CalendarView | None,
    text: str,
    *,
    error: CronyError | None = None,
    revision: str | None = None,
) -> Response:
    status = 200 if error is None else int(error.status)
    return web.render.page(
        request, "calendar.html", status=status, error=error, section="calendars", view=view, text=text,
        revision=revision or (str(view.revision) if view else "0"),
    )  # fmt: skip
