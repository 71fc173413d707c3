"""Asynchronous completion as pure facts: what a job asks for, the token of an attempt, what its callee reports.

`docs/reference/callbacks.md` is the contract; nothing here reads a clock or talks to anybody.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import unicodedata
from dataclasses import dataclass, replace
from typing import Any, Self

from crony.domain.check import fields
from crony.domain.durations import format_duration, parse_duration
from crony.domain.jsontext import is_deep
from crony.errors import Invalid

RESULT_LIMIT = 1024
"""A result of at most this many bytes of JSON is kept."""
SENTENCE = 500
"""Most characters of a reason or a message that are kept."""
TOKEN_LIMIT = 1024
TOKEN_GRACE = 60.0
"""Seconds after the deadline for which a token is still good."""

_TOKEN = re.compile(r"c1\.([A-Za-z0-9_-]{8,900})\.([A-Za-z0-9_-]{43})")
_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode


@dataclass(frozen=True, slots=True)
class Asynchronous:
    """The `async` section: how long the callee may take, and how long it may be silent. Seconds."""

    deadline: float
    heartbeat: float = 0.0
    """0: its silence does not matter."""

    def document(self) -> dict[str, Any]:
        """As plain data, durations in text."""
        beat = format_duration(self.heartbeat) if self.heartbeat else None
        return {"deadline": format_duration(self.deadline), "heartbeat": beat}


def parse_asynchronous(value: Any, field: str = "async") -> Asynchronous | None:
    """The `async` section; None when there is none. Raises `Invalid` naming the field."""
    if value is None:
        return None
    given = fields(value, field, ("deadline", "heartbeat"))
    if given.get("deadline") is None:
        raise Invalid(f"{field}.deadline", "is missing", hint="write how long the callee may take, such as 2h")
    deadline = parse_duration(given["deadline"], f"{field}.deadline", least=1, most=30 * 86400)
    if given.get("heartbeat") is None:
        return Asynchronous(deadline)
    heartbeat = parse_duration(given["heartbeat"], f"{field}.heartbeat", least=1, most=30 * 86400)
    if heartbeat > deadline:
        raise Invalid(f"{field}.heartbeat", "is longer than `deadline`", hint="lower it or leave it out")
    return Asynchronous(deadline, heartbeat)


class BadToken(Exception):
    """A text that is not a token; which part of it is wrong is nobody's business."""


@dataclass(frozen=True, slots=True)
class Token:
    """The right to speak for one attempt: where its claim was when it started, and a secret."""

    queue: str
    place: str
    fence: int
    secret: str

    def __repr__(self) -> str:
        """Without the secret: tokens end up in logs by their repr."""
        return f"Token({self.queue!r}, {self.place!r}, {self.fence})"

    @classmethod
    def new(cls, queue: str, place: str) -> Self:
        """A token with 256 random bits. Its fence comes with the permit that stores its digest."""
        return cls(queue, place, 0, base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("="))

    def under(self, fence: int) -> Self:
        """The token for the permit that got this fence."""
        return replace(self, fence=fence)

    @property
    def digest(self) -> str:
        """What is stored of it: SHA-256 in hex of where it was made for and its secret."""
        return hashlib.sha256(f"{self.queue}\n{self.place}\n{self.secret}".encode()).hexdigest()

    @property
    def text(self) -> str:
        """As it travels. Opaque to everybody but Crony."""
        where = base64.urlsafe_b64encode(_dumps([self.queue, self.place, self.fence]).encode()).decode().rstrip("=")
        return f"c1.{where}.{self.secret}"

    @classmethod
    def read(cls, text: str) -> Self:
        """The token behind a text. Raises `BadToken`."""
        match = _TOKEN.fullmatch(text) if len(text) <= TOKEN_LIMIT else None
        if match is None:
            raise BadToken
        try:
            queue, place, fence = json.loads(base64.urlsafe_b64decode(match[1] + "=" * (-len(match[1]) % 4)))
        except (ValueError, TypeError, RecursionError):
            raise BadToken from None
        if not (isinstance(queue, str) and isinstance(place, str) and type(fence) is int):
            raise BadToken
        if not queue.startswith("run.") or "/" in place or "." not in place or not 0 < fence < 2**63:
            raise BadToken
        return cls(queue, place, fence, match[2])

    def fits(self, digest: str) -> bool:
        """Whether it is the one behind `digest`; takes the same time wherever they differ."""
        return bool(digest) and hmac.compare_digest(self.digest.encode(), digest.encode())


@dataclass(frozen=True, slots=True)
class Report:
    """How it went, as the callee says: the body of `complete` or `fail`."""

    succeeded: bool
    result: Any = None
    reason: str = ""
    code: int | None = None
    final: bool = False
    """Of a failure: no further attempt shall follow."""

    @property
    def digest(self) -> str:
        """The same for the same words: tells a repeated report from a contradicting one."""
        told = [self.succeeded, self.result, self.reason, self.code, self.final]
        return hashlib.sha256(_dumps(told).encode("utf-8", "surrogatepass")).hexdigest()


def line(text: str | None) -> str | None:
    """What is kept of a text from a callee: one line of at most `SENTENCE` characters, nothing that moves a cursor."""
    if text is None:
        return None
    plain = "".join(" " if unicodedata.category(char) in ("Cc", "Zl", "Zp") else char for char in text[: 4 * SENTENCE])
    plain = " ".join(plain.split())
    return plain if len(plain) <= SENTENCE else plain[: SENTENCE - 1] + "…"


def kept(value: Any) -> Any:
    """A result as it can be kept: itself when it is small, flat enough JSON, else a marker saying what it was."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return {"not_json": type(value).__name__}
    size = len(text.encode(errors="backslashreplace"))
    if size > RESULT_LIMIT:
        return {"truncated": True, "bytes": size}
    return {"too_deep": True} if is_deep(value) else value
