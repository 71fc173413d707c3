"""Who asks, and whether they may: every route declares its need, and nothing is served without one.

A bearer token or a session cookie says who; a bearer token wins. Requests that change something and
come with a cookie must come from our own pages and carry the session's token (`csrf`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from crony.clock import SYSTEM
from crony.domain.callback import BadToken, Token
from crony.domain.service import is_secret
from crony.errors import CronyError, Forbidden, Unavailable
from crony.store import accounts, signin
from crony.store.accounts import Principal, Role
from crony.web import csrf, forms

if TYPE_CHECKING:
    from crony.web.wiring import Web

COOKIE, SECURE_COOKIE = "crony_session", "__Host-crony_session"
GRACE = 300.0
"""Seconds a session seen before may go on reading while the database is away."""


class Need(StrEnum):
    """What a route asks for."""

    PUBLIC = "public"
    """Nothing: sign-in pages, static files, /livez."""
    ANYBODY = "anybody"
    """Any valid credentials, a node's included."""
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"
    NODE = "node"
    SERVICE = "service"
    INSTANCE = "instance"
    """The secret that an instance of a service was given when it registered."""
    ATTEMPT = "attempt"
    """The token of the attempt that the path names: for its callee, who is nobody else."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a request comes from; `csrf` is empty for tokens."""

    principal: Principal
    csrf: str = ""

    @property
    def name(self) -> str:
        """The user's or token's name."""
        return self.principal.name

    @property
    def role(self) -> str:
        """admin, operator, viewer, node or service."""
        return self.principal.role.value

    @property
    def actor(self) -> str:
        """The name for audit entries."""
        return self.principal.actor

    def may(self, need: str) -> bool:
        """Whether a route or button with this need is for them."""
        return need in (Need.PUBLIC, Need.ANYBODY) or self.principal.may(Role(need))


class NotSignedIn(Forbidden):
    """No credentials, or none that are valid now."""

    status = 401


class Sessions:
    """Reads credentials; remembers sessions for a while, only to go on reading when the database is away."""

    def __init__(self, web: Web) -> None:
        self._web, self._lock = web, threading.Lock()
        self._seen: OrderedDict[str, tuple[float, Identity]] = OrderedDict()

    def identify(self, request: Request) -> Identity | None:
        """Who asks, or None without credentials. Raises `Forbidden` (401) for bad ones, `Unavailable`."""
        header = request.headers.get("authorization")
        if header is not None:
            scheme, _, secret = header.partition(" ")
            if scheme.lower() != "bearer":
                raise NotSignedIn("Not signed in", hint="send `Authorization: Bearer <token>`")
            return Identity(accounts.authenticate_token(self._web.db, secret.strip()))
        secret = session_cookie(request)
        if not secret:
            return None
        key = accounts.digest(secret)
        try:
            view = signin.session_of(self._web.db, secret)
        except Unavailable:
            remembered = self._remembered(key)
            if remembered is None or request.method not in csrf.SAFE:
                raise
            return remembered
        except Forbidden:
            with self._lock:
                self._seen.pop(key, None)
            return None
        identity = Identity(view.principal, view.csrf)
        with self._lock:
            self._seen[key] = (SYSTEM.monotonic(), identity)
            self._seen.move_to_end(key)
            while len(self._seen) > 1000:
                self._seen.popitem(last=False)
        return identity

    def forget(self, secret: str) -> None:
        """Signed out: nothing is remembered of the session."""
        with self._lock:
            self._seen.pop(accounts.digest(secret), None)

    def _remembered(self, key: str) -> Identity | None:
        with self._lock:
            at, identity = self._seen.get(key, (float("-inf"), None))
        return identity if SYSTEM.monotonic() - at < GRACE else None


