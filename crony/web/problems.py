"""Errors as RFC 9457 problems for programs; `pages/errors.py` says the same to people."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.responses import JSONResponse, Response

from crony.errors import Conflict, CronyError, Invalid
from crony.store.signin import Throttled

log = logging.getLogger("crony.web")

MEDIA_TYPE = "application/problem+json"


class TooLarge(CronyError):
    """The body is larger than this route takes."""

    status = 413


class WrongType(CronyError):
    """The body is of a media type this route does not take."""

    status = 415


class Precondition(Conflict):
    """`If-Match` names a revision that is no longer the current one."""

    status = 412


class PreconditionRequired(CronyError):
    """The route changes something that others may have changed; `If-Match` is needed."""

    status = 428


class TooOften(CronyError):
    """More calls than anybody needs; wait a second."""

    status = 429
    retry_after = 1.0


class BadRequest(CronyError):
    """The request itself cannot be read (as opposed to a field of it)."""

    status = 400


def is_for_programs(path: str) -> bool:
    """Whether those who ask for this path read problems rather than pages."""
    return path.startswith("/api/") or path in ("/livez", "/readyz", "/version", "/metrics")


def as_error(error: Exception) -> CronyError:
    """`error` as one of ours: validation errors of the framework become `Invalid`, anything unknown a silent 500."""
    if isinstance(error, CronyError):
        return error
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = [str(part) for part in first.get("loc", ())][1:]
        return Invalid(".".join(where), plain(first))
    log.exception("unexpected error in a request", exc_info=error)
    return CronyError("Something went wrong inside Crony", hint="the details are in the log of the web process")


def plain(error: Any) -> str:
    """One validation error of pydantic as the end of a sentence that starts with the field."""
    kind, message = error.get("type", ""), str(error.get("msg", "is not valid"))
    words = {
        "extra_forbidden": "is not a known field",
        "missing": "is required",
        "string_type": "must be text",
        "int_type": "must be a whole number",
        "int_parsing": "must be a whole number",
        "bool_type": "must be true or false",
        "bool_parsing": "must be true or false",
        "float_type": "must be a number",
        "float_parsing": "must be a number",
        "dict_type": "must be an object",
        "list_type": "must be a list",
    }
    return words.get(kind) or message.replace("Input should be", "must be").replace("Value error, ", "")


def payload(error: CronyError) -> dict[str, Any]:
    """The members of the problem document."""
    status = int(error.status)
    body: dict[str, Any] = {
        "type": f"urn:crony:problem:{type(error).__name__.lower()}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": ". ".join(part.rstrip(".") for part in (error.what, error.why) if part),
    }
    if isinstance(error, Invalid) and error.field:
        body["field"] = error.field
    if error.hint:
        body["hint"] = error.hint
    return body | getattr(error, "members", {})


def headers(error: CronyError) -> dict[str, str]:
    """Headers that belong to the status."""
    if error.status == 401:
        return {"WWW-Authenticate": 'Bearer realm="crony"'}
    if isinstance(error, Throttled | TooOften):
        return {"Retry-After": str(max(1, round(error.retry_after)))}
    return {"Retry-After": "5"} if error.status == 503 else {}


def response(error: CronyError) -> Response:
    """The problem as a response."""
    return JSONResponse(payload(error), status_code=int(error.status), headers=headers(error), media_type=MEDIA_TYPE)
