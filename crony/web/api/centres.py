"""`/api/v1/centres` and `/shards`: which centres run, who leads what, and how many shards there are."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from crony.domain.shards import MOST
from crony.lifecycle.shards import reshard
from crony.web import platform_shapes
from crony.web.api.jobs import TheWeb, Who
from crony.web.auth import ADMIN, VIEWER, address_of
from crony.web.forms import body_schema, json_model
from crony.web.triggering import note

router = APIRouter(tags=["centres"])


class Count(BaseModel):
    """How many shards there shall be."""

    model_config = ConfigDict(extra="forbid")

    count: Annotated[int, Field(ge=1, le=MOST)]


@router.get("/centres", dependencies=[Depends(VIEWER)])
def centres(web: TheWeb) -> dict[str, Any]:
    """Centres that run, their clocks, and who leads which shard.

    Of one that leads also for what it `holds` dispatch now (`clock`, `room`), and the jobs whose documents it does not
    act on, with why (`untrusted`).
    """
    return platform_shapes.centres(web.live.centres())


@router.put("/shards", dependencies=[Depends(ADMIN)], openapi_extra=body_schema(Count))
def change(
    web: TheWeb, who: Who, request: Request, body: Annotated[Count, Depends(json_model(Count))]
) -> dict[str, Any]:
    """Change the number of shards. Leaders of the old number dispatch nothing any more; others list anew and go on."""
    reshard(web.client, web.keys, body.count, by=who.actor)
    web.live.forget()
    note(web, who, "shards.set", "shards", "shards", {"count": body.count}, address_of(request))
    return platform_shapes.centres(web.live.centres())
