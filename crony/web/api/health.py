"""Health, version, figures and the API's own description. Details are for those who are signed in."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.routing import iter_route_contexts
from prometheus_client import CONTENT_TYPE_LATEST

from crony.clock import rfc3339
from crony.domain import tzdata
from crony.errors import CronyError
from crony.web import standstill
from crony.web.api.jobs import TheWeb
from crony.web.auth import ANYBODY, PUBLIC, VIEWER
from crony.web.metrics import exposition
from crony.web.wiring import Web

router = APIRouter(tags=["health"])
v1 = APIRouter(tags=["health"])


@router.get("/livez", dependencies=[Depends(PUBLIC)])
def livez() -> Response:
    """This process answers."""
    return Response("alive\n", media_type="text/plain")


@router.get("/readyz", dependencies=[Depends(PUBLIC)])
def readyz(web: TheWeb, request: Request, verbose: Annotated[str | None, Query(max_length=10)] = None) -> Response:
    """Whether what the web needs is there; names what is away. `?verbose` adds details for those signed in."""
    health = web.health()
    lines = [f"{name}: away" for name in health.away]
    if health.halted:
        lines.append("etcd: halted, it was restored")
    down, lines = bool(lines), lines or ["ready"]
    if verbose is not None and request.state.identity is not None:
        lines = [
            f"etcd: {health.halted or health.etcd or 'there'}",
            *([f"etcd version: {health.etcd_facts.version}"] if health.etcd_facts else []),
            *_stopped(web),
            *_leaders(web),
            f"time zone data: {_tzdata(web)}",
            f"database: {health.database or f'there ({health.database_ms:.1f} ms)'}",
            *([f"database: restored to an earlier state; {health.behind}"] if health.behind else []),
        ]
    return Response("\n".join(lines) + "\n", 503 if down else 200, media_type="text/plain")


def _stopped(web: Web) -> list[str]:
    """A line when the stop switch is set; not ready it is not, for it was asked for."""
    try:
        switch = web.live.switch()
    except CronyError:
        return []
    reason = f": {switch.reason}" if switch.reason else ""
    return [f"dispatch: stopped by {switch.by or '?'} at {rfc3339(switch.at)}{reason}"] if switch.stop else []


def _leaders(web: Web) -> list[str]:
    """A line for each shard, and one for each centre that may not lead."""
    try:
        centres = web.live.centres()
    except CronyError:
        return []
    if centres.sharding is None:
        return ["shards: their number cannot be read, and nobody leads; try `crony shards N`"]
    names = {shard: told.name for shard, told in centres.leaders.items()}
    lines = [f"shard {shard}: {names.get(shard, 'nobody leads')}" for shard in range(centres.sharding.count)]
    return [
        *lines,
        *(f"centre {each.name}: does not lead, {each.why}" for each in centres.running.values() if each.why),
        *(f"dispatch: {hold.sentence('en')}" for hold in standstill.holds(centres)),
    ]


def _tzdata(web: Web) -> str:
    """The releases that this web, which shows, and the centres, which decide, go by."""
    try:
        centres = web.live.centres().tzdata
    except CronyError:
        centres = {}
    return "; ".join([f"web {tzdata.version()}", *(f"centre {name} {release}" for name, release in centres.items())])


@router.get("/version", dependencies=[Depends(ANYBODY)])
def version(web: TheWeb) -> dict[str, str | None]:
    """Which Crony answers; the time zone data by which it shows times, and those by which the leader decides."""
    try:
        centres = web.live.centres()
        leader = centres.leaders.get(0)
        facts = centres.running.get(leader.centre) if leader else None
    except CronyError:
        facts = None
    leads = (facts.tzdata or None) if facts else None
    return {"name": "crony", "version": web.version, "tzdata": tzdata.version(), "leader_tzdata": leads}


@router.get("/metrics", dependencies=[Depends(VIEWER)])
def metrics(web: TheWeb) -> Response:
    """Figures for Prometheus, of all centres and nodes and of this web; what is away is missing, as `crony_up` says."""
    return Response(exposition(web), media_type=CONTENT_TYPE_LATEST)


@v1.get("/openapi.json", dependencies=[Depends(ANYBODY)], include_in_schema=False)
def openapi(web: TheWeb, request: Request) -> dict[str, Any]:
    """The description of this API."""
    routes = [route for route in iter_route_contexts(request.app.routes) if (route.path or "").startswith("/api/")]
    return get_openapi(
        title="Crony", version=web.version, routes=routes, summary="A distributed scheduled-job platform",
        description="Errors are RFC 9457 problems. Lists are pages: pass `next_cursor` as `cursor`.",
    )  # fmt: skip
