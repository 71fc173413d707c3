"""What an HTTP job sends: its texts filled with facts of the run, parameters, headers, the signature."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, quote_plus, urlencode, urljoin, urlsplit

from crony.clock import rfc3339
from crony.domain import template
from crony.domain.http_action import check_url
from crony.domain.run import Envelope
from crony.domain.template import Unfilled, as_text
from crony.errors import Invalid
from crony.workers import calling
from crony.workers.attempt import Attempt

_HAS_BODY = frozenset({"POST", "PUT", "PATCH"})
_SAFE = "!#$%&'()*+,/:;=?@[]~"
_HARMLESS = frozenset({"accept", "accept-language", "content-type", "user-agent"})
"""Headers of a job that go along when a redirect leads to somebody else."""
_SPEAKS_FOR_US = frozenset({"x-crony-token", "x-crony-callback", "x-crony-timestamp", "x-crony-signature"})
_DOTS = re.compile(r"(?:\.|%2[eE]){1,2}")


class NotFollowed(Exception):
    """A redirect that is not followed; says why."""


@dataclass(frozen=True)
class Request:
    """One request, ready to be sent to whoever `host` is."""

    method: str
    scheme: str
    host: str
    port: int
    target: str
    """Path and query."""
    headers: dict[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)
    credentials: bool = True
    """It goes to whom the job names: with the job's client certificate."""

    @property
    def origin(self) -> tuple[str, str, int]:
        """Who answers it."""
        return self.scheme, self.host, self.port

    @property
    def shown(self) -> str:
        """For people: without the query, which may hold anything."""
        return f"{self.scheme}://{_authority(self)}{self.target.partition('?')[0]}"


def build(attempt: Attempt, origin: str = "") -> Request:
    """The request of an attempt; `origin`: of the service's instance that it goes to. Raises `Unfilled`, `Invalid`."""
    action, told = attempt.envelope.action, attempt.envelope
    facts = facts_of(told, attempt.secrets)
    method = str(action.get("method") or "GET").upper()
    headers = {"User-Agent": "crony", "Accept": "*/*", "Accept-Encoding": "gzip, deflate"}
    ours = calling.headers(attempt)
    reserved = {name.lower() for name in ours}
    for name, text in (action.get("headers") or {}).items():
        if str(name).lower() not in reserved:
            headers[str(name)] = template.fill(str(text), facts, in_header)
    query, body = _content(attempt, method, facts, headers)
    url = fill_url(f"{origin}{action['path']}" if origin else str(action["url"]), facts)
    if query:
        url += ("&" if "?" in url else "?") + urlencode(query)
    made = _addressed(url, Request(method, "", "", 0, "", headers | ours, body))
    return _signed(attempt, made)


def _addressed(url: str, like: Request) -> Request:
    parts = urlsplit(check_url(url, "url"))
    port = parts.port or (443 if parts.scheme == "https" else 80)
    target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_SAFE)
    made = replace(like, scheme=parts.scheme, host=parts.hostname or "", port=port, target=target)
    return replace(made, headers=like.headers | {"Host": _authority(made)})


def _authority(request: Request) -> str:
    host = f"[{request.host}]" if ":" in request.host else request.host
    return host if request.port == (443 if request.scheme == "https" else 80) else f"{host}:{request.port}"


def _signed(attempt: Attempt, request: Request) -> Request:
    """With the signature, over the request as it will be sent."""
    process = attempt.process
    marks = calling.signature(
        process.settings.call_secrets,
        request.method,
        request.target,
        request.headers,
        request.body or b"",
        now=process.now(),
    )
    return replace(request, headers=request.headers | marks) if marks else request


def facts_of(told: Envelope, secrets: Mapping[str, str]) -> Callable[[str], Any]:
    """What each name of a template stands for in this run. Raises KeyError."""
    known = {
        "run.id": told.run,
        "run.attempt": told.attempt,
        "run.fire_time": rfc3339(told.fire_at) or "",
        "run.part": "" if told.part is None else told.part,
        "run.parts": told.parts or "",
        "job.id": told.job,
        "job.name": told.name,
    }

    def fact(name: str) -> Any:
        if name.startswith("params."):
            return told.params[name.removeprefix("params.")]
        if name.startswith("secret."):
            return secrets[name.removeprefix("secret.")]
        return known[name]

    return fact


