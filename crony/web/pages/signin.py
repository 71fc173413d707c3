"""Coming in and going out: password, one-time link, sign-out; and how the console looks (language, theme, zone)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import RedirectResponse, Response

from crony.errors import CronyError, Invalid, Unavailable
from crony.store import signin
from crony.web import formats, i18n
from crony.web.auth import ANYBODY, PUBLIC, address_of, drop_session, session_cookie, set_session
from crony.web.forms import only
from crony.web.pages.common import Form, TheWeb, go, local_path

router = APIRouter()


@router.get("/", dependencies=[Depends(PUBLIC)])
def root() -> Response:
    """The console begins at the jobs."""
    return RedirectResponse("/jobs", 303)


@router.get("/favicon.ico", dependencies=[Depends(PUBLIC)])
def favicon(web: TheWeb) -> Response:
    """Browsers ask for it whatever the page says."""
    return RedirectResponse(web.static.url("favicon.svg"), 301)


@router.get("/signin", dependencies=[Depends(PUBLIC)])
def page(web: TheWeb, request: Request, next: Annotated[str, Query(max_length=2000)] = "") -> Response:
    """The sign-in form."""
    if request.state.identity is not None:
        return go(local_path(next))
    return web.render.page(request, "signin.html", next=local_path(next, ""), name="")


@router.post("/signin", dependencies=[Depends(PUBLIC)])
def enter(web: TheWeb, request: Request, form: Form) -> Response:
    """Sign in by name and password."""
    values = only(form, "name", "password", "next")
    name, target = values.get("name", ""), local_path(values.get("next", ""))
    try:
        secret, _ = signin.sign_in(
            web.db, name[:255], values.get("password", ""), address=address_of(request), agent=_agent(request)
        )
    except Unavailable:
        raise
    except CronyError as error:
        wrong = CronyError("Name or password is not right") if error.status == 401 else error
        return web.render.page(
            request, "signin.html", status=int(error.status), error=wrong, next=target, name=name[:255]
        )
    response = go(target)
    set_session(request, response, secret)
    return response


@router.get("/signin/link/{secret}", dependencies=[Depends(PUBLIC)])
def link(web: TheWeb, request: Request, secret: str) -> Response:
    """A one-time link: looking at it uses nothing up, so that a mail scanner cannot spend it."""
    try:
        found = signin.look_at_link(web.db, secret)
    except Unavailable:
        raise
    except CronyError as error:
        return web.render.page(request, "link.html", status=401, error=error, link=None, name="", invalid=None)
    return web.render.page(request, "link.html", link=found, name="admin", invalid=None)


@router.post("/signin/link/{secret}", dependencies=[Depends(PUBLIC)])
def use_link(web: TheWeb, request: Request, secret: str, form: Form) -> Response:
    """Use a link up: the first user is made, or the user it is for comes in."""
    values = only(form, "name", "password", "again")
    name = values.get("name", "")
    try:
        found = signin.look_at_link(web.db, secret)
        if found.purpose == "setup" and values.get("password", "") != values.get("again", ""):
            raise Invalid("again", "is not the same as the password")
        session, _ = signin.use_link(
            web.db,
            secret,
            name=name,
            password=values.get("password"),
            address=address_of(request),
            agent=_agent(request),
        )
    except Unavailable:
        raise
    except Invalid as error:
        return web.render.page(request, "link.html", status=422, link=found, name=name[:255], invalid=error)
    except CronyError as error:
        return web.render.page(request, "link.html", status=401, error=error, link=None, name="", invalid=None)
    response = go("/jobs")
    set_session(request, response, session)
    return response


@router.post("/signout", dependencies=[Depends(ANYBODY)])
def leave(web: TheWeb, request: Request, form: Form) -> Response:
    """End the session here and on the server."""
    only(form)
    secret = session_cookie(request)
    signin.sign_out(web.db, secret)
    web.sessions.forget(secret)
    response = go("/signin", "signed-out")
    drop_session(request, response)
    return response


@router.post("/preferences", dependencies=[Depends(PUBLIC)])
def preferences(request: Request, form: Form) -> Response:
    """Language, theme and zone of this browser, in cookies that say nothing about anybody."""
    values = only(form, "lang", "theme", "zone", "next")
    response = go(local_path(values.get("next", ""), signin=True))
    secure = request.url.scheme == "https"
    checks: dict[str, Callable[[str], bool]] = {
        "lang": lambda value: value in i18n.LANGUAGES,
        "theme": lambda value: value in ("auto", "light", "dark"),
        "zone": lambda value: value in ("job", "utc") or formats.zone_of(value).key == value,
    }
    for key, good in checks.items():
        if key in values:
            if not good(values[key]):
                raise Invalid(key, "is not one of the choices")
            response.set_cookie(
                f"crony_{key}", values[key].replace("/", "%2F"), max_age=365 * 86400, path="/", secure=secure,
                httponly=True, samesite="lax",
            )  # fmt: skip
    return response


def _agent(request: Request) -> str:
    return request.headers.get("user-agent", "")[:255]
