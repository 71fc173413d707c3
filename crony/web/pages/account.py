"""The account: who is signed in, a new password, API tokens."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from crony.errors import CronyError, Forbidden, Invalid
from crony.store import accounts, signin
from crony.web.auth import ADMIN, ANYBODY, address_of, drop_session
from crony.web.forms import only
from crony.web.pages.common import Form, TheWeb, Who, go

router = APIRouter()

DAYS = {"": None, "30": 30, "90": 90, "365": 365}


@router.get("/account", dependencies=[Depends(ANYBODY)])
def page(web: TheWeb, who: Who, request: Request) -> Response:
    """Who am I; tokens, for administrators."""
    return _page(web, who, request)


@router.post("/account/tokens", dependencies=[Depends(ADMIN)])
def create(web: TheWeb, who: Who, request: Request, form: Form) -> Response:
    """Make a token; its secret is on the page that answers, and nowhere else."""
    values = only(form, "name", "scope", "days")
    if values.get("days", "") not in DAYS:
        raise Invalid("days", "is not one of the choices")
    days = DAYS[values.get("days", "")]
    try:
        secret, _ = accounts.create_token(
            web.db, values.get("name", ""), values.get("scope", ""), actor=who.actor, lasts=days and days * 86400.0
        )
    except Invalid as error:
        return _page(web, who, request, status=422, invalid=error, values=values)
    return _page(web, who, request, secret=secret)


@router.post("/account/tokens/{token}/revoke", dependencies=[Depends(ADMIN)])
def revoke(web: TheWeb, who: Who, token: str, form: Form) -> Response:
    """End a token now."""
    only(form)
    accounts.revoke_token(web.db, token, actor=who.actor)
    return go("/account", "revoked")


@router.post("/account/password", dependencies=[Depends(ANYBODY)])
def password(web: TheWeb, who: Who, request: Request, form: Form) -> Response:
    """A new password; every session of the user ends, this one too."""
    values = only(form, "old", "password", "again")
    if who.principal.kind != "user":
        raise Forbidden("A token has no password")
    try:
        if values.get("password", "") != values.get("again", ""):
            raise Invalid("again", "is not the same as the password")
        # Counted by the same throttle as signing in: an open browser must not be a place to guess at leisure.
        proof, _ = signin.sign_in(web.db, who.name, values.get("old", ""), address=address_of(request))
        signin.sign_out(web.db, proof)
        accounts.set_password(web.db, who.principal.id, values.get("password", ""), actor=who.actor)
    except Invalid as error:
        return _page(web, who, request, status=422, invalid=error)
    except CronyError as error:
        if error.status != 401:
            raise
        return _page(web, who, request, status=422, invalid=Invalid("old", "is not right"))
    response = go("/signin", "password")
    drop_session(request, response)
    return response


def _page(
    web: TheWeb,
    who: Who,
    request: Request,
    *,
    status: int = 200,
    secret: str = "",
    invalid: Invalid | None = None,
    values: dict[str, str] | None = None,
) -> Response:
    tokens = accounts.tokens(web.db) if who.may("admin") else []
    return web.render.page(
        request, "account.html", status=status, section="account", secret=secret, invalid=invalid,
        values=values or {}, tokens=tokens, user=who.principal.kind == "user",
        roles=[role.value for role in accounts.Role], address=str(request.base_url).rstrip("/"),
    )  # fmt: skip
