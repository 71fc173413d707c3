"""The wire contract, version 1 (`docs/reference/callbacks.md` of Crony): names, limits, the facts of a call."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from urllib.parse import unquote, urlsplit

from crony_sdk.errors import Invalid, NotACall

RUN, ATTEMPT, FENCE, JOB = "X-Crony-Run", "X-Crony-Attempt", "X-Crony-Fence", "X-Crony-Job"
FIRE_TIME, TIMEOUT, RETRY_MAX = "X-Crony-Fire-Time", "X-Crony-Timeout", "X-Crony-Retry-Max"
IDEMPOTENCY_KEY, TRACEPARENT = "Idempotency-Key", "traceparent"
TIMESTAMP, SIGNATURE = "X-Crony-Timestamp", "X-Crony-Signature"
CALLBACK, TOKEN, DEADLINE, HEARTBEAT = "X-Crony-Callback", "X-Crony-Token", "X-Crony-Deadline", "X-Crony-Heartbeat"

BODY_LIMIT = 256 * 1024
"""Most bytes of a report."""
TEXT_LIMIT = 64 * 1024
"""Most bytes of text in one log report."""
REASON_LIMIT = 500
"""Most characters of a reason, and of a progress message."""
RESULT_KEPT = 1024
"""Bytes of a result that the platform keeps; of a larger one it notes the size."""


@dataclass(frozen=True)
class Call:
    """What Crony says about the attempt that it asks for. Durations are seconds."""

    run: str
    attempt: int
    fence: int = 0
    """Rises from attempt to attempt of a run: what you write elsewhere can refuse a lower one."""
    job: str = ""
    fire_time: datetime | None = None
    """The instant for which a schedule asked for the run."""
    timeout: float | None = None
    """Left for the call itself, up to its answer, when it was received."""
    retry_max: int = 0
    """Attempts that may follow the first one."""
    traceparent: str = ""
    callback: str = ""
    """Address of this attempt, when it may be answered later."""
    token: str = field(default="", repr=False)
    deadline: datetime | None = None
    """Until then the report must have arrived."""
    heartbeat: float | None = None
    """The platform gives up when it hears nothing for so long."""
    accept_file: str = field(default="", repr=False)
    received: float = field(default_factory=time.monotonic, repr=False, compare=False)

    @property
    def idempotency_key(self) -> str:
        """The same for all attempts of a run."""
        return self.run

    @property
    def asynchronous(self) -> bool:
        """Whether the answer may come later, by callback."""
        return bool(self.callback and self.token)

    @property
    def answer_left(self) -> float | None:
        """Seconds until the call itself has to be answered; None: not said."""
        return None if self.timeout is None else self.timeout - (time.monotonic() - self.received)

    @property
    def report_left(self) -> float | None:
        """Seconds until the report has to be there; None: not said."""
        return None if self.deadline is None else (self.deadline - datetime.now(timezone.utc)).total_seconds()

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> Call:
        """The facts in a request's headers (any case). Raises `NotACall` when they are missing or senseless."""
        given = {str(name).lower(): str(value) for name, value in headers.items()}

        def text(name: str) -> str:
            return given.get(name.lower(), "").strip()

        return cls(
            run=_run(text(RUN), RUN),
            attempt=_whole(text(ATTEMPT), ATTEMPT, least=1),
            fence=_whole(text(FENCE) or "0", FENCE),
            job=unquote(text(JOB)),
            fire_time=_instant(text(FIRE_TIME), FIRE_TIME),
            timeout=_seconds(text(TIMEOUT), TIMEOUT),
            retry_max=_whole(text(RETRY_MAX) or "0", RETRY_MAX),
            traceparent=_traceparent(text(TRACEPARENT)),
            callback=_callback(text(CALLBACK), CALLBACK),
            token=_token(text(TOKEN), TOKEN),
            deadline=_instant(text(DEADLINE), DEADLINE),
            heartbeat=_seconds(text(HEARTBEAT), HEARTBEAT),
        )

    @classmethod
    def from_grpc(cls, context: Any) -> Call:
        """The facts in the metadata of a servicer's context. Raises `NotACall` when they are missing."""
        pairs = context.invocation_metadata() or ()
        return cls.from_headers({str(key): value for key, value in pairs if isinstance(value, str)})

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Call:
        """The facts in the environment of a shell job. The token's file is read now: it goes when the command ends."""
        given = os.environ if environ is None else environ

        def text(name: str) -> str:
            return given.get(name, "").strip()

        return cls(
            run=_run(text("CRONY_RUN_ID"), "CRONY_RUN_ID"),
            attempt=_whole(text("CRONY_ATTEMPT"), "CRONY_ATTEMPT", least=1),
            fence=_whole(text("CRONY_FENCE") or "0", "CRONY_FENCE"),
            job=text("CRONY_NAME"),
            fire_time=_instant(text("CRONY_FIRE_TIME"), "CRONY_FIRE_TIME"),
            timeout=_seconds(text("CRONY_TIMEOUT"), "CRONY_TIMEOUT"),
            retry_max=_whole(text("CRONY_RETRY_MAX") or "0", "CRONY_RETRY_MAX"),
            traceparent=_traceparent(text("TRACEPARENT")),
            callback=_callback(text("CRONY_CALLBACK"), "CRONY_CALLBACK"),
            token=_token(_read(text("CRONY_CALLBACK_TOKEN_FILE")), "CRONY_CALLBACK_TOKEN_FILE"),
            deadline=_instant(text("CRONY_CALLBACK_DEADLINE"), "CRONY_CALLBACK_DEADLINE"),
            heartbeat=_seconds(text("CRONY_CALLBACK_HEARTBEAT"), "CRONY_CALLBACK_HEARTBEAT"),
            accept_file=text("CRONY_CALLBACK_ACCEPT_FILE"),
        )


