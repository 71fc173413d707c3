"""`/api/v1/alerts`: what people must know: failed runs, lost nodes, a changed leader; and to whom each was sent."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict

from crony.domain.channel import parse_destinations
from crony.store import alerts
from crony.web import alerting, shapes
from crony.web.api.jobs import TheWeb, Who
from crony.web.api.query import Cursor, Limit, instant
from crony.web.api.runs import job_id
from crony.web.auth import ADMIN, VIEWER, address_of
from crony.web.forms import body_schema, json_model

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
    "late",
    "missed",
    "too_long",
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


class Test(BaseModel):
    """Whom a test alert goes to: channels and addresses; None: all that the alert rules name."""

    model_config = ConfigDict(extra="forbid")
    to: list[str] | None = None


@router.post("/alerts:test", status_code=202, openapi_extra=body_schema(Test), dependencies=[Depends(ADMIN)])
def test(
    web: TheWeb, who: Who, request: Request, body: Annotated[Test, Depends(json_model(Test, optional=True))]
) -> dict[str, Any]:
    """Have the leader send a test alert as it sends every other; without `to` to all that the alert rules name.

    What became of it stands in the list of alerts, under the `id` of the answer.
    """
    to = parse_destinations(body.to, "to") if body.to is not None else None
    return {"id": alerting.test(web, who.actor, to, address_of(request))}
