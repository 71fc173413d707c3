"""The `grpc` action: an address or a service, and a method or a handler there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crony.web.job_fields.reading import flag, given, lines, pairs, parsed, written

DEFAULTS = {
    "rpc_to": "address", "rpc_address": "", "rpc_service": "", "rpc_kind": "method", "rpc_method": "",
    "rpc_handler": "", "rpc_request": "", "rpc_metadata": "", "rpc_tls": "", "rpc_ca": "", "rpc_client_cert": "",
    "rpc_server_name": "", "rpc_async": "",
}  # fmt: skip
FLAGS = ("rpc_tls", "rpc_async")
PATHS = (
    (r"action\.tls\.(ca|client_cert|server_name)", r"rpc_\1"),
    (r"action\.(address|service|method|handler|request|metadata|tls|async)\b.*", r"rpc_\1"),
)
_TLS = ("ca", "client_cert", "server_name")


def document(values: Mapping[str, str]) -> dict[str, Any]:
    """The action. Raises `Invalid`."""
    to = "service" if values["rpc_to"] == "service" else "address"
    what = "handler" if values["rpc_kind"] == "handler" else "method"
    made: dict[str, Any] = {"kind": "grpc"} | {name: values[f"rpc_{name}"].strip() for name in (to, what)}
    if values["rpc_request"].strip():
        made["request"] = parsed(values, "rpc_request", dict)
    if values["rpc_metadata"].strip():
        made["metadata"] = pairs(values, "rpc_metadata", ":", "\n")
    if values["rpc_tls"] == "1":
        made["tls"] = given(values, _TLS, "rpc_")
    return {**made, "async": values["rpc_async"] == "1"}


def fields(action: Mapping[str, Any]) -> dict[str, str]:
    """The fields of an action."""
    found = {f"rpc_{name}": action[name] for name in ("address", "service", "method", "handler") if name in action}
    found |= {f"rpc_{name}": text for name, text in (action["tls"] or {}).items()}
    return found | {
        "rpc_to": "service" if "service" in action else "address",
        "rpc_kind": "handler" if "handler" in action else "method",
        "rpc_request": written(action["request"], empty=""),
        "rpc_metadata": lines(action["metadata"], ": "),
        "rpc_tls": flag(action["tls"] is not None),
        "rpc_async": flag(action["async"]),
    }