@dataclass(frozen=True)
class Standing:
    """How an attempt stands, as the platform answered a report."""

    state: str = "running"
    """`running` or `ended`."""
    outcome: str | None = None
    cancel: bool = False
    """Stop working: somebody cancelled the run, or something else has ended the attempt."""
    delivered: bool = True
    """False: the platform could not be reached; the report is kept in the spool and goes out by itself."""

    @classmethod
    def from_json(cls, answer: Mapping[str, Any]) -> Standing:
        """An answer of the platform; members that nobody knows are ignored."""
        outcome = answer.get("outcome")
        return cls(
            state=str(answer.get("state") or "running"),
            outcome=None if outcome is None else str(outcome),
            cancel=answer.get("cancel") is True,
        )


def _run(text: str, name: str) -> str:
    if not text:
        raise NotACall(f"{name} is missing: this is no call by Crony")
    if len(text) > 128 or not re.fullmatch(r"[\w.-]+", text, re.ASCII):
        raise NotACall(f"{name} is no id of a run")
    return text


def _whole(text: str, name: str, *, least: int = 0) -> int:
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) < least:
        raise NotACall(f"{name} must be a whole number of {least} or more")
    return int(text)


def _seconds(text: str, name: str) -> float | None:
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < 1e10:
        raise NotACall(f"{name} must be a number of seconds")
    return seconds


def _instant(text: str, name: str) -> datetime | None:
    if not text:
        return None
    try:
        # Python before 3.11 knows neither Z nor other than 3 or 6 digits of a second's fraction.
        plain = re.sub(r"\.(\d+)", lambda found: "." + found[1][:6].ljust(6, "0"), text.upper())
        instant = datetime.fromisoformat(re.sub("Z$", "+00:00", plain))
    except ValueError:
        raise NotACall(f"{name} must be an RFC 3339 time") from None
    if instant.tzinfo is None:
        raise NotACall(f"{name} must carry its offset")
    return instant.astimezone(timezone.utc)


def _traceparent(text: str) -> str:
    return text if re.fullmatch(r"[0-9a-f-]{1,128}", text) else ""  # foreign and without effect: no reason to refuse


def _callback(text: str, name: str) -> str:
    if not text:
        return ""
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or parts.query or parts.fragment or parts.username or not text.isascii() or re.search(r"\s", text):
        raise NotACall(f"{name} is no address of Crony's web")
    return text


def _token(text: str, name: str) -> str:
    if text and (len(text) > 1024 or not re.fullmatch(r"[!-~]+", text)):
        raise NotACall(f"{name} holds no token")
    return text


def _read(path: str) -> str:
    if not path:
        return ""
    try:
        with open(path, encoding="ascii") as file:
            return file.read(2048).strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise NotACall(f"CRONY_CALLBACK_TOKEN_FILE cannot be read: {why}") from None


def base_url(text: str, name: str) -> str:
    """The address of a Crony without a slash at its end. Raises `Invalid`."""
    try:
        found = _callback(text.strip().rstrip("/"), name)
    except NotACall:
        found = ""
    if not found:
        raise Invalid(name, "must be the address of a Crony web, such as https://crony.example.org")
    return found
