"""`/api/v1/nodes` and `/queues`: who runs things, how much each gets, and what waits where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from crony.domain.node import NodeControl
from crony.errors import Conflict, Invalid, NotFound
from crony.etcd.txn import Txn, mod
from crony.web import shapes
from crony.web.api.jobs import TheWeb, Who
from crony.web.auth import OPERATOR, VIEWER, Identity, address_of
from crony.web.forms import body_schema, json_model
from crony.web.triggering import note
from crony.web.wiring import Web

if TYPE_CHECKING:
    from crony.web.live import Node

router = APIRouter(tags=["nodes"])


class NodeChange(BaseModel):
    """What people may set for a node; fields left out stay as they are, `weight: null` gives the node its own back."""

    model_config = ConfigDict(extra="forbid")

    weight: Annotated[int, Field(ge=0, le=1000)] | None = None
    cordoned: bool = False
    drain: bool = False


@router.get("/nodes", dependencies=[Depends(VIEWER)])
def nodes(web: TheWeb) -> dict[str, Any]:
    """Nodes with a session, and those that people set something for."""
    return {"items": [shapes.node(node) for node in web.live.nodes().values()], "next_cursor": None}


@router.get("/queues", dependencies=[Depends(VIEWER)])
def queues(web: TheWeb) -> dict[str, Any]:
    """Queues with what waits and what is claimed."""
    return {"items": [shapes.queue(queue) for queue in web.live.queues()], "next_cursor": None}


@router.patch("/nodes/{node}", dependencies=[Depends(OPERATOR)], openapi_extra=body_schema(NodeChange))
def change(
    web: TheWeb, who: Who, request: Request, node: str, body: Annotated[NodeChange, Depends(json_model(NodeChange))]
) -> dict[str, Any]:
    """Set weight, cordon or drain."""
    return shapes.node(set_node(web, who, unquote(node), body.model_dump(exclude_unset=True), address_of(request)))


def set_node(web: Web, who: Identity, name: str, changes: dict[str, Any], address: str) -> Node:
    """Change what is set for a node, comparing what was there. Raises `NotFound` for a name nobody bears."""
    if not changes:
        raise Invalid(
            "", "nothing is to be changed", hint='write {"weight": 50}, {"cordoned": true} or {"drain": true}'
        )
    web.live.forget()
    if name not in web.live.nodes():
        raise NotFound(f"There is no node {name[:100]}")
    key = web.keys.nodectl(name)
    for _ in range(5):
        found = web.client.get(key)
        before = NodeControl.read(found.value) if found else NodeControl()
        known = {"weight": before.weight, "cordoned": before.cordoned, "drain": before.drain}
        after = NodeControl(**(known | changes), by=who.actor, at=web.client.now())
        if web.client.txn(Txn().when(mod(key, found.mod if found else 0)).put(key, after.encode())).succeeded:
            web.live.forget()
            note(web, who, "node.set", "node", name, changes, address)
            return web.live.nodes()[name]
    raise Conflict(f"The settings of {name} changed each time they were tried", hint="try again")
