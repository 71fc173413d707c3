"""Pools and waits: how much may run at a time, who holds it, and what waits for what."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from crony.catalog.pools import PoolView
from crony.errors import Conflict, CronyError, Invalid, Unavailable
from crony.lifecycle.look import LiveRun
from crony.web import waits
from crony.web.auth import ADMIN, VIEWER, Identity, address_of
from crony.web.forms import only
from crony.web.pages.common import Form, TheWeb, Who, go
from crony.web.wiring import Web

router = APIRouter()

SHOWN = 50
"""Most runs of one reason, or of one line, that a page shows; the list of runs has all."""
EMPTY = {"name": "", "limit": "1", "description": ""}


@router.get("/pools", dependencies=[Depends(VIEWER)])
def page(web: TheWeb, request: Request) -> Response:
    """Every pool, and the runs that wait for something else."""
    away: list[Unavailable] = []
    found: list[waits.PoolState] = []
    others: dict[str, list[LiveRun]] = {}
    try:
        found, away = waits.states(web.live, web.catalog.pools.every())
    except Unavailable as error:
        away.append(error)
    try:
        others = waits.others(web.live)
    except Unavailable as error:
        away = away or [error]
    return web.render.page(
        request, "pools.html", away=away, section="pools", pools=found, others=others, shown=SHOWN
    )  # fmt: skip


@router.get("/pools/new", dependencies=[Depends(ADMIN)])
def new(web: TheWeb, request: Request) -> Response:
    """An empty pool."""
    return _page(web, request, None, {})


@router.post("/pools/new", dependencies=[Depends(ADMIN)])
def create(web: TheWeb, who: Who, request: Request, form: Form) -> Response:
    """Save a new pool; a name that is taken is refused."""
    return _save(web, who, request, form, None)


@router.get("/pools/{name}", dependencies=[Depends(VIEWER)])
def one(web: TheWeb, request: Request, name: str) -> Response:
    """One pool: who holds its slots, who is next, and its limit to be changed."""
    view = web.catalog.pools.get(name)
    return _page(web, request, view, {"limit": str(view.limit), "description": view.description})


@router.post("/pools/{name}", dependencies=[Depends(ADMIN)])
def update(web: TheWeb, who: Who, request: Request, name: str, form: Form) -> Response:
    """Save a changed pool."""
    return _save(web, who, request, form, web.catalog.pools.get(name))


@router.post("/pools/{name}/delete", dependencies=[Depends(ADMIN)])
def delete(web: TheWeb, who: Who, request: Request, name: str, form: Form) -> Response:
    """Delete a pool that no job names."""
    only(form)
    web.catalog.pools.delete(name, who.actor, address=address_of(request))
    web.live.forget()
    return go("/pools", "pool-deleted")


def _save(web: Web, who: Identity, request: Request, form: dict[str, str], view: PoolView | None) -> Response:
    values = only(form, "name", "limit", "description", "revision")
    revision, limit = values.get("revision", "0"), values.get("limit", "").strip()
    try:
        if not revision.isdigit():
            raise Conflict("The form is out of date", hint="reload the page and try again")
        if not (limit.isascii() and limit.isdigit() and len(limit) < 10):
            raise Invalid("limit", "must be a whole number", hint="write 0 to 1000")
        name = view.name if view is not None else values.get("name", "").strip()
        document: dict[str, Any] = {"name": name, "limit": int(limit), "description": values.get("description", "")}
        seen = 0 if view is None else int(revision)
        saved = web.catalog.pools.save(document, who.actor, revision=seen, address=address_of(request))
    except (Invalid, Conflict) as error:
        return _page(web, request, view, values, error=error, revision=revision)
    web.live.forget()
    return go(f"/pools/{saved.name}", "pool" if saved.live else "pool-waits")


def _page(
    web: Web,
    request: Request,
    view: PoolView | None,
    values: dict[str, str],
    *,
    error: CronyError | None = None,
    revision: str | None = None,
) -> Response:
    found, away = waits.states(web.live, [view]) if view is not None else ([], [])
    return web.render.page(
        request, "pool.html", status=200 if error is None else int(error.status), error=error, away=away,
        section="pools", view=view, state=found[0] if found else None, values=EMPTY | values, shown=SHOWN,
        revision=revision or (str(view.revision) if view else "0"),
    )  # fmt: skip
