"""The `http` action: checked once, before anything is stored."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any
from urllib.parse import SplitResult, urlsplit

from crony.domain import template
from crony.domain.check import choice, fields, flag, integer, join, listing, raw_text, texts
from crony.errors import Invalid

LONGEST = 32 * 1024
"""Most bytes of a body."""
REDIRECTS = 10
"""Most redirects that a job may follow."""

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
HOST = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63}){0,20}")
_NUMERIC = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)", re.IGNORECASE)
_SERVICE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_ADDRESS = re.compile(r"(?:\[[^\]/@]+\]|[^:/@\[\]]+):[0-9]{1,5}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)*")
_OURS = frozenset(
    {
        "host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect",
        "proxy-connection", "accept-encoding",
    }
)  # fmt: skip
_KNOWN = (
    "kind", "method", "url", "service", "path", "headers", "body", "json", "expect_status", "expect_body",
    "verify_tls", "ca", "client_cert", "redirects",
)  # fmt: skip


def parse_http(value: Any, field: str, params: Collection[str] = ()) -> dict[str, Any]:
    """The action with defaults filled in. `params`: names of the job's parameters. Raises `Invalid`."""
    given = fields(value, field, _KNOWN)
    body, json_body = given.get("body"), given.get("json")
    if body is not None and json_body is not None:
        raise Invalid(f"{field}.json", "cannot stand beside `body`", hint="keep one of the two")
    where = _where(given, field, params)
    method = given.get("method")
    if method is None:
        method = "GET" if body is None and json_body is None else "POST"
    method = choice(method.upper() if isinstance(method, str) else method, f"{field}.method", _METHODS)
    action: dict[str, Any] = {"kind": "http", "method": method, **where}
    action["headers"] = check_headers(given.get("headers"), f"{field}.headers")
    template.check(action["headers"], f"{field}.headers", params, also=template.is_secret)
    if body is not None:
        action["body"] = raw_text(body, f"{field}.body", most=LONGEST)
        template.check(body, f"{field}.body", params, also=template.is_secret)
    if json_body is not None:
        action["json"] = json_body
        template.check(json_body, f"{field}.json", params, also=template.is_secret)
    action["expect_status"] = _statuses(given.get("expect_status"), f"{field}.expect_status")
    if given.get("expect_body") is not None:
        action["expect_body"] = _expect_body(given["expect_body"], f"{field}.expect_body")
    action["verify_tls"] = flag(given.get("verify_tls", True), f"{field}.verify_tls")
    for name in ("ca", "client_cert"):
        if given.get(name) is not None:
            action[name] = check_file(given[name], f"{field}.{name}")
    if "ca" in action and not action["verify_tls"]:
        raise Invalid(f"{field}.ca", "says nothing beside `verify_tls: false`", hint="keep one of the two")
    if given.get("redirects") is not None:
        redirects = integer(given["redirects"], f"{field}.redirects", 0, REDIRECTS)
        action |= {"redirects": redirects} if redirects else {}
    return action


def _where(given: Mapping[str, Any], field: str, params: Collection[str]) -> dict[str, str]:
    """A URL, or a service that registers itself and a path there."""
    url, service = given.get("url"), given.get("service")
    if service is None and url is None:
        raise Invalid(f"{field}.url", "is missing", hint="write https://host/path, or service: name and path: /path")
    if service is None:
        if given.get("path") is not None:
            raise Invalid(f"{field}.path", "goes with `service` only", hint="write it into `url`")
        return {"url": _url(url, f"{field}.url", params)}
    if url is not None:
        raise Invalid(f"{field}.url", "cannot stand beside `service`", hint="write path: /path")
    path = given.get("path", "/")
    if not isinstance(path, str) or not path.startswith("/") or path.startswith("//"):
        raise Invalid(f"{field}.path", "must begin with one slash", hint="write /jobs/close-day")
    try:
        _url(f"http://service{path}", f"{field}.path", params)
    except Invalid as error:
        raise Invalid(f"{field}.path", error.problem, hint=error.hint) from None
    return {"service": service_name(service, f"{field}.service"), "path": path}


def service_name(value: Any, field: str = "service") -> str:
    """A service's name. Raises `Invalid`."""
    if not isinstance(value, str) or not _SERVICE.fullmatch(value):
        raise Invalid(field, "is not the name of a service", hint="use a-z, 0-9 and . _ -, at most 63 characters")
    return value


def check_address(value: Any, field: str) -> str:
    """`host:port` of a service. Raises `Invalid` naming `field`."""
    address = texts(value, field, most=300)
    if not _ADDRESS.fullmatch(address):
        raise Invalid(field, "is not host:port", hint="write billing.internal:50051, without a scheme or path")
    check_url(f"http://{address}/", field)
    return address


def _url(value: Any, field: str, params: Collection[str]) -> str:
    """A URL with templates in its path and query, nowhere else."""
    if not isinstance(value, str) or "{{" not in value:
        return check_url(value, field)
    url = texts(value, field, most=4096)
    template.check(url, field, params, also=template.is_secret)
    origin = re.match(r"[^/?#]*//[^/?#]*", url)
    if origin is None or "{{" in origin[0]:
        raise Invalid(field, "has {{…}} before its path", hint="names stand in the path and the query only")
    check_url(template.fill(url, lambda name: "x"), field)
    return url


