"""`/api/v1/control`: the stop switch of the whole platform."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from crony.clock import rfc3339
from crony.lifecycle.hold import Switch, turn
from crony.web.api.jobs import TheWeb, Who
from crony.web.auth import OPERATOR, VIEWER, Identity, address_of
from crony.web.forms import body_schema, json_model
from crony.web.triggering import note
from crony.web.wiring import Web

router = APIRouter(tags=["control"])


class Turn(BaseModel):
    """How the switch shall stand, and why."""

    model_config = ConfigDict(extra="forbid")

    stop: bool
    reason: Annotated[str, Field(max_length=200)] = ""


@router.get("/control", dependencies=[Depends(VIEWER)])
def control(web: TheWeb) -> dict[str, Any]:
    """Whether dispatch is stopped, by whom, when and why."""
    return _shape(web.live.switch())


@router.put("/control", dependencies=[Depends(OPERATOR)], openapi_extra=body_schema(Turn))
def change(web: TheWeb, who: Who, request: Request, body: Annotated[Turn, Depends(json_model(Turn))]) -> dict[str, Any]:
    """Stop all dispatch, or let it go on. What runs goes on; cancels work."""
    return _shape(set_switch(web, who, body.stop, body.reason, address_of(request)))


def set_switch(web: Web, who: Identity, stop: bool, reason: str, address: str) -> Switch:
    """Turn the switch and say so in the audit."""
    found = turn(web.client, web.keys, stop, by=who.actor, reason=reason)
    web.live.forget()
    note(web, who, "control.stop" if stop else "control.go", "control", "dispatch", {"reason": reason}, address)
    return found


def _shape(found: Switch) -> dict[str, Any]:
    return {
        "stop": found.stop,
        "by": found.by or None,
        "reason": found.reason or None,
        "at": rfc3339(found.at) if found.at else None,
    }
