"""`/api/v1/secrets`: what jobs are given and nobody sees again; an answer never holds a value."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from fastapi import APIRouter, Depends, Request, Response

from crony.web import shapes
from crony.web.api import objects
from crony.web.api.jobs import TheWeb, Who
from crony.web.api.query import etag
from crony.web.auth import ADMIN, VIEWER, address_of

router = APIRouter(tags=["secrets"])


@router.get("/secrets", dependencies=[Depends(VIEWER)])
def list_secrets(web: TheWeb) -> dict[str, Any]:
    """All secrets by name, without their values. `keys`: ids of the keys that this web has, the newest first."""
    items = [shapes.secret(view) for view in web.catalog.secrets.every()]
    return {"items": items, "next_cursor": None, "keys": list(web.catalog.cipher.key_ids)}


@router.post("/secrets:rotate", dependencies=[Depends(ADMIN)])
def rotate(web: TheWeb, who: Who, request: Request) -> dict[str, Any]:
    """Encrypt all that is encrypted with the newest key; what has it is left as it is. Can be repeated."""
    done = web.catalog.rotate(who.actor, address=address_of(request))
    return {"renewed": done.renewed, "kept": done.kept, "failed": done.failed}


@router.get("/secrets/{name}", dependencies=[Depends(VIEWER)])
def get(web: TheWeb, name: str, response: Response) -> dict[str, Any]:
    """One secret, without its value. Its ETag is its revision."""
    view = web.catalog.secrets.get(unquote(name))
    response.headers["etag"] = etag(view.revision)
    return shapes.secret(view)


router.include_router(
    objects.routes(
        "secrets",
        lambda web: web.catalog.secrets,
        lambda view: objects.Told({**shapes.secret(view), "live": view.live}, view.live),
        put_about="Set a secret: `{value, description}`; what is left out stays. It is encrypted before it is stored; "
        "the next attempt of a job has the new value. 202: saved, nodes have it when etcd is back.",
        delete_about="Delete a secret. 409 with their names while jobs name it.",
    )
)
