"""JSON, fast: what the standard library would write and read, by orjson wherever the two agree.

They differ in what is no JSON at all or fits no 64 bits: NaN, lone halves of surrogate pairs, large integers, keys
that are not text. Those go the slow way, so that nobody has to ask which way a value went.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import orjson

_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_loads = json.JSONDecoder().decode
DEEPEST = 32
"""Levels to which a result may be nested, as what the API takes. Far more cannot be written again by everybody."""
_DIGITS = bytes(48 if 48 <= code <= 57 else 32 for code in range(256))
_LONG = b"0" * 18


def dumps(value: Any, halves: str = "strict", *, finite: bool = False) -> bytes:
    """`value` as JSON in UTF-8, without blanks.

    `halves`: what becomes of half a surrogate pair (a file name that is not UTF-8, say), as in `str.encode`. `finite`:
    no number in it is infinite or NaN, the caller knows. Raises TypeError or ValueError for what is not plain data.
    """
    try:
        found = orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME)
    except TypeError:  # of orjson's own kind for everything that it does not write
        return _dumps(value).encode("utf-8", halves)
    if not finite and b"null" in found and _is_odd(value):
        return _dumps(value).encode("utf-8", halves)
    return found


def loads(data: bytes) -> Any:
    """What `json.loads` says, sooner. Raises ValueError or RecursionError.

    Only where both agree: orjson makes floats of integers beyond 64 bits and refuses lone surrogates.
    """
    if _LONG not in data.translate(_DIGITS):  # eighteen digits in a row; a tenth of what a pattern takes to say so
        try:
            return orjson.loads(data)
        except ValueError:
            pass
    return _loads(data.decode("utf-8", "surrogatepass"))


def small(data: str | bytes, most: int) -> Any:
    """The value behind JSON text from outside that may be kept as a result: at most `most` bytes, `DEEPEST` levels,
    and no numbers that are none. None for everything else.
    """
    if len(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")) > most:
        return None
    try:
        value = json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    return None if is_deep(value) else value


def is_deep(value: Any) -> bool:
    """Whether lists and mappings in it are nested deeper than `DEEPEST` levels."""
    level = [value]
    for _ in range(DEEPEST + 1):
        found = [each for each in level if isinstance(each, dict | list | tuple)]
        inside = [each.values() if isinstance(each, dict) else each for each in found]
        level = [item for items in inside for item in items]
        if not inside:
            return False
    return True


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def _is_odd(value: Any) -> bool:
    """Whether a number in it is not finite, which orjson would write as null."""
    if isinstance(value, float):
        return value - value != 0.0
    if isinstance(value, dict):
        return any(_is_odd(item) for item in value.values() if item is not None and type(item) is not str)
    if isinstance(value, list | tuple):
        return any(_is_odd(item) for item in value if item is not None and type(item) is not str)
    return False
