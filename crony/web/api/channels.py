"""`/api/v1/channels` and `/api/v1/alert-rules`: where alerts can be sent, and which go where."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict

from crony.catalog.channels import ChannelView
from crony.catalog.objects import ObjectView
from crony.web import alerting, shapes
from crony.web.api import objects
from crony.web.api.jobs import TheWeb, Who
from crony.web.api.query import etag
from crony.web.auth import ADMIN, VIEWER, address_of
from crony.web.forms import body_schema, json_model

router = APIRouter(tags=["channels"])


class Test(BaseModel):
    """Whom a test goes to: an address, for a channel of e-mail without recipients."""

    model_config = ConfigDict(extra="forbid")
    to: str | None = None


@router.get("/channels", dependencies=[Depends(VIEWER)])
def list_channels(web: TheWeb) -> dict[str, Any]:
    """All channels by name, their secrets hidden. `failing`: why one cannot be used right now; null: nobody knows."""
    doing = alerting.doing(web)
    return {"items": [shapes.channel(view, doing) for view in web.catalog.channels.every()], "next_cursor": None}


@router.get("/channels/{name}", dependencies=[Depends(VIEWER)])
def get(web: TheWeb, name: str, response: Response) -> dict[str, Any]:
    """One channel, its secrets hidden. Its ETag is its revision."""
    view = web.catalog.channels.get(unquote(name))
    response.headers["etag"] = etag(view.revision)
    return shapes.channel(view, alerting.doing(web))


@router.post("/channels/{name}:test", openapi_extra=body_schema(Test), dependencies=[Depends(ADMIN)])
def test(
    web: TheWeb,
    who: Who,
    request: Request,
    name: str,
    body: Annotated[Test, Depends(json_model(Test, optional=True))],
) -> dict[str, Any]:
    """Send a test alert by this channel at once: `answer` is what the provider said. 502, with its words, when it did
    not take it."""
    channels = web.catalog.channels
    return {"answer": channels.test(unquote(name), who.actor, to=body.to, address_of=address_of(request))}


@router.get("/alert-rules", dependencies=[Depends(VIEWER)])
def list_rules(web: TheWeb) -> dict[str, Any]:
    """All alert rules by name."""
    return {"items": [shapes.alert_rule(view) for view in web.catalog.alert_rules.every()], "next_cursor": None}


@router.get("/alert-rules/{name}", dependencies=[Depends(VIEWER)])
def get_rule(web: TheWeb, name: str, response: Response) -> dict[str, Any]:
    """One alert rule. Its ETag is its revision."""
    view = web.catalog.alert_rules.get(unquote(name))
    response.headers["etag"] = etag(view.revision)
    return shapes.alert_rule(view)


def _told(view: ChannelView) -> objects.Told:
    return objects.Told({**shapes.channel(view), "live": view.live}, view.live)


def _told_rule(view: ObjectView) -> objects.Told:
    return objects.Told({**shapes.alert_rule(view), "live": view.live}, view.live)


router.include_router(
    objects.routes(
        "channels",
        lambda web: web.catalog.channels,
        _told,
        put_about="Create or replace a channel. A secret that is left out or hidden stays; it is encrypted before it "
        "is stored, and never shown again. 202: saved, the centre has it when etcd is back.",
        delete_about="Delete a channel. 409 with their names while jobs or alert rules name it.",
    )
)
router.include_router(
    objects.routes(
        "alert-rules",
        lambda web: web.catalog.alert_rules,
        _told_rule,
        put_about="Create or replace an alert rule. 202: saved, the centre goes by it when etcd is back.",
        delete_about="Delete an alert rule.",
    )
)
