"""Nodes and queues: who runs things, how much each gets, what waits."""

from __future__ import annotations

from urllib.parse import unquote

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from crony.errors import Invalid, Unavailable
from crony.store import runs as archive
from crony.web import standstill
from crony.web.api.control import set_switch
from crony.web.api.nodes import set_node
from crony.web.auth import OPERATOR, VIEWER, address_of
from crony.web.forms import only
from crony.web.pages.common import Form, TheWeb, Who, go

router = APIRouter()


@router.get("/nodes", dependencies=[Depends(VIEWER)])
def page(web: TheWeb, request: Request) -> Response:
    """Every node with its load and what people set for it."""
    away: list[Unavailable] = []
    nodes, centres, gone = [], None, []
    try:
        nodes, centres = list(web.live.nodes().values()), web.live.centres()
    except Unavailable as error:
        away.append(error)
    try:
        known = {node.name for node in nodes}
        gone = [row for row in archive.nodes(web.db) if row.name not in known]
    except Unavailable as error:
        away.append(error)
    return web.render.page(
        request, "nodes.html", away=away, section="nodes", nodes=nodes, gone=gone, centres=centres,
        holds=standstill.holds(centres) if centres is not None else (),
        address=str(request.base_url).rstrip("/"), endpoints=",".join(web.settings.etcd_endpoints),
    )  # fmt: skip


@router.post("/nodes/{node}", dependencies=[Depends(OPERATOR)])
def change(web: TheWeb, who: Who, request: Request, node: str, form: Form) -> Response:
    """Set weight, cordon or drain."""
    values = only(form, "weight", "cordoned", "drain")
    changes: dict[str, object] = {key: values[key] == "1" for key in ("cordoned", "drain") if key in values}
    if "weight" in values:
        text = values["weight"].strip()
        if text and not (text.isascii() and text.isdigit() and int(text) <= 1000):
            raise Invalid("weight", "must be a whole number between 0 and 1000", hint="empty: the node's own")
        changes["weight"] = int(text) if text else None
    set_node(web, who, unquote(node), changes, address_of(request))
    return go("/nodes", "node")


@router.post("/control", dependencies=[Depends(OPERATOR)])
def control(web: TheWeb, who: Who, request: Request, form: Form) -> Response:
    """Turn the stop switch."""
    stop = only(form, "stop").get("stop") == "1"
    set_switch(web, who, stop, "", address_of(request))
    return go("/nodes", "stopped" if stop else "going")


@router.get("/queues", dependencies=[Depends(VIEWER)])
def queues(web: TheWeb, request: Request) -> Response:
    """Queues with what waits and what is claimed, and how much room etcd has."""
    away: list[Unavailable] = []
    found, pending = [], 0
    try:
        found, pending = web.live.queues(), len(web.live.outcomes())
    except Unavailable as error:
        away.append(error)
    return web.render.page(
        request, "queues.html", away=away, section="queues", queues=found, pending=pending, health=web.health()
    )
