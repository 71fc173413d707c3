"""Query parameters, headers and path parts shared by the API's routes: read strictly, unknown ones refused.

What waits for nobody is `async` here, so that no thread is asked for it.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated
from urllib.parse import unquote

from fastapi import Depends, Header, Query
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import Request

from crony.errors import Invalid
from crony.web.problems import Precondition, PreconditionRequired

Limit = Annotated[int | None, Query(ge=1, le=200, description="most items of the page; default 50")]
Cursor = Annotated[str | None, Query(max_length=2000, description="`next_cursor` of the page before")]


async def no_unknown(request: Request) -> None:
    """Dependency: refuses query parameters that the route does not declare, and those given twice."""
    route = request.scope.get("route")
    known = _names(route.dependant) if isinstance(route, APIRoute) else set()
    for name in request.query_params:
        if name not in known:
            hint = f"known here: {', '.join(sorted(known))}" if known else "this address takes none"
            raise Invalid(name[:100], "is not a known parameter", hint=hint)
        if len(request.query_params.getlist(name)) > 1:
            raise Invalid(name, "is given twice")
        if not request.query_params[name].isprintable():
            raise Invalid(name, "holds a control character")


def _names(dependant: Dependant) -> set[str]:
    return {field.alias for field in dependant.query_params}.union(*(_names(inner) for inner in dependant.dependencies))


async def _reference(ref: str) -> str:
    """A job's id or name from its path part. Names come percent-encoded: `billing%2Fclose-day`."""
    try:
        text = unquote(ref, errors="strict")
    except UnicodeDecodeError:
        raise Invalid("", "the path is not UTF-8") from None
    if "\x00" in text or len(text) > 255:
        raise Invalid("", "the path holds no name of ours")
    return text


Ref = Annotated[str, Depends(_reference)]


def instant(value: str | None, field: str) -> float | None:
    """Epoch seconds of an RFC 3339 time with an offset."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value.replace(" ", "+"))  # an unescaped `+` arrives as a blank
        if moment.tzinfo is None:
            raise Invalid(field, "has no offset", hint="write it as 2026-12-01T09:00:00+08:00")
        return moment.timestamp()
    except (ValueError, OverflowError):
        raise Invalid(field, "is not an RFC 3339 time", hint="write it as 2026-12-01T09:00:00+08:00") from None


def etag(revision: int) -> str:
    """The entity tag of a revision."""
    return f'"{revision}"'


def _read(if_match: str | None) -> int | None:
    """The revision in `If-Match`; None without it or for `*`."""
    if if_match is None or if_match.strip() == "*":
        return None
    match = re.fullmatch(r'\s*"(\d{1,18})"\s*', if_match)
    if match is None:
        raise Precondition("If-Match names no revision of a job", hint='write it as If-Match: "3"')
    return int(match.group(1))


async def _required(if_match: Annotated[str | None, Header(max_length=100)] = None) -> int | None:
    """As `_revision`, but without the header the change is refused: 428."""
    if if_match is None:
        raise PreconditionRequired(
            "This changes a job that others may have changed", hint='send its revision: If-Match: "3", or If-Match: *'
        )
    return _read(if_match)


async def _revision(if_match: Annotated[str | None, Header(max_length=100)] = None) -> int | None:
    return _read(if_match)


IfMatch = Annotated[int | None, Depends(_required)]
MaybeIfMatch = Annotated[int | None, Depends(_revision)]


async def _idempotency(idempotency_key: Annotated[str | None, Header(max_length=512)] = None) -> str | None:
    if idempotency_key is not None and not idempotency_key.strip():
        raise Invalid("Idempotency-Key", "is empty")
    return idempotency_key


IdempotencyKey = Annotated[str | None, Depends(_idempotency)]


def one_key(header: str | None, body: str | None) -> str | None:
    """The idempotency key from header or body; two that differ are refused."""
    if header is not None and body is not None and header != body:
        raise Invalid("idempotency_key", "differs from the Idempotency-Key header", hint="send one of the two")
    return header if header is not None else body
