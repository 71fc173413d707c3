"""What is declared of a queue: which of its properties mean something here, and when two declarations disagree."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

from crony.transport_etcd.errors import precondition

EFFECTIVE = (
    "x-expires",
    "x-message-ttl",
    "x-max-length",
    "x-max-length-bytes",
    "x-overflow",
    "x-delivery-limit",
    "x-dead-letter",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
)
"""Arguments that change what a queue does. Two declarations must agree in these. In others they need not: nothing
behaves differently (priorities 0-9 work without `x-max-priority`, every queue is replicated whatever `x-queue-type`
says), and a worker whose configuration names one that a producer's does not should not be kept from starting."""

_NUMBERS = {"x-expires": 1, "x-message-ttl": 0, "x-max-length": 0, "x-max-length-bytes": 0, "x-delivery-limit": -1}


@dataclass(frozen=True, slots=True)
class Declared:
    """What was declared of a queue."""

    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)
    implicit: bool = False
    """Nobody declared it: a message made it. The first declaration replaces this."""
    consumed: bool = False
    """It has had a consumer: an auto-delete queue goes with its last one."""

    @property
    def leased(self) -> bool:
        """It lives and dies with the process that declared it."""
        return self.exclusive

    @property
    def volatile(self) -> bool:
        """It may be deleted because nobody uses it, so whoever uses it has to show that."""
        return not self.exclusive and (self.auto_delete or self.expires is not None)

    @property
    def ttl(self) -> float | None:
        """Message TTL, seconds."""
        return self._seconds("x-message-ttl")

    @property
    def expires(self) -> float | None:
        """How long it may stay unused, seconds."""
        return self._seconds("x-expires")

    @property
    def keeps_dead(self) -> bool:
        """Messages that were refused or have expired become dead letters instead of nothing."""
        given = self.arguments
        return bool(given.get("x-dead-letter") or given.get("x-dead-letter-exchange") is not None)

    def limit(self, default: int) -> int:
        """Most deliveries of a message; 0: no limit. `default` unless the queue says something itself."""
        try:
            return max(0, int(self.arguments["x-delivery-limit"]))
        except (KeyError, TypeError, ValueError):
            return default

    def _seconds(self, name: str) -> float | None:
        try:
            return float(self.arguments[name]) / 1000
        except (KeyError, TypeError, ValueError):
            return None

    def check(self, queue: str) -> None:
        """Raises `PreconditionFailed` for an argument that cannot be, naming it."""
        for name, least in _NUMBERS.items():
            value = self.arguments.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < least:
                why = f"invalid arg '{name}' for queue {queue!r}: {value!r} is not a number of at least {least}"
                raise precondition(why, method="declare")

    def difference(self, other: Declared) -> str:
        """In what `other` disagrees with this, in words; empty if in nothing that counts."""
        for name in ("durable", "exclusive", "auto_delete"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                return f"{name} is {str(mine).lower()} there and {str(theirs).lower()} here"
        for name in EFFECTIVE:
            mine, theirs = self.arguments.get(name), other.arguments.get(name)
            if mine != theirs:
                return f"{name} is {_shown(mine)} there and {_shown(theirs)} here"
        return ""

    def used(self) -> Declared:
        """The same queue after its first consumer has come."""
        return replace(self, consumed=True)

    def encode(self) -> bytes:
        """Stored form."""
        record: dict[str, Any] = {
            "v": 1,
            "durable": self.durable,
            "exclusive": self.exclusive,
            "auto_delete": self.auto_delete,
            "arguments": self.arguments,
        }
        for name in ("implicit", "consumed"):
            if getattr(self, name):
                record[name] = True
        return json.dumps(record, separators=(",", ":"), default=str).encode()

    @classmethod
    def read(cls, value: bytes) -> Declared:
        """What is stored; an unreadable record counts as a plain durable queue."""
        try:
            raw = json.loads(value)
            return cls(
                raw["durable"],
                raw["exclusive"],
                raw["auto_delete"],
                dict(raw["arguments"]),
                bool(raw.get("implicit")),
                bool(raw.get("consumed")),
            )
        except (ValueError, KeyError, TypeError):
            return cls()


def _shown(value: Any) -> str:
    return "not set" if value is None else repr(value)


__all__ = ["EFFECTIVE", "Declared"]
