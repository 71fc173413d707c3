"""Reading untrusted documents: bounded, strict about types, and exact about where something is wrong."""

from __future__ import annotations

import difflib
import json
import math
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Any, NoReturn

from crony.errors import Invalid

DEEPEST = 32
"""Levels of nesting a document may have."""
MOST_VALUES = 20_000
"""Values (fields, items, texts, numbers) a document may have; stops documents that repeat themselves by reference."""

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_INVISIBLE = frozenset(
    "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180e\u200b\u2060\u2061\u2062\u2063\u2064\u3164\ufeff\uffa0"
)


def load_json(data: bytes | str, *, most: int = 1 << 20) -> Any:
    """One JSON value from UTF-8 text: no duplicate keys, NaN, byte order mark or trailing text. Raises `Invalid`."""
    if len(data) > most:
        raise Invalid("", f"the document is larger than {most} bytes", hint="split it")
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except UnicodeDecodeError:
        raise Invalid("", "the document is not UTF-8 text", hint="save it as UTF-8") from None
    except json.JSONDecodeError as error:
        why = f"the document is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        raise Invalid("", why, hint="check the quotes and commas there") from None
    except (RecursionError, ValueError) as error:
        if isinstance(error, Invalid):
            raise
        why = "is nested too deeply" if isinstance(error, RecursionError) else "has a number that is too long"
        raise Invalid("", f"the document {why}", hint="simplify it") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise Invalid(_shown(key), "is given twice", hint="keep one of them")
        found[key] = value
    return found


def _constant(name: str) -> NoReturn:
    raise Invalid("", f"{name} is not a JSON number", hint="write a finite number")


def plain(value: Any, field: str = "") -> Any:
    """A deep copy of `value` made of plain JSON types only; aware times become RFC 3339 text. Raises `Invalid`."""
    return _plain(value, field, 0, [MOST_VALUES])


def _plain(value: Any, field: str, depth: int, budget: list[int]) -> Any:
    budget[0] -= 1
    if budget[0] < 0:
        raise Invalid(field, f"the document has more than {MOST_VALUES} values", hint="make it smaller")
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise Invalid(field, "has half of a surrogate pair", hint="write valid Unicode") from None
        return str(value)
    if isinstance(value, int):
        if not -(2**63) < value < 2**63:
            raise Invalid(field, "is a number beyond 64 bits", hint="write it as text")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Invalid(field, "is not a finite number", hint="write a plain number")
        return float(value)
    if depth >= DEEPEST:
        raise Invalid(field, f"is nested more than {DEEPEST} levels deep", hint="flatten it")
    if isinstance(value, Mapping):
        copy = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise Invalid(field, f"has a field name that is not text: {_shown(str(key))}", hint="quote it")
            if not key.isascii():
                key = _plain(key, field, depth, budget)
            copy[key] = item if _simple(item) else _plain(item, join(field, key), depth + 1, budget)
        budget[0] -= len(copy)
        return copy
    if isinstance(value, list | tuple):
        budget[0] -= len(value)
        return [
            item if _simple(item) else _plain(item, f"{field}[{index}]", depth + 1, budget)
            for index, item in enumerate(value)
        ]
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise Invalid(field, "has no offset from UTC", hint='write it as text: "2026-12-01T09:00:00+08:00"')
        return value.isoformat()
    if isinstance(value, date):
        raise Invalid(field, "is a date, which YAML made of it", hint="put it into quotes")
    raise Invalid(field, f"has a value of type {type(value).__name__}", hint="use text, numbers, lists and mappings")


def _simple(value: Any) -> bool:
    """Most values: they need no copy and no path to complain about."""
    kind = type(value)
    return kind is bool or value is None or (kind is str and value.isascii())


def join(field: str, name: str) -> str:
    """Path of the field `name` inside `field`."""
    return f"{field}.{_shown(name)}" if field else _shown(name)


def _shown(name: str) -> str:
    text = name if len(name) <= 60 else name[:60] + "…"
    return text if text.isprintable() else repr(text)[1:-1]


