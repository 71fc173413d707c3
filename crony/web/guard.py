"""The outermost layer of every request: security headers, body limits, path decoding, the last resort.

Pure ASGI, so that nothing runs before it and no exception escapes it: an error nobody expected
becomes a bare 500 without a trace, and even that carries the headers.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import unquote

from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crony.errors import CronyError
from crony.web import problems
from crony.web.problems import BadRequest, TooLarge

log = logging.getLogger("crony.web")

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
BODY_LIMIT = 1 << 20
INGEST_LIMIT = 2 << 20
SIGNIN_LIMIT = 16 << 10
CALLBACK_LIMIT = 256 << 10
BODY_SECONDS = 30.0
"""A body must have arrived whole after this long; slower senders are cut off."""

_CALLBACK = re.compile(r"/api/v1/runs/[^/]+/attempts/")
_KEPT = re.compile(r"%(2f|3a|25)", re.IGNORECASE)


def limit_of(path: str) -> int:
    """Most bytes of a body that `path` takes."""
    if path.startswith("/api/v1/ingest/"):
        return INGEST_LIMIT
    if _CALLBACK.match(path):
        return CALLBACK_LIMIT
    return SIGNIN_LIMIT if path.startswith("/signin") else BODY_LIMIT


def routing_path(raw: bytes) -> str:
    """The path to route by: decoded, but with `%2F`, `%3A` and `%25` left alone.

    A job's name may hold `/` and `:`; decoded early, `billing%2Fclose:run` would be another route.
    """
    parts = _KEPT.split(raw.split(b"?")[0].decode("latin-1"))
    return "".join(unquote(part) if i % 2 == 0 else f"%{part.upper()}" for i, part in enumerate(parts))


class Guard:
    """ASGI middleware; see the module. `https` adds HSTS."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no websockets here
        if raw := scope.get("raw_path"):
            scope["path"] = routing_path(raw)
        started = False

        async def guarded_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _add_headers(scope, message)
            await send(message)

        try:
            await self.app(scope, _Body(scope, receive), guarded_send)
        except ClientDisconnect:
            return  # nobody is left to answer
        except Exception:
            log.exception("a request ended in an error nobody expected: %s", scope.get("method"))
            if started:
                raise
            await _unexpected(scope["path"])(scope, receive, guarded_send)


def _unexpected(path: str) -> Response:
    """The answer to what should not be: it tells nothing of the inside, to programs in their own form."""
    if problems.is_for_programs(path):
        return problems.response(CronyError("Something went wrong inside Crony", hint="the log of the web says what"))
    return PlainTextResponse("Something went wrong inside Crony; its log says what.\n", 500)


class _Body:
    """`receive` with a limit of bytes and of time."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.receive, self.limit, self.seen, self.done = receive, limit_of(scope["path"]), 0, False
        self.deadline: float | None = None
        length = dict(scope["headers"]).get(b"content-length", b"0")
        self.announced = int(length) if length.isdigit() else 0

    async def __call__(self) -> Message:
        if self.done:
            return await self.receive()
        if self.announced > self.limit:
            raise TooLarge(f"The body is larger than the {self.limit} bytes taken here")
        now = asyncio.get_running_loop().time()
        self.deadline = self.deadline or now + BODY_SECONDS
        try:
            message = await asyncio.wait_for(self.receive(), max(0.01, self.deadline - now))
        except TimeoutError:
            raise BadRequest("The body did not arrive in time") from None
        if message["type"] == "http.request":
            self.seen += len(message.get("body", b""))
            self.done = not message.get("more_body", False)
            if self.seen > self.limit:
                raise TooLarge(f"The body is larger than the {self.limit} bytes taken here")
        return message


def _add_headers(scope: Scope, message: MutableMapping[str, Any]) -> None:
    present = {name.lower() for name, _ in message["headers"]}
    extra = dict(HEADERS)
    if b"cache-control" not in present:
        extra["cache-control"] = "no-store"
    if scope.get("scheme") == "https":
        extra["strict-transport-security"] = "max-age=31536000"
    message["headers"] = [
        *message["headers"],
        *((name.encode(), value.encode()) for name, value in extra.items() if name.encode() not in present),
    ]
