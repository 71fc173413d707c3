"""How a message lies in etcd: one line of JSON (everything but the body), a newline, the body's bytes as they are.

The body is not wrapped again, so it costs its own size, and the value can be read with `etcdctl get`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from crony.domain.jsontext import dumps, loads
from crony.errors import CronyError

VERSION = 1
LIMIT = 1024 * 1024
"""Most bytes of a stored message; etcd refuses requests above 1.5 MiB."""

_EMBED = b'{"callbacks":null,"errbacks":null,"chain":null,"chord":null}'
_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Undecodable(CronyError):
    """A stored value is not a message this version can read."""


def encode(message: Mapping[str, Any]) -> bytes:
    """The value of a Kombu message (`body`, `headers`, `properties`, `content-type`, `content-encoding`).

    Raises TypeError or ValueError for headers or properties that are not plain data.
    """
    body = message.get("body")
    raw = b"" if body is None else body.encode() if isinstance(body, str) else bytes(body)
    head = {
        "v": VERSION,
        "content-type": message.get("content-type"),
        "content-encoding": message.get("content-encoding"),
        "headers": message.get("headers") or {},
        "properties": message.get("properties") or {},
    }
    return b"%b\n%b" % (_dumps(head).encode("utf-8", "surrogatepass"), raw)


def decode(value: bytes) -> dict[str, Any]:
    """The Kombu message behind a value; the body as bytes. Raises `Undecodable`."""
    head, newline, body = value.partition(b"\n")
    try:
        message = loads(head)
        version = message["v"]
        if not newline or not isinstance(message["headers"], dict) or not isinstance(message["properties"], dict):
            raise Undecodable("not a message", why="a part is missing")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Undecodable("not a message", why=f"{type(error).__name__}: {error}") from None
    if version != VERSION:
        raise Undecodable(f"a message of version {version!r}", hint="upgrade this process")
    message["body"] = body
    return message  # type: ignore[no-any-return]


def task_message(
    task: str,
    task_id: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    priority: int = 0,
    soft_limit: float | None = None,
    hard_limit: float | None = None,
    shown: str | None = None,
    headers: Mapping[str, Any] | None = None,
) -> bytes:
    """The value of a Celery task message (protocol 2, JSON), as `apply_async` would have put it.

    Limits are seconds; `shown`: what Flower and events show of the arguments; `headers` adds to or replaces the
    message's own.
    """
    merged = {
        "lang": "py",
        "task": task,
        "id": task_id,
        "root_id": task_id,
        "parent_id": None,
        "group": None,
        "group_index": None,
        "shadow": None,
        "eta": None,
        "expires": None,
        "retries": 0,
        "timelimit": [hard_limit, soft_limit],
        "argsrepr": _short(args) if shown is None else shown,
        "kwargsrepr": _short(kwargs),
        "origin": "crony",
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
        **(headers or {}),
    }
    properties = {
        "correlation_id": task_id,
        "reply_to": "",
        "delivery_mode": 2,
        "priority": priority,
        "delivery_info": {"exchange": "", "routing_key": ""},
    }
    body = b"[%b,%b,%b]" % (dumps(list(args)), dumps(dict(kwargs)), _EMBED)
    head = {
        "v": VERSION,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": merged,
        "properties": properties,
    }
    return b"%b\n%b" % (dumps(head, finite=headers is None), body)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "…"
