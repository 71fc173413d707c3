"""`/api/v1/alerts`: what people must know: failed runs, lost nodes, a changed leader."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query

from crony.store import alerts
from crony.web import shapes
from crony.web.api.jobs import TheWeb
from crony.web.api.query import Cursor, Limit, instant
from crony.web.api.runs import job_id
from crony.web.auth import VIEWER

router = APIRouter(tags=["alerts"])

Kind = Literal[
    "run_failed",
    "run_held",
    "job_paused",
    "job_held",
    "node_lost",
    "leader_changed",
    "tzdata",
    "queue_age",
    "recovered",
    "failure_rate",
    "test",
    "not_kept",
    "unreadable",
]
Text = Annotated[str | None, Query(max_length=255)]


@router.get("/alerts", dependencies=[Depends(VIEWER)])
def list_alerts(
    web: TheWeb,
    kind: Kind | None = None,
    job: Text = None,
    node: Text = None,
    since: Text = None,
    until: Text = None,
    limit: Limit = None,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Alerts, newest first: runs that failed for good or are not begun, nodes lost, another centre leading."""
    wanted = alerts.Wanted(
        kind=kind, job=job_id(web, job), node=node, since=instant(since, "since"), until=instant(until, "until")
    )
    page = alerts.list_alerts(web.db, wanted, limit=limit, cursor=cursor)
    return {"items": [shapes.alert(item) for item in page.items], "next_cursor": page.next_cursor}
