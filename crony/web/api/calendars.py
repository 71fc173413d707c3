"""`/api/v1/calendars`: the days that schedules keep to; saving one publishes the jobs that use it anew."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import APIRouter, Depends, Request, Response

from crony.clock import rfc3339
from crony.domain.calendar import calendar_name
from crony.errors import Invalid
from crony.web import explaining, shapes
from crony.web.api.jobs import TheWeb, Who
from crony.web.api.query import MaybeIfMatch, etag
from crony.web.auth import ADMIN, VIEWER, address_of
from crony.web.forms import json_object
from crony.web.problems import Precondition

router = APIRouter(tags=["calendars"])

_DOCUMENT = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}


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


@router.get("/calendars/{name}/versions", dependencies=[Depends(VIEWER)])
def versions(web: TheWeb, name: str) -> dict[str, Any]:
    """The saves of a calendar, newest first, also of a deleted one."""
    items = [
        {"revision": v.revision, "action": v.action, "actor": v.actor, "at": rfc3339(v.at), "document": v.document}
        for v in web.catalog.calendars.versions(unquote(name))
    ]
    return {"items": items, "next_cursor": None}


@router.put("/calendars/{name}", dependencies=[Depends(ADMIN)], openapi_extra=_DOCUMENT)
def put(
    web: TheWeb,
    who: Who,
    request: Request,
    response: Response,
    name: str,
    document: Annotated[dict[str, Any], Depends(json_object)],
    revision: MaybeIfMatch,
) -> dict[str, Any]:
    """Create or replace a calendar; its jobs follow at once. 202: saved, `waiting` jobs follow when etcd is back.

    `warnings`, if any, name likely mistakes."""
    name = calendar_name(unquote(name))
    if document.get("name", name) != name:
        raise Invalid("name", "is not the one of the address", hint="write the same name, or leave it out")
    _check(web, name, revision)
    view = web.catalog.calendars.save(
        {**document, "name": name}, who.actor, revision=revision, address=address_of(request)
    )
    response.headers["etag"], response.status_code = etag(view.revision), 202 if view.waiting else 200
    warnings = explaining.warnings(view.warnings)
    return {**shapes.calendar(view), "waiting": list(view.waiting), **({"warnings": warnings} if warnings else {})}


@router.delete("/calendars/{name}", status_code=204, dependencies=[Depends(ADMIN)])
def delete(web: TheWeb, who: Who, request: Request, name: str, revision: MaybeIfMatch) -> None:
    """Delete a calendar. 409 with their names while jobs keep to it."""
    name = unquote(name)
    _check(web, name, revision)
    web.catalog.calendars.delete(name, who.actor, revision=revision, address=address_of(request))


def _check(web: TheWeb, name: str, revision: int | None) -> None:
    if revision is not None and (found := web.catalog.calendars.get(name)).revision != revision:
        raise Precondition(
            f"The calendar is at revision {found.revision}, not {revision}", hint="load it again and repeat your change"
        )
