"""Conditions of a transaction, spelt for the gateway and for etcd itself."""

from __future__ import annotations

from typing import NamedTuple

from crony.etcd import proto
from crony.etcd.errors import BadRequest
from crony.etcd.wire import encode_key


class Compare(NamedTuple):
    """A condition on one key, or on a range. Make it with `mod`, `create`, `version`, `lease`, `exists`, `absent`
    or `vacant`.
    """

    key: str
    target: str
    result: str
    number: int
    end: str = ""
    """Not empty: every key from `key` up to it."""

    def json(self) -> str:
        """As the gateway wants it."""
        target, field = TARGETS[self.target]
        result = _RESULTS[self.result]
        tail = f',"range_end":"{encode_key(self.end)}"' if self.end else ""
        number = int(self.number)
        return f'{{"key":"{_key(self.key)}","target":"{target}","result":"{result}","{field}":"{number}"{tail}}}'

    def proto(self) -> bytes:
        """As etcd itself wants it."""
        target, field = _NUMBERS[self.target]
        key = proto.chunk(b"\x1a", named(self.key).encode("utf-8", "surrogateescape"))
        end = proto.chunk(b"\x82\x04", proto.key_bytes(self.end)) if self.end else b""
        return b"%b%b%b%b%b%b" % (_CHUNKS[self.result], target, key, field, proto.varint(self.number), end)


TARGETS = {
    "mod": ("MOD", "mod_revision"),
    "create": ("CREATE", "create_revision"),
    "version": ("VERSION", "version"),
    "lease": ("LEASE", "lease"),
}
_RESULTS = {"=": "EQUAL", ">": "GREATER", "<": "LESS"}
_NUMBERS = {
    "version": (b"", b"\x20"),
    "create": (b"\x10\x01", b"\x28"),
    "mod": (b"\x10\x02", b"\x30"),
    "lease": (b"\x10\x04", b"\x40"),
}
_CHUNKS = {"=": b"", ">": b"\x08\x01", "<": b"\x08\x02"}


def mod(key: str, revision: int) -> Compare:
    """The key's last change is `revision`; 0: it is absent."""
    return Compare(key, "mod", "=", revision)


def create(key: str, revision: int) -> Compare:
    """The key was created at `revision`; 0: it is absent."""
    return Compare(key, "create", "=", revision)


def version(key: str, number: int) -> Compare:
    """The key was put `number` times since its creation; 0: it is absent."""
    return Compare(key, "version", "=", number)


def lease(key: str, ident: int) -> Compare:
    """The key exists under that lease (0: under none, or it is absent)."""
    return Compare(key, "lease", "=", ident)


def exists(key: str) -> Compare:
    """The key is there."""
    return Compare(key, "version", ">", 0)


def absent(key: str) -> Compare:
    """The key is not there."""
    return Compare(key, "mod", "=", 0)


def vacant(start: str, end: str) -> Compare:
    """No key lies in `start` <= key < `end`."""
    return Compare(start, "create", "=", 0, end)


def named(key: str) -> str:
    """The key, which is not empty. Raises `BadRequest`."""
    if not key:
        raise BadRequest("a key is empty")
    return key


def _key(key: str) -> str:
    return encode_key(named(key))


__all__ = ["TARGETS", "Compare", "absent", "create", "exists", "lease", "mod", "named", "vacant", "version"]