def fields(value: Any, field: str, known: Collection[str], later: Collection[str] = ()) -> Mapping[str, Any]:
    """`value` as a mapping without unknown fields; fields of features to come (`later`) are refused unless null."""
    if not isinstance(value, Mapping):
        raise Invalid(field, "must be a mapping of fields", hint=f"its fields are {', '.join(sorted(known))}")
    for name in value:
        if name in known:
            continue
        if not isinstance(name, str):
            raise Invalid(field, "has a field name that is not text", hint="quote it")
        if name in later:
            if value[name] is None:
                continue
            raise Invalid(join(field, name), "is not available yet", hint="remove it")
        near = difflib.get_close_matches(name[:60].lower(), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the fields here are {', '.join(sorted(known))}"
        raise Invalid(join(field, name), "is not a known field", hint=hint)
    return value


def choice(value: Any, field: str, built: Sequence[str], later: Collection[str] = ()) -> str:
    """One of the words in `built`; words of features to come (`later`) are refused as such."""
    if isinstance(value, str):
        if value in built:
            return value
        if value in later:
            raise Invalid(field, f"{value} is not available yet", hint=f"use {' or '.join(built)}")
        near = difflib.get_close_matches(value[:60].lower(), built, n=1)
        hint = f"did you mean {near[0]}?" if near else f"use {' or '.join(built)}"
        raise Invalid(field, f"must be one of {', '.join(built)}", hint=hint)
    raise Invalid(field, f"must be one of {', '.join(built)}", hint=f"use {' or '.join(built)}")


def flag(value: Any, field: str) -> bool:
    """True or false, nothing else."""
    if value is True or value is False:
        return value
    raise Invalid(field, "must be true or false", hint="write it without quotes")


def integer(value: Any, field: str, least: int, most: int) -> int:
    """A whole number between `least` and `most` inclusive; neither text nor true."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise Invalid(field, "must be a whole number", hint=f"write {least} to {most}, without quotes")
    if not least <= value <= most:
        raise Invalid(field, f"must be between {least} and {most}", hint=f"write {least} to {most}")
    return value


def texts(value: Any, field: str, *, least: int = 1, most: int, lines: bool = False) -> str:
    """Text of `least` to `most` bytes without control or direction-changing characters; line breaks with `lines`."""
    if not isinstance(value, str):
        raise Invalid(field, "must be text", hint="put it into quotes")
    size = len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
    if size > most:
        raise Invalid(field, f"is {size} bytes long; at most {most}", hint="shorten it")
    if size < least:
        raise Invalid(field, "is empty", hint="write something, or leave the field out")
    if value.isascii() and value.isprintable():
        return value
    for char in value:
        if lines and char in "\n\r\t":
            continue
        if char in _BIDI:
            raise Invalid(field, f"has a character that changes text direction (U+{ord(char):04X})", hint="remove it")
        if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp"):
            raise Invalid(field, f"has a control character (U+{ord(char):04X})", hint="remove it")
    return value


def raw_text(value: Any, field: str, *, most: int) -> str:
    """Text handed on as it is, such as a script or a body: at most `most` bytes, no NUL."""
    if not isinstance(value, str):
        raise Invalid(field, "must be text", hint="put it into quotes")
    size = len(value.encode("utf-8", "surrogatepass"))
    if size > most:
        raise Invalid(field, f"is {size} bytes long; at most {most}", hint="keep it in a file on the node")
    if "\0" in value:
        raise Invalid(field, "has a NUL character", hint="remove it")
    return value


def invisible(text: str) -> str | None:
    """The first character that makes two names look alike (zero width, filler), or None."""
    previous = ""
    for char in text:
        # Joiners are part of many emoji and scripts, but between ASCII characters they only hide.
        if char in _INVISIBLE or (char in "\u200c\u200d" and (not previous or previous.isascii())):
            return char
        if 0xE0000 <= ord(char) <= 0xE0FFF:
            return char
        previous = char
    return None


def listing(value: Any, field: str, most: int) -> list[Any]:
    """A list of at most `most` items."""
    if not isinstance(value, list | tuple):
        raise Invalid(field, "must be a list", hint="write [a, b]")
    if len(value) > most:
        raise Invalid(field, f"has {len(value)} items; at most {most}", hint="shorten it")
    return list(value)
