"""Bodies, read strictly: JSON for the API, urlencoded forms for the pages, nothing else."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from crony.errors import Invalid
from crony.web import strictjson
from crony.web.problems import WrongType, plain

FIELDS = 200
"""Most fields of a form."""

M = TypeVar("M", bound=BaseModel)


def media_type(request: Request) -> str:
    """The media type of the body, lower case, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a urlencoded form; a field may come once. Raises `Invalid` or `WrongType`."""
    if media_type(request) != "application/x-www-form-urlencoded":
        raise WrongType("This address takes a form", hint="content-type: application/x-www-form-urlencoded")
    data = await request.body()
    try:
        pairs = parse_qsl(
            data.decode("utf-8"),
            keep_blank_values=True,
            strict_parsing=bool(data),
            max_num_fields=FIELDS,
            errors="strict",
        )
    except (ValueError, UnicodeDecodeError):
        raise Invalid("", "the form cannot be read") from None
    form: dict[str, str] = {}
    for key, value in pairs:
        if key in form:
            raise Invalid(key[:100], "appears twice in the form")
        if "\x00" in value:
            raise Invalid(key[:100], "holds a NUL character")
        form[key] = value.replace("\r\n", "\n")
    return form


def only(form: dict[str, str], *allowed: str) -> dict[str, str]:
    """`form` without `_csrf`; a field that is not among `allowed` is refused."""
    for key in form:
        if key != "_csrf" and key not in allowed:
            raise Invalid(key[:100], "is not a known field")
    return {key: value for key, value in form.items() if key != "_csrf"}


async def json_object(request: Request) -> dict[str, Any]:
    """Dependency: the body as one strict JSON object."""
    return strictjson.load_object(await _json_bytes(request))


def json_model(model: type[M], *, optional: bool = False) -> Callable[[Request], Awaitable[M]]:
    """Dependency maker: the body as `model`, unknown fields refused. `optional`: no body means all defaults."""

    async def read(request: Request) -> M:
        if optional and not await request.body():
            return model()
        value = strictjson.load_object(await _json_bytes(request))
        try:
            return model.model_validate(value, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])[:200]
            raise Invalid(name, plain(first), hint=_known(model, first)) from None

    return read


def _known(model: type[BaseModel], error: Any) -> str:
    """What may stand there instead of a field that nobody knows."""
    names = sorted(model.model_fields)
    if error["type"] != "extra_forbidden" or len(error["loc"]) != 1:
        return ""
    near = difflib.get_close_matches(str(error["loc"][0])[:60], names, n=1)
    told = f"the fields here are {', '.join(names)}" if names else "the body is {}"
    return f"did you mean {near[0]}?" if near else told


def body_schema(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` for a route whose body is read by `json_model`."""
    schema = model.model_json_schema()
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}


async def _json_bytes(request: Request) -> bytes:
    if media_type(request) != "application/json":
        raise WrongType("This address takes JSON", hint="content-type: application/json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise WrongType("This address takes JSON as it is, without a content encoding")
    return await request.body()
