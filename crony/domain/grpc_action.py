"""The `grpc` action: checked once, before anything is stored."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from crony.domain import template
from crony.domain.check import fields, flag, join, texts
from crony.domain.http_action import HOST, check_file, check_headers, check_url
from crony.errors import Invalid

_KNOWN = ("kind", "address", "handler", "method", "request", "metadata", "tls", "async")
_ADDRESS = re.compile(r"(?:\[[^\]/@]+\]|[^:/@\[\]]+):[0-9]{1,5}")
_METHOD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*/[A-Za-z_][A-Za-z0-9_]*")
_KEY = re.compile(r"[0-9a-z_.-]{1,128}")


def parse_grpc(value: Any, field: str, params: Collection[str] = ()) -> dict[str, Any]:
    """The action with defaults filled in. `params`: names of the job's parameters. Raises `Invalid`."""
    given = fields(value, field, _KNOWN, ("service",))
    if given.get("address") is None:
        raise Invalid(f"{field}.address", "is missing", hint="write host:port")
    action: dict[str, Any] = {"kind": "grpc", "address": check_address(given["address"], f"{field}.address")}
    handler, method = given.get("handler"), given.get("method")
    if (handler is None) == (method is None):
        have = "neither" if handler is None else "both"
        hint = "write handler: close-day for a service with the SDK, method: package.Service/Method for any other"
        raise Invalid(f"{field}.method", f"needs exactly one of handler and method; it has {have}", hint=hint)
    if method is not None:
        if not isinstance(method, str) or len(method) > 512 or not _METHOD.fullmatch(method):
            raise Invalid(f"{field}.method", "is not the name of a method", hint="write package.Service/Method")
        action["method"] = method
    else:
        action["handler"] = texts(handler, f"{field}.handler", most=255)
    request = given.get("request")
    if request is not None and not isinstance(request, Mapping):
        raise Invalid(f"{field}.request", "must be a mapping", hint="write the fields of the request")
    action["request"] = dict(request or {})
    action["metadata"] = _metadata(given.get("metadata"), f"{field}.metadata")
    for name in ("request", "metadata"):
        template.check(action[name], f"{field}.{name}", params, also=template.is_secret)
    action["tls"] = _tls(given.get("tls"), f"{field}.tls")
    action["async"] = flag(given.get("async", False), f"{field}.async")
    if action["async"] and handler is not None:
        raise Invalid(
            f"{field}.async", "goes with `method` only", hint="remove it: a handler says itself when it accepts"
        )
    return action


def check_address(value: Any, field: str) -> str:
    """`host:port` of a service. Raises `Invalid` naming `field`."""
    address = texts(value, field, most=300)
    if not _ADDRESS.fullmatch(address):
        raise Invalid(field, "is not host:port", hint="write billing.internal:50051, without a scheme or path")
    check_url(f"http://{address}/", field)
    return address


def _metadata(value: Any, field: str) -> dict[str, str]:
    made = {}
    for name, text in check_headers(value, field).items():
        if not _KEY.fullmatch(name) or name.startswith("grpc-") or name.endswith("-bin"):
            hint = "use lower case letters, digits, -, _ and ., not grpc-… and not …-bin"
            raise Invalid(join(field, name), "is not a metadata name for text", hint=hint)
        made[name] = text
    return made


def _tls(value: Any, field: str) -> dict[str, str] | None:
    if value is None or value is False:
        return None
    given = fields({} if value is True else value, field, ("ca", "client_cert", "server_name"))
    made = {name: check_file(given[name], f"{field}.{name}") for name in ("ca", "client_cert") if given.get(name)}
    name = given.get("server_name")
    if name is not None:
        if not isinstance(name, str) or len(name) > 253 or not HOST.fullmatch(name):
            raise Invalid(f"{field}.server_name", "is not a host name", hint="write the name in the certificate")
        made["server_name"] = name
    return made
