"""`/api/v1/pools`: limits that jobs share, who holds them and who waits for a slot."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from fastapi import APIRouter, Depends, Response

from crony.web import shapes, waits
from crony.web.api import objects
from crony.web.api.jobs import TheWeb
from crony.web.api.query import etag
from crony.web.auth import VIEWER

router = APIRouter(tags=["pools"])


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


router.include_router(
    objects.routes(
        "pools",
        lambda web: web.catalog.pools,
        lambda view: objects.Told({**shapes.pool(waits.PoolState(view)), "live": view.live}, view.live),
        put_about="Create a pool or change its limit; leaders keep to it at once. "
        "202: saved, they do when etcd is back.",
        delete_about="Delete a pool. 409 with their names while jobs name it.",
        saved=lambda web: web.live.forget(),
    )
)
