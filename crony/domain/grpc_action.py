"""The `grpc` action: checked once, before anything is stored."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from crony.domain import template
from crony.domain.check import fields, flag, join, texts
from crony.domain.http_action import HOST, check_address, check_file, check_headers, service_name
from crony.errors import Invalid

_KNOWN = ("kind", "address", "service", "handler", "method", "request", "metadata", "tls", "async")
_METHOD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*/[A-Za-z_][A-Za-z0-9_]*")
_KEY = re.compile(r"[0-9a-z_.-]{1,128}")


def parse_grpc(value: Any, field: str, params: Collection[str] = ()) -> dict[str, Any]:
    """The action with defaults filled in. `params`: names of the job's parameters. Raises `Invalid`."""
    given = fields(value, field, _KNOWN)
    address, service = given.get("address"), given.get("service")
    if (address is None) == (service is None):
        have = "neither" if service is None else "both"
        hint = "write address: host:port, or service: the name of one that registers itself"
        raise Invalid(f"{field}.address", f"needs exactly one of address and service; it has {have}", hint=hint)
    action: dict[str, Any] = {"kind": "grpc"}
    if service is not None:
        action["service"] = service_name(service, f"{field}.service")
    else:
        action["address"] = check_address(address, f"{field}.address")
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
    files = [name for name in ("ca", "client_cert") if given.get(name) is not None]
    made = {name: check_file(given[name], f"{field}.{name}") for name in files}
    name = given.get("server_name")
    if name is not None:
        if not isinstance(name, str) or len(name) > 253 or not HOST.fullmatch(name):
            raise Invalid(f"{field}.server_name", "is not a host name", hint="write the name in the certificate")
        made["server_name"] = name
    return made