class Needs:
    """Dependency of every route: checks origin, credentials, token and role, in this order."""

    def __init__(self, need: Need) -> None:
        self.need = need

    async def __call__(self, request: Request) -> Identity | None:
        """The identity (None only for public routes); kept in `request.state.identity`."""
        request.state.identity = None
        bearer = "authorization" in request.headers
        changes = request.method not in csrf.SAFE
        # Who brings no cookie speaks for nobody: strangers are told that, not that a page of ours must ask.
        if changes and not bearer and (self.need is Need.PUBLIC or session_cookie(request)):
            csrf.check_origin(request)
        if self.need is Need.PUBLIC and (changes or not session_cookie(request)):
            return None
        try:
            identity: Identity | None = await run_in_threadpool(request.app.state.web.sessions.identify, request)
        except CronyError:
            if self.need is Need.PUBLIC:
                return None
            raise
        request.state.identity = identity
        if self.need is Need.PUBLIC:
            return identity
        if identity is None:
            raise NotSignedIn("Not signed in", hint="sign in, or send a bearer token")
        if changes and not bearer:
            given = request.headers.get(csrf.HEADER)
            if given is None and forms.media_type(request) == "application/x-www-form-urlencoded":
                given = (await forms.read_form(request)).get(csrf.FIELD)
            csrf.check_token(identity.csrf, given)
        if not identity.may(self.need):
            raise Forbidden(f"This needs the role {self.need}", why=f"{identity.name} has the role {identity.role}")
        return identity


class NeedsAttempt(Needs):
    """Dependency of the callee's calls: a token that may be one. Whose it is, is told by the attempt's record."""

    def __init__(self) -> None:
        super().__init__(Need.ATTEMPT)

    async def __call__(self, request: Request) -> Identity | None:
        """None; the token is in `request.state.token`. Asks nobody, so that it works with the database away."""
        request.state.identity = None
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        try:
            if scheme.lower() != "bearer":
                raise BadToken
            request.state.token = Token.read(text.strip())
        except BadToken:
            hint = "send `Authorization: Bearer <X-Crony-Token of the call>`"
            raise NotSignedIn("Not the token of this attempt", hint=hint) from None
        return None


class NeedsInstance(Needs):
    """Dependency of an instance's signs of life: a secret that may be one. Whose it is, is told by its record."""

    def __init__(self) -> None:
        super().__init__(Need.INSTANCE)

    async def __call__(self, request: Request) -> Identity | None:
        """None; the secret is in `request.state.secret`. Asks nobody, so that it works with the database away."""
        request.state.identity = None
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not is_secret(text.strip()):
            raise NotSignedIn("Not the secret of this instance", hint="send `Authorization: Bearer <secret>`")
        request.state.secret = text.strip()
        return None


PUBLIC = Needs(Need.PUBLIC)
ANYBODY = Needs(Need.ANYBODY)
VIEWER = Needs(Need.VIEWER)
OPERATOR = Needs(Need.OPERATOR)
ADMIN = Needs(Need.ADMIN)
NODE = Needs(Need.NODE)
SERVICE = Needs(Need.SERVICE)
INSTANCE = NeedsInstance()
ATTEMPT = NeedsAttempt()


def routes_of(app: FastAPI) -> Iterator[tuple[str, frozenset[str], Need | None]]:
    """(path, methods, declared need) of every route; None for one that declares nothing."""
    for route in iter_route_contexts(app.routes):
        found = None
        if isinstance(route.original_route, APIRoute):
            calls = [dependency.call for dependency in route.original_route.dependant.dependencies]
            found = next((call.need for call in calls if isinstance(call, Needs)), None)
        yield route.path or "?", frozenset(route.methods or ()), found


def check_routes(app: FastAPI) -> None:
    """Raises RuntimeError for a route without a declared need: such an app must not start."""
    bare = [path for path, _, need in routes_of(app) if need is None]
    if bare:
        raise RuntimeError(f"routes without a declared need: {', '.join(bare)}")


def session_cookie(request: Request) -> str:
    """The session id a browser sent, or nothing."""
    name = SECURE_COOKIE if request.url.scheme == "https" else COOKIE
    return request.cookies.get(name, "")


def set_session(request: Request, response: Response, secret: str) -> None:
    """Give the browser its session: HttpOnly, SameSite=Lax, host-bound and Secure where the page is https."""
    secure = request.url.scheme == "https"
    name = SECURE_COOKIE if secure else COOKIE
    response.set_cookie(
        name, secret, max_age=int(signin.ABSOLUTE), path="/", secure=secure, httponly=True, samesite="lax"
    )


def drop_session(request: Request, response: Response) -> None:
    """Take the session cookie away."""
    secure = request.url.scheme == "https"
    response.delete_cookie(SECURE_COOKIE if secure else COOKIE, path="/", secure=secure, httponly=True, samesite="lax")


def address_of(request: Request) -> str:
    """The client's address as the server sees it."""
    return request.client.host if request.client else ""
