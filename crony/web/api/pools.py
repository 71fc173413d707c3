"""`/api/v1/pools`: limits that jobs share, who holds them and who waits for a slot."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import APIRouter, Depends, Request, Response

from crony.clock import rfc3339
from crony.domain.pool import pool_name
from crony.errors import Invalid
from crony.web import shapes, waits
from crony.web.api.jobs import TheWeb, Who
from crony.web.api.query import MaybeIfMatch, etag
from crony.web.auth import ADMIN, VIEWER, address_of
from crony.web.forms import json_object
from crony.web.problems import Precondition

router = APIRouter(tags=["pools"])

_DOCUMENT = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}


@router.get("/pools", dependencies=[Depends(VIEWER)])
def list_pools(web: TheWeb) -> dict[str, Any]:
    """All pools by name, with how many slots are held and how many runs wait; null when etcd is away."""
    found, _ = waits.states(web.live, web.catalog.pools.every())
    return {"items": [shapes.pool(state) for state in found], "next_cursor": None}


@router.get("/pools/{name}", dependencies=[Depends(VIEWER)])
def get(web: TheWeb, name: str, response: Response) -> dict[str, Any]:
    """One pool: the runs that hold its slots, and those in line, the next one first. Its ETag is its revision."""
    view = web.catalog.pools.get(unquote(name))
    response.headers["etag"] = etag(view.revision)
    found, away = waits.states(web.live, [view])
    if away:
        raise away[0]
    return shapes.pool(found[0], runs=True)


@router.get("/pools/{name}/versions", dependencies=[Depends(VIEWER)])
def versions(web: TheWeb, name: str) -> dict[str, Any]:
    """The saves of a pool, newest first, also of a deleted one."""
    items = [
        {"revision": v.revision, "action": v.action, "actor": v.actor, "at": rfc3339(v.at), "document": v.document}
        for v in web.catalog.pools.versions(unquote(name))
    ]
    return {"items": items, "next_cursor": None}


@router.put("/pools/{name}", dependencies=[Depends(ADMIN)], openapi_extra=_DOCUMENT)
def put(
    web: TheWeb,
    who: Who,
    request: Request,
    response: Response,
    name: str,
    document: Annotated[dict[str, Any], Depends(json_object)],
    revision: MaybeIfMatch,
) -> dict[str, Any]:
    """Create a pool or change its limit; leaders keep to it at once. 202: saved, they do when etcd is back."""
    name = pool_name(unquote(name))
    if document.get("name", name) != name:
        raise Invalid("name", "is not the one of the address", hint="write the same name, or leave it out")
    _check(web, name, revision)
    document = {**document, "name": name}
    view = web.catalog.pools.save(document, who.actor, revision=revision, address=address_of(request))
    web.live.forget()
    response.headers["etag"], response.status_code = etag(view.revision), 200 if view.live else 202
    return {**shapes.pool(waits.PoolState(view)), "live": view.live}


@router.delete("/pools/{name}", status_code=204, dependencies=[Depends(ADMIN)])
def delete(web: TheWeb, who: Who, request: Request, name: str, revision: MaybeIfMatch) -> None:
    """Delete a pool. 409 with their names while jobs name it."""
    name = unquote(name)
    _check(web, name, revision)
    web.catalog.pools.delete(name, who.actor, revision=revision, address=address_of(request))
    web.live.forget()


def _check(web: TheWeb, name: str, revision: int | None) -> None:
    if revision is not None and (found := web.catalog.pools.get(name)).revision != revision:
        raise Precondition(
            f"The pool is at revision {found.revision}, not {revision}", hint="load it again and repeat your change"
        )