def check_url(value: Any, field: str) -> str:
    """An http(s) URL that means one thing to every parser. Raises `Invalid` naming `field`."""
    url = texts(value, field, most=4096)
    if not url.isascii() or " " in url or "\\" in url:
        raise Invalid(
            field, "has a blank, backslash or non-ASCII character", hint="percent-encode it (hosts: punycode)"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Invalid(field, "is not a URL", hint="write https://host:port/path") from None
    if parts.scheme not in ("http", "https"):
        raise Invalid(field, "must start with http:// or https://", hint="write https://host/path")
    if "@" in parts.netloc:
        raise Invalid(field, "carries a user or password", hint="use a header, such as Authorization")
    if "#" in url:
        raise Invalid(field, "has a fragment (#), which servers never see", hint="remove it or write %23")
    if port is not None and not 1 <= port <= 65535:
        raise Invalid(field, "has a port outside 1-65535", hint="write https://host:port/path")
    _check_host(parts, field)
    return url


def _check_host(parts: SplitResult, field: str) -> None:
    host = parts.hostname or ""
    if parts.netloc.endswith(":") or not host:
        raise Invalid(field, "has no host or an empty port", hint="write https://host:port/path")
    if "[" in parts.netloc:
        try:
            address: IPv4Address | IPv6Address = IPv6Address(host)
        except ValueError:
            raise Invalid(field, "has a bad IPv6 address", hint="write http://[2001:db8::1]:80/") from None
    else:
        if not HOST.fullmatch(host):
            raise Invalid(field, "has a host name that is not one", hint="use letters, digits, - and single dots")
        if not _NUMERIC.fullmatch(host.rsplit(".", 1)[-1]):
            return
        try:
            address = ip_address(host)
        except ValueError:
            raise Invalid(field, "has a number for a host", hint="write the address as 192.0.2.1") from None
    if isinstance(address, IPv6Address):
        nat64 = address.packed[:4] == b"\x00\x64\xff\x9b"
        if address.ipv4_mapped or address.sixtofour or address.teredo or nat64 or address.scope_id:
            raise Invalid(field, "hides another address inside an IPv6 one", hint="write the address itself")
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        raise Invalid(field, f"points at {address}, which no job may call", hint="use the address of the service")


def check_headers(value: Any, field: str) -> dict[str, str]:
    """Names and texts of headers, none of them ours. Raises `Invalid`."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Invalid(field, "must be a mapping of header names to texts", hint="write {Accept: application/json}")
    if len(value) > 50:
        raise Invalid(field, f"has {len(value)} headers; at most 50", hint="shorten it")
    seen: set[str] = set()
    headers = {}
    for name, text in value.items():
        path = join(field, name)
        if not _TOKEN.fullmatch(name):
            raise Invalid(path, "is not a header name", hint="use letters, digits and -")
        if name.lower() in _OURS or name.lower().startswith("x-crony-"):
            raise Invalid(path, "is set by Crony itself", hint="remove it")
        if name.lower() in seen:
            raise Invalid(path, "is given twice, in different case", hint="keep one of them")
        seen.add(name.lower())
        text = texts(text, path, least=0, most=8192)
        if not text.isascii() or text != text.strip():
            raise Invalid(path, "has a non-ASCII character or blanks around it", hint="encode or trim it")
        headers[name] = text
    return headers


def _statuses(value: Any, field: str) -> list[int] | None:
    if value is None:
        return None
    expected = listing(value, field, 50)
    if not expected:
        raise Invalid(field, "is empty", hint="leave it out for any 2xx, or write [200, 204]")
    return [integer(item, f"{field}[{index}]", 100, 599) for index, item in enumerate(expected)]


def _expect_body(value: Any, field: str) -> dict[str, Any]:
    given = fields(value, field, ("contains", "pointer", "equals"))
    expected: dict[str, Any] = {}
    if given.get("contains") is not None:
        expected["contains"] = texts(given["contains"], f"{field}.contains", most=1024, lines=True)
    if ("pointer" in given) != ("equals" in given):
        missing = "equals" if "pointer" in given else "pointer"
        raise Invalid(f"{field}.{missing}", "is missing", hint="write {pointer: /status, equals: ok}")
    if "pointer" in given:
        pointer = texts(given["pointer"], f"{field}.pointer", least=0, most=1024)
        if not _POINTER.fullmatch(pointer):
            hint = "write /status or /items/0/name; ~1 stands for a slash, ~0 for ~"
            raise Invalid(f"{field}.pointer", "is not a JSON pointer", hint=hint)
        expected |= {"pointer": pointer, "equals": given["equals"]}
    if not expected:
        raise Invalid(field, "expects nothing", hint="write {contains: text} or {pointer: /status, equals: ok}")
    return expected


def check_file(value: Any, field: str) -> str:
    """The name of a file in a node's folder `CRONY_TLS_DIR`. Raises `Invalid`."""
    if not isinstance(value, str) or not _FILE.fullmatch(value) or ".." in value:
        hint = "write its name in the node's folder CRONY_TLS_DIR, such as billing.pem"
        raise Invalid(field, "is not the name of a file", hint=hint)
    return value
