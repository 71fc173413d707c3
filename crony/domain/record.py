"""What every stored record has in common: JSON with a version.

Readers keep fields they do not know and refuse a higher version. Times are epoch seconds (UTC) in fields ending in
`_at`, durations seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from operator import attrgetter
from typing import Any, Self

from crony.domain.jsontext import dumps, loads
from crony.errors import CronyError

RECORD_VERSION = 1


class UnknownRecord(CronyError):
    """A stored record is of a newer version, or not one of ours at all."""


@dataclass(frozen=True, slots=True)
class Record:
    """Base of stored records: JSON with a version."""

    def payload(self) -> dict[str, Any]:
        """The record as plain data, version first; lists and mappings inside are the record's own."""
        return {"v": RECORD_VERSION, **{name: getattr(self, name) for name in self.__dataclass_fields__}}

    def brief(self) -> dict[str, Any]:
        """The payload without what is as it is by default. So a default never changes under one record version."""
        found: dict[str, Any] = {"v": RECORD_VERSION}
        names, defaults, values_of = _shape(type(self))
        for name, default, value in zip(names, defaults, values_of(self), strict=True):
            if value is not default and value != default:
                found[name] = value
        return found

    def encode(self) -> bytes:
        """The record as stored bytes. Half a surrogate pair (a file name that is not UTF-8, say) becomes `?`."""
        return dumps(self.brief(), "replace")

    def but(self, **changes: Any) -> Self:
        """A copy with some fields changed: `dataclasses.replace`, sooner."""
        names, _, values_of = _shape(type(self))
        return type(self)(**{**dict(zip(names, values_of(self), strict=True)), **changes})

    @classmethod
    def read(cls, data: bytes | str | Mapping[str, Any]) -> Self:
        """The record behind stored bytes or a payload. Raises `UnknownRecord`."""
        try:
            raw = data if isinstance(data, Mapping) else loads(data if isinstance(data, bytes) else data.encode())
            if raw.get("v", 0) > RECORD_VERSION:
                raise UnknownRecord(f"a {cls.__name__} of version {raw['v']}", hint="upgrade this process")
            known = cls.__dataclass_fields__
            return cls(**{key: value for key, value in raw.items() if key in known})
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise UnknownRecord(f"not a {cls.__name__}", why=str(error)) from None


_Shape = tuple[tuple[str, ...], tuple[Any, ...], Callable[[Record], tuple[Any, ...]]]
_SHAPES: dict[type[Record], _Shape] = {}


def _shape(kind: type[Record]) -> _Shape:
    """Names of the fields of a record, their defaults, and what reads all of one."""
    if (known := _SHAPES.get(kind)) is not None:
        return known
    fields = kind.__dataclass_fields__.values()
    defaults = [each.default if each.default_factory is MISSING else each.default_factory() for each in fields]
    names = tuple(each.name for each in fields)
    getter: Any = attrgetter(*names)
    _SHAPES[kind] = names, tuple(defaults), getter if len(names) > 1 else lambda record: (getter(record),)
    return _SHAPES[kind]
