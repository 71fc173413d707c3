"""`/api/v1/nodes` and `/queues`: who runs things, how much each gets, and what waits where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from crony.clock import rfc3339
from crony.domain.node import LABEL, MOST_LABELS, VALUE, NodeControl
from crony.domain.run import State
from crony.errors import Conflict, Invalid, NotFound
from crony.etcd.txn import Txn, mod
from crony.web import platform_shapes
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
    labels: Annotated[dict[str, str | None], Field(max_length=MOST_LABELS)] | None = None
    """Added to what is set already. A label of null hides the node's own; labels: null gives the node its own back."""


@router.get("/nodes", dependencies=[Depends(VIEWER)])
def nodes(web: TheWeb) -> dict[str, Any]:
    """Nodes with a session, and those that people set something for."""
    return {"items": [platform_shapes.node(node) for node in web.live.nodes().values()], "next_cursor": None}


@router.get("/nodes/{node}", dependencies=[Depends(VIEWER)])
def one(web: TheWeb, node: str) -> dict[str, Any]:
    """One node, with the runs it holds now (`holds`)."""
    name = unquote(node)
    found = web.live.nodes().get(name)
    if found is None:
        raise NotFound(f"There is no node {name[:100]}")
    held = [run for run in web.live.runs() if run.node == name and run.state is State.RUNNING]
    return platform_shapes.node(found) | {
        "holds": [
            {
                "id": run.run,
                "job": {"id": run.job, "name": run.name},
                "attempt": run.attempt,
                "since_at": rfc3339(run.since_at or None),
            }
            for run in held
        ]
    }


@router.get("/queues", dependencies=[Depends(VIEWER)])
def queues(web: TheWeb) -> dict[str, Any]:
    """Queues with what waits and what is claimed."""
    return {"items": [platform_shapes.queue(queue) for queue in web.live.queues()], "next_cursor": None}


@router.patch("/nodes/{node}", dependencies=[Depends(OPERATOR)], openapi_extra=body_schema(NodeChange))
def change(
    web: TheWeb, who: Who, request: Request, node: str, body: Annotated[NodeChange, Depends(json_model(NodeChange))]
) -> dict[str, Any]:
    """Set weight, cordon, drain or labels."""
    found = set_node(web, who, unquote(node), body.model_dump(exclude_unset=True), address_of(request))
    return platform_shapes.node(found)


def set_node(web: Web, who: Identity, name: str, changes: dict[str, Any], address: str) -> Node:
    """Change what is set for a node, comparing what was there. Raises `NotFound` for a name nobody bears."""
    if not changes:
        hint = 'write {"weight": 50}, {"cordoned": true}, {"drain": true} or {"labels": {"zone": "a"}}'
        raise Invalid("", "nothing is to be changed", hint=hint)
    web.live.forget()
    if name not in web.live.nodes():
        raise NotFound(f"There is no node {name[:100]}")
    key = web.keys.nodectl(name)
    for _ in range(5):
        found = web.client.get(key)
        before = NodeControl.read(found.value) if found else NodeControl()
        known = {"weight": before.weight, "cordoned": before.cordoned, "drain": before.drain}
        labels = _labelled(before.labels, changes["labels"]) if "labels" in changes else before.labels
        after = NodeControl(**(known | changes | {"labels": labels}), by=who.actor, at=web.client.now())
        if web.client.txn(Txn().when(mod(key, found.mod if found else 0)).put(key, after.encode())).succeeded:
            web.live.forget()
            note(web, who, "node.set", "node", name, changes, address)
            return web.live.nodes()[name]
    raise Conflict(f"The settings of {name} changed each time they were tried", hint="try again")


def _labelled(before: dict[str, str | None], wanted: dict[str, str | None] | None) -> dict[str, str | None]:
    """What is set for the labels of a node after this change. Raises `Invalid` naming the label."""
    if wanted is None:
        return {}
    for key, value in wanted.items():
        if not LABEL.fullmatch(key):
            hint = "letters, digits, . _ / and -, at most 63"
            raise Invalid(f"labels.{key[:70]}", "is not a name for a label", hint=hint)
        if value is not None and (len(value) > VALUE or not value.isprintable()):
            raise Invalid(f"labels.{key}", f"must be at most {VALUE} printable characters")
    after = before | wanted
    if len(after) > MOST_LABELS:
        raise Invalid("labels", f"would be {len(after)}; a node can have {MOST_LABELS} set labels")
    return after
