"""JSON read strictly: what two parsers could read differently is refused, never guessed at.

Refused: UTF-16 and byte order marks, invalid UTF-8, lone surrogates, NUL, duplicate keys, NaN and
Infinity (also as `1e999`), integers beyond 64 bits, nesting deeper than `DEPTH`, trailing bytes.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from crony.errors import Invalid

DEPTH = 32
"""Deepest nesting accepted; a job document needs about eight."""

_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def loads(data: bytes) -> Any:
    """The value behind `data`. Raises `Invalid` (field empty: the whole body) saying what is wrong with it."""
    if not data.strip():
        raise Invalid("", "the body is empty; JSON is expected")
    if data[:3] == b"\xef\xbb\xbf" or data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\x00" in data[:4]:
        raise Invalid("", "the body must be plain UTF-8 without a byte order mark")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Invalid("", f"the body is not valid UTF-8 at byte {error.start}") from None
    _check_depth(text)
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_integer
        )
    except json.JSONDecodeError as error:
        raise Invalid("", f"the body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise Invalid("", "the JSON is nested too deeply") from None
    if "\\u" in text:
        _check_text(value)
    return value


def load_object(data: bytes) -> dict[str, Any]:
    """As `loads`, but the value must be an object."""
    value = loads(data)
    if not isinstance(value, dict):
        raise Invalid("", "the body must be a JSON object", hint='write {"…": …}')
    return value


def _check_depth(text: str) -> None:
    depth = 0
    for character in _STRINGS.sub("", text):
        if character in "[{":
            depth += 1
            if depth > DEPTH:
                raise Invalid("", f"the JSON is nested deeper than {DEPTH} levels")
        elif character in "]}":
            depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise Invalid(key[:100], "appears twice in the same object")
        found[key] = value
    return found


def _constant(name: str) -> NoReturn:
    raise Invalid("", f"{name} is not a JSON number")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Invalid("", f"the number {text[:20]} is too large")
    return value


def _integer(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise Invalid("", f"the number {text[:20]} does not fit into 64 bits")
    return int(text)


def _check_text(value: Any) -> None:
    if isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise Invalid("", "a text holds half of a surrogate pair")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(key)
            _check_text(item)
    elif isinstance(value, list):
        for item in value:
            _check_text(item)
