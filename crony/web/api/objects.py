"""What the API of every kind of named object has: its versions, PUT and DELETE under If-Match."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypeVar
from urllib.parse import unquote

from fastapi import APIRouter, Depends, Request, Response

from crony.catalog.objects import Objects, ObjectView
from crony.clock import rfc3339
from crony.errors import Invalid
from crony.web.api.jobs import TheWeb, Who
from crony.web.api.query import MaybeIfMatch, etag
from crony.web.auth import ADMIN, VIEWER, address_of
from crony.web.forms import json_object
from crony.web.problems import Precondition
from crony.web.wiring import Web

V = TypeVar("V", bound=ObjectView)

_DOCUMENT = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}


class Told(NamedTuple):
    """The answer to a save: what is shown, and whether all of it is live (else 202)."""

    body: dict[str, Any]
    live: bool


def routes(
    plural: str,
    find: Callable[[Web], Objects[Any, V]],
    told: Callable[[V], Told],
    *,
    put_about: str,
    delete_about: str,
    saved: Callable[[Web], None] = lambda web: None,
) -> APIRouter:
    """The routes of the objects called `plural`. `saved` is called after every change; the `about`s are for people."""
    router, one = APIRouter(tags=[plural]), plural.removesuffix("s")

    @router.get(
        f"/{plural}/{{name}}/versions",
        dependencies=[Depends(VIEWER)],
        description=f"The saves of a {one}, newest first, also of a deleted one.",
    )
    def versions(web: TheWeb, name: str) -> dict[str, Any]:
        items = [
            {"revision": v.revision, "action": v.action, "actor": v.actor, "at": rfc3339(v.at), "document": v.document}
            for v in find(web).versions(unquote(name))
        ]
        return {"items": items, "next_cursor": None}

    @router.put(f"/{plural}/{{name}}", dependencies=[Depends(ADMIN)], openapi_extra=_DOCUMENT, description=put_about)
    def put(
        web: TheWeb,
        who: Who,
        request: Request,
        response: Response,
        name: str,
        document: Annotated[dict[str, Any], Depends(json_object)],
        revision: MaybeIfMatch,
    ) -> dict[str, Any]:
        name, objects = unquote(name), find(web)
        if document.get("name", name) != name:
            raise Invalid("name", "is not the one of the address", hint="write the same name, or leave it out")
        _check(objects, name, revision)
        view = objects.save({**document, "name": name}, who.actor, revision=revision, address=address_of(request))
        saved(web)
        body, live = told(view)
        response.headers["etag"], response.status_code = etag(view.revision), 200 if live else 202
        return body

    @router.delete(f"/{plural}/{{name}}", status_code=204, dependencies=[Depends(ADMIN)], description=delete_about)
    def delete(web: TheWeb, who: Who, request: Request, name: str, revision: MaybeIfMatch) -> None:
        name, objects = unquote(name), find(web)
        _check(objects, name, revision)
        objects.delete(name, who.actor, revision=revision, address=address_of(request))
        saved(web)

    return router


def _check(objects: Objects[Any, V], name: str, revision: int | None) -> None:
    if revision is not None and (there := objects.get(name).revision) != revision:
        raise Precondition(
            f"The {objects.kind} is at revision {there}, not {revision}", hint="load it again and repeat your change"
        )
