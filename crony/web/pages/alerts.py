"""Alerts: what a person must know, newest first, with its filters in the address."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from crony.domain.alert import Alert, AlertKind
from crony.errors import Unavailable
from crony.store.alerts import Wanted, list_alerts
from crony.web.api.runs import job_id
from crony.web.auth import VIEWER
from crony.web.pages.common import TheWeb

router = APIRouter()

KINDS = tuple(kind.value for kind in AlertKind)
Kind = Literal[
    "",
    "run_failed",
    "run_held",
    "job_paused",
    "job_held",
    "node_lost",
    "leader_changed",
    "tzdata",
    "queue_age",
    "recovered",
    "late",
    "missed",
    "too_long",
    "failure_rate",
    "test",
    "not_kept",
    "unreadable",
]


@router.get("/alerts", dependencies=[Depends(VIEWER)])
def page(
    web: TheWeb,
    request: Request,
    kind: Kind = "",
    job: Annotated[str, Query(max_length=255)] = "",
    node: Annotated[str, Query(max_length=255)] = "",
    cursor: Annotated[str | None, Query(max_length=2000)] = None,
) -> Response:
    """Alerts, newest first."""
    away: list[Unavailable] = []
    found, after = list[Alert](), None
    job, node = job.strip(), node.strip()
    try:
        wanted = Wanted(kind=kind or None, job=job_id(web, job) if job else None, node=node or None)
        paged = list_alerts(web.db, wanted, limit=50, cursor=cursor)
        found, after = paged.items, paged.next_cursor
    except Unavailable as error:
        away.append(error)
    query: dict[str, str | None] = {"kind": kind, "job": job, "node": node}
    return web.render.page(
        request, "alerts.html", away=away, section="alerts", alerts=found, filters=query, kinds=KINDS,
        filtered=any(query.values()), next_url=_url(query | {"cursor": after}) if after else None,
        first_url=_url(query) if cursor else None,
    )  # fmt: skip


def _url(query: dict[str, str | None]) -> str:
    kept = {key: value for key, value in query.items() if value}
    return f"/alerts?{urlencode(kept)}" if kept else "/alerts"