def fill_url(url: str, facts: Callable[[str], Any]) -> str:
    """The URL with its names filled in, each percent-encoded. Raises `Unfilled`."""
    if "{{" not in url:
        return url
    path, mark, query = url.partition("?")
    scheme, rest = path.split("//", 1)
    host, *segments = rest.split("/")
    filled = [template.fill(segment, facts, lambda text: quote(text, safe="")) for segment in segments]
    for before, after in zip(segments, filled, strict=True):
        if before != after and _DOTS.fullmatch(after):
            raise Unfilled(f"{before} in its path would become {after}, which means another folder")
    query = template.fill(query, facts, lambda text: quote(text, safe=""))
    return f"{scheme}//{'/'.join([host, *filled])}{mark}{query}"


def in_header(text: str) -> str:
    """For a header: everything but printable ASCII percent-encoded: no line can be added."""
    return "".join(char if " " <= char <= "~" else quote(char) for char in text)


def _content(
    attempt: Attempt, method: str, facts: Callable[[str], Any], headers: dict[str, str]
) -> tuple[list[tuple[str, str]], bytes | None]:
    """Query and body. Parameters that no text names go into a JSON object, are it without a body, else the query."""
    action = attempt.envelope.action
    texts = [action.get(name) for name in ("url", "path", "headers", "body", "json")]
    used = {name.removeprefix("params.") for name in template.names(texts) if name.startswith("params.")}
    free = {name: value for name, value in attempt.envelope.params.items() if name not in used}
    query = [(name, as_text(value)) for name, value in free.items() if value is not None]
    if action.get("body") is not None:
        kind = next((text for name, text in headers.items() if name.lower() == "content-type"), "")
        return query, template.fill(str(action["body"]), facts, _escape_for(kind)).encode()
    document = template.fill_json(action.get("json"), facts)
    if action.get("json") is None:
        if not free or method not in _HAS_BODY:
            return query, b"" if method in _HAS_BODY else None
        document, query = free, []
    elif isinstance(document, dict):
        document, query = {**document, **free}, []
    if not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = "application/json"
    return query, json.dumps(document, allow_nan=False).encode()


def _escape_for(kind: str) -> Callable[[str], str]:
    """How a value is written into a body of that type."""
    if "json" in kind:
        return lambda text: json.dumps(text)[1:-1]
    if "x-www-form-urlencoded" in kind:
        return quote_plus
    return lambda text: text


def redirected(attempt: Attempt, before: Request, status: int, headers: Mapping[str, str]) -> Request:
    """The request that a redirect asks for. To another host nothing goes that speaks for us. Raises `NotFollowed`."""
    location = headers.get("location")
    if not location:
        raise NotFollowed("it says not where to")
    try:
        url = urljoin(f"{before.scheme}://{_authority(before)}{before.target}", location).partition("#")[0]
    except ValueError:
        raise NotFollowed("its address is not a URL") from None
    method, body = before.method, before.body
    if status == 303 or (status in (301, 302) and method == "POST"):
        method, body = ("HEAD" if method == "HEAD" else "GET"), None
    try:
        made = _addressed(url, replace(before, method=method, body=body))
    except Invalid as error:
        raise NotFollowed(f"its address {error.problem}") from None
    if before.scheme == "https" and made.scheme == "http":
        raise NotFollowed("it leads from https to http")
    kept = {name: text for name, text in made.headers.items() if body is not None or name.lower() != "content-type"}
    if made.origin == before.origin:
        made = replace(made, headers=kept)
        return _signed(attempt, made) if before.credentials else made
    if body is not None:
        raise NotFollowed("it leads to another host and would take the body there")
    if attempt.callback is not None:
        raise NotFollowed("it leads to another host, which could not answer later")
    own = {str(name).lower() for name in attempt.envelope.action.get("headers") or {}} - _HARMLESS
    gone = own | _SPEAKS_FOR_US
    kept = {name: text for name, text in kept.items() if name.lower() not in gone}
    return replace(made, headers=kept, credentials=False)
