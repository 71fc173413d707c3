"""`/api/v1/calendars`: the days that schedules keep to; saving one publishes the jobs that use it anew."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from fastapi import APIRouter, Depends, Response

from crony.catalog.calendars import CalendarView
from crony.web import explaining, shapes
from crony.web.api import objects
from crony.web.api.jobs import TheWeb
from crony.web.api.query import etag
from crony.web.auth import VIEWER

router = APIRouter(tags=["calendars"])


@router.get("/calendars", dependencies=[Depends(VIEWER)])
def list_calendars(web: TheWeb) -> dict[str, Any]:
    """All calendars by name."""
    return {"items": [shapes.calendar(view) for view in web.catalog.calendars.every()], "next_cursor": None}


@router.get("/calendars/{name}", dependencies=[Depends(VIEWER)])
def get(web: TheWeb, name: str, response: Response) -> dict[str, Any]:
    """One calendar with the jobs that keep to it; its ETag is its revision."""
    view = web.catalog.calendars.get(unquote(name))
    response.headers["etag"] = etag(view.revision)
    return shapes.calendar(view)


def _told(view: CalendarView) -> objects.Told:
    warnings = explaining.warnings(view.warnings)
    body = {**shapes.calendar(view), "waiting": list(view.waiting), **({"warnings": warnings} if warnings else {})}
    return objects.Told(body, not view.waiting)


router.include_router(
    objects.routes(
        "calendars",
        lambda web: web.catalog.calendars,
        _told,
        put_about="Create or replace a calendar; its jobs follow at once. 202: saved, `waiting` jobs follow when etcd "
        "is back. `warnings`, if any, name likely mistakes.",
        delete_about="Delete a calendar. 409 with their names while jobs keep to it.",
    )
)
