"""The `http` action: an address or a service, what is sent, and what is expected of the answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from crony.errors import Invalid
from crony.web.job_fields.reading import flag, given, lines, pairs, parsed, whole, written

DEFAULTS = {
    "method": "GET", "http_to": "url", "url": "", "service": "", "path": "/", "headers": "", "body_kind": "none",
    "body": "", "expect_status": "", "expect_contains": "", "expect_pointer": "", "expect_equals": "",
    "redirects": "0", "verify_tls": "1", "ca": "", "client_cert": "",
}  # fmt: skip
FLAGS = ("verify_tls",)
PATHS = (
    (r"action\.json.*", "body"),
    (r"action\.expect_body\.(contains|pointer|equals)", r"expect_\1"),
    (r"action\.expect_body.*", "expect_contains"),
    (r"action\.(method|url|service|path|body|expect_status|redirects|verify_tls|ca|client_cert|headers)\b.*", r"\1"),
)


def document(values: Mapping[str, str]) -> dict[str, Any]:
    """The action. Raises `Invalid`."""
    to_service = values["http_to"] == "service"
    made: dict[str, Any] = {"kind": "http", "method": values["method"], "verify_tls": values["verify_tls"] == "1"}
    made |= {name: values[name].strip() for name in (("service", "path") if to_service else ("url",))}
    if values["headers"].strip():
        made["headers"] = pairs(values, "headers", ":", "\n")
    if values["body_kind"] == "text":
        made["body"] = values["body"]
    elif values["body_kind"] == "json":
        made["json"] = parsed(values, "body", object)
    if values["expect_status"].strip():
        made["expect_status"] = _statuses(values)
    expected: dict[str, Any] = {"contains": values["expect_contains"]} if values["expect_contains"] else {}
    if values["expect_equals"].strip():
        expected |= {"pointer": values["expect_pointer"].strip(), "equals": _equals(values)}
    elif values["expect_pointer"].strip():
        expected["pointer"] = values["expect_pointer"].strip()
    if expected:
        made["expect_body"] = expected
    if values["redirects"].strip():
        made["redirects"] = whole(values, "redirects")
    return made | given(values, ("ca", "client_cert"))


def fields(action: Mapping[str, Any]) -> dict[str, str]:
    """The fields of an action."""
    texts = ("method", "url", "service", "path", "body", "redirects", "ca", "client_cert")
    found = {name: str(action[name]) for name in texts if name in action}
    if "json" in action:
        found["body"] = written(action["json"])
    expected = action.get("expect_body", {})
    found |= {f"expect_{name}": expected[name] for name in ("contains", "pointer") if name in expected}
    if "equals" in expected:
        found["expect_equals"] = written(expected["equals"])
    return found | {
        "http_to": "service" if "service" in action else "url",
        "headers": lines(action["headers"], ": "),
        "body_kind": "json" if "json" in action else "text" if "body" in action else "none",
        "expect_status": ", ".join(str(code) for code in action["expect_status"] or ()),
        "verify_tls": flag(action["verify_tls"]),
    }


def _statuses(values: Mapping[str, str]) -> list[int]:
    codes = re.split(r"[,，\s]+", values["expect_status"].strip())
    if not all(code.isascii() and code.isdigit() and len(code) == 3 for code in codes):
        raise Invalid("expect_status", "must be status codes with commas", hint="such as 200, 204")
    return [int(code) for code in codes]


def _equals(values: Mapping[str, str]) -> Any:
    try:
        return parsed(values, "expect_equals", object)
    except Invalid:
        raise Invalid("expect_equals", "is not JSON", hint='text stands in quotes: "closed"; or 3, true') from None
