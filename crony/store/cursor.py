"""Cursors of paged lists: opaque to the caller, checked strictly when they come back."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import BigInteger, and_, or_, type_coerce

from crony.errors import Invalid

T = TypeVar("T")
MOST = 200
"""Most items of one page."""


@dataclass(frozen=True, slots=True)
class Paged(Generic[T]):
    """One page; `next_cursor` is None on the last one."""

    items: list[T]
    next_cursor: str | None = None


def limit_of(limit: int | None, default: int = 50) -> int:
    """A page size between 1 and `MOST`. Raises `Invalid`."""
    if limit is None:
        return default
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST:
        raise Invalid("limit", f"must be between 1 and {MOST}")
    return limit


def make(kind: str, *parts: int | str) -> str:
    """The cursor of the list `kind` standing after the item with these sort values."""
    text = json.dumps([kind, *parts], ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def parts(kind: str, cursor: str, *types: type[int] | type[str]) -> tuple[int | str, ...]:
    """The sort values in a cursor of the list `kind`. Raises `Invalid` for anything that `make` did not make."""
    try:
        if len(cursor) > 2000:
            raise ValueError("too long")
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        found = json.loads(raw.decode())
        if not isinstance(found, list) or len(found) != len(types) + 1 or found[0] != kind:
            raise ValueError("of another list")
        values = tuple(found[1:])
        for value, wanted in zip(values, types, strict=True):
            if type(value) is not wanted or (isinstance(value, int) and abs(value) >= 2**62):
                raise ValueError("of another shape")
        if make(kind, *values) != cursor:
            raise ValueError("not as we write it")
    except (ValueError, binascii.Error, RecursionError):
        raise Invalid("cursor", "is not one we gave out", hint="start again without a cursor") from None
    return values


def before(at: Any, ident: Any, since: int, last: str) -> Any:
    """What follows an item of a list, newest first: it has column `at` at `since` (milliseconds) and id `last`."""
    instant = since / 1000
    return or_(at < instant, and_(at == instant, ident < last))


def milliseconds(column: Any) -> Any:
    """A column of instants as the whole milliseconds that are stored."""
    return type_coerce(column, BigInteger)
