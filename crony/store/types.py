"""Column types and text hygiene: what Python has on one side, what SQLite and MySQL both keep on the other.

Instants are float epoch seconds (UTC) in Python and whole milliseconds (BIGINT) in the database.
Structured values are JSON text. Text never holds what a database refuses: NUL and lone surrogates
become U+FFFD.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from sqlalchemy import BigInteger, LargeBinary, String, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def clean(text: str, limit: int | None = None) -> str:
    """`text` without NUL and lone surrogates, at most `limit` characters (the last one `…` when cut)."""
    text = _UNSTORABLE.sub("\ufffd", text)
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"


def to_json(value: Any) -> str:
    """`value` as JSON text that every database keeps; NaN and infinities become text, unknown objects are refused."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return clean(text)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


class Instant(TypeDecorator[float]):
    """Epoch seconds (float, UTC) kept as whole milliseconds."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> int | None:
        """Seconds to milliseconds. Raises ValueError for NaN, OverflowError for infinity."""
        return None if value is None else round(value * 1000)

    def process_result_value(self, value: int | None, dialect: Dialect) -> float | None:
        """Milliseconds to seconds."""
        return None if value is None else value / 1000


class Json(TypeDecorator[Any]):
    """Plain data kept as JSON text (TEXT; MEDIUMTEXT on MySQL). None is NULL."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        """MEDIUMTEXT on MySQL and MariaDB, where TEXT ends at 64 KiB."""
        return dialect.type_descriptor(mysql.MEDIUMTEXT() if dialect.name in ("mysql", "mariadb") else Text())

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Data to text."""
        return None if value is None else to_json(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Text to data."""
        return None if value is None else json.loads(value)


class Words(TypeDecorator[str]):
    """Free text of at most `length` characters: cleaned and cut on the way in, never refused for its content."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Cleaned and cut text."""
        return None if value is None else clean(str(value), getattr(self.impl_instance, "length", None))


def long_text() -> Any:
    """Text beyond 64 KiB on every database."""
    return Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


def long_bytes() -> Any:
    """Bytes beyond 64 KiB on every database."""
    return LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")
