"""Secrets: set, replaced, deleted; their values are taken in and never shown, not even where one was refused."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from crony.catalog.secrets import SecretView
from crony.errors import Conflict, CronyError, Invalid
from crony.web.auth import ADMIN, VIEWER, Identity, address_of
from crony.web.forms import only
from crony.web.pages.common import Form, TheWeb, Who, go
from crony.web.wiring import Web

router = APIRouter()


@router.get("/secrets", dependencies=[Depends(VIEWER)])
def page(web: TheWeb, request: Request) -> Response:
    """All secrets with the jobs that name them."""
    found = web.catalog.secrets.every()
    newest = next(iter(web.catalog.cipher.key_ids), "")
    return web.render.page(
        request, "secrets.html", section="secrets", secrets=found, newest=newest,
        old=[view for view in found if newest and view.key_id != newest],
    )  # fmt: skip


@router.get("/secrets/new", dependencies=[Depends(ADMIN)])
def new(web: TheWeb, request: Request) -> Response:
    """An empty secret."""
    return _page(web, request, None, {})


@router.post("/secrets/new", dependencies=[Depends(ADMIN)])
def create(web: TheWeb, who: Who, request: Request, form: Form) -> Response:
    """Save a new secret; a name that is taken is refused."""
    return _save(web, who, request, form, None)


@router.post("/secrets/rotate", dependencies=[Depends(ADMIN)])
def rotate(web: TheWeb, who: Who, request: Request, form: Form) -> Response:
    """Encrypt all that is encrypted with the newest key."""
    only(form)
    done = web.catalog.rotate(who.actor, address=address_of(request))
    return go("/secrets", "secret-not-rotated" if done.failed else "secret-rotated")


@router.get("/secrets/{name}", dependencies=[Depends(VIEWER)])
def one(web: TheWeb, request: Request, name: str) -> Response:
    """One secret: who uses it, and a form for a new value."""
    view = web.catalog.secrets.get(name)
    return _page(web, request, view, {"description": view.description})


@router.post("/secrets/{name}", dependencies=[Depends(ADMIN)])
def update(web: TheWeb, who: Who, request: Request, name: str, form: Form) -> Response:
    """Save a new value or description; an empty value leaves it as it is."""
    return _save(web, who, request, form, web.catalog.secrets.get(name))


@router.post("/secrets/{name}/delete", dependencies=[Depends(ADMIN)])
def delete(web: TheWeb, who: Who, request: Request, name: str, form: Form) -> Response:
    """Delete a secret that no job names."""
    only(form)
    web.catalog.secrets.delete(name, who.actor, address=address_of(request))
    return go("/secrets", "secret-deleted")


def _save(web: Web, who: Identity, request: Request, form: dict[str, str], view: SecretView | None) -> Response:
    values = only(form, "name", "value", "description", "revision")
    revision, value = values.get("revision", "0"), values.pop("value", "")
    try:
        if not revision.isdigit():
            raise Conflict("The form is out of date", hint="reload the page and try again")
        name = view.name if view is not None else values.get("name", "").strip()
        document: dict[str, Any] = {"name": name, "description": values.get("description", "")}
        if value:
            document["value"] = value
        seen = 0 if view is None else int(revision)
        saved = web.catalog.secrets.save(document, who.actor, revision=seen, address=address_of(request))
    except (Invalid, Conflict) as error:
        return _page(web, request, view, values, error=error, revision=revision)
    return go("/secrets", "secret" if saved.live else "secret-waits")


def _page(
    web: Web,
    request: Request,
    view: SecretView | None,
    values: dict[str, str],
    *,
    error: CronyError | None = None,
    revision: str | None = None,
) -> Response:
    return web.render.page(
        request, "secret.html", status=200 if error is None else int(error.status), error=error, section="secrets",
        view=view, values={"name": "", "description": ""} | values,
        revision=revision or (str(view.revision) if view else "0"),
    )  # fmt: skip
