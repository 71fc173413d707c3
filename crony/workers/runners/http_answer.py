"""What an HTTP answer means: expected or not, a result to keep, how long to leave the service alone."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

from urllib3.response import BaseHTTPResponse

from crony.domain.durations import format_duration
from crony.domain.jsontext import small

BODY_LIMIT = 1024 * 1024
"""Most bytes of an answer that are read, after decompression."""
RESULT_LIMIT = 1024
"""A JSON answer of at most this many bytes is kept as the run's result."""
LONGEST_PAUSE = 30 * 86400.0

_MISSING = object()


def read(answer: BaseHTTPResponse) -> tuple[bytes, bool]:
    """The body, and whether it was cut at the limit: then its connection is of no use any more."""
    body = bytearray()
    while chunk := answer.read(65536, decode_content=True):
        body += chunk
        if len(body) > BODY_LIMIT:
            return bytes(body[:BODY_LIMIT]), True
    return bytes(body), False


def result_of(answer: BaseHTTPResponse, body: bytes) -> Any:
    """A small JSON answer as the run's result, else None."""
    return small(body, RESULT_LIMIT) if "json" in answer.headers.get("Content-Type", "") else None


def unexpected(expected: Mapping[str, Any], answer: BaseHTTPResponse, body: bytes, cut: bool) -> str:
    """Why the body is not the expected one; empty: it is."""
    seen = f" in its first {BODY_LIMIT} bytes" if cut else ""
    if "contains" in expected and str(expected["contains"]) not in _text(answer, body):
        return f"the answer does not contain the expected text{seen}"
    if "pointer" not in expected:
        return ""
    pointer = str(expected["pointer"])
    if cut:
        return f"the answer is longer than {BODY_LIMIT} bytes, so {pointer or 'it'} could not be looked at"
    try:
        found = _at(_json(body), pointer)
    except ValueError:
        return "the answer is not JSON"
    if found is _MISSING:
        return f"the answer has nothing at {pointer}"
    wanted = expected["equals"]
    if found == wanted and isinstance(found, bool) == isinstance(wanted, bool):
        return ""
    return f"the answer has another value at {pointer or 'its root'} than expected"


def pause_of(headers: Mapping[str, str], now: float) -> float:
    """Seconds for which `Retry-After` asks (a number or a date); 0: it does not. `now`: epoch seconds."""
    told = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,10}", told):
        return min(float(told), LONGEST_PAUSE)
    try:
        until = parsedate_to_datetime(told).timestamp()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    try:  # the service's date is by the service's clock
        now = parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (ValueError, TypeError, OverflowError):
        pass
    return float(min(max(0, math.ceil(until - now)), LONGEST_PAUSE))


def pause_in_words(asked: float, retry: Mapping[str, Any]) -> str:
    """For the reason of a failure: what was asked, and what is made of it; empty when there is nothing to say."""
    if not asked:
        return ""
    longest = float(retry.get("max_delay", 600.0))
    limit = f", `max_delay` allows {format_duration(longest)}" if asked > longest else ""
    return f"; it asks to be left alone for {format_duration(asked)}{limit}"


def keeps_for(headers: Mapping[str, str], otherwise: float, most: float) -> float:
    """Seconds for which the service says it keeps the connection, a second less to be sure."""
    told = re.search(r"\btimeout=([0-9]{1,6})", headers.get("keep-alive", ""))
    return min(max(0.0, float(told[1]) - 1.0), most) if told else otherwise


def _json(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_constant)
    except RecursionError:
        raise ValueError from None


def _constant(name: str) -> NoReturn:
    raise ValueError(name)


def _text(answer: BaseHTTPResponse, body: bytes) -> str:
    told = re.search(r"charset=[\"']?([A-Za-z0-9._-]{1,40})", answer.headers.get("Content-Type", ""))
    try:
        charset = codecs.lookup(told[1]).name if told else "utf-8"
        return body.decode(charset, "replace")
    except (LookupError, UnicodeError, ValueError):
        return body.decode("utf-8", "replace")


def _at(value: Any, pointer: str) -> Any:
    """What a JSON pointer (RFC 6901) points at, or `_MISSING`."""
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and re.fullmatch(r"0|[1-9][0-9]{0,8}", name) and int(name) < len(value):
            value = value[int(name)]
        else:
            return _MISSING
    return value
