"""Cross-site request forgery, refused in one place: where a request comes from, and a token per session.

Applies to every unsafe method that a cookie could authenticate; a bearer token in a header cannot
be sent by a foreign page and needs neither.
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.requests import Request

from crony.errors import Forbidden

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
HEADER = "x-csrf-token"
FIELD = "_csrf"


def check_origin(request: Request) -> None:
    """Raises `Forbidden` unless the browser says that the request comes from our own pages."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        allowed = site in ("same-origin", "none")
    else:
        origin = request.headers.get("origin", "")
        allowed = bool(origin) and urlsplit(origin).netloc == request.headers.get("host", "")
    if not allowed:
        raise Forbidden("The request does not come from this console", hint="programs use a bearer token")


def check_token(expected: str, given: str | None) -> None:
    """Raises `Forbidden` unless `given` is the session's token."""
    if not hmac.compare_digest(expected.encode(), (given or "").encode()):
        raise Forbidden("The form is out of date", hint="reload the page and try again")
