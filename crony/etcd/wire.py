"""The shapes that travel: values the caller sees, and how the JSON gateway spells them.

Bytes are base64, 64-bit numbers are strings, and a field that is missing means 0, false or none.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from dataclasses import dataclass
from typing import Any, NamedTuple

Json = dict[str, Any]


class KV(NamedTuple):
    """A key as etcd holds it: text key, bytes, the revisions of its creation and last change, its lease (0: none)."""

    key: str
    value: bytes
    create: int
    mod: int
    version: int
    lease: int


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a range: pairs in key order, the store's revision, how many keys the range has, whether more follow."""

    kvs: list[KV]
    revision: int
    count: int
    more: bool


class Status(NamedTuple):
    """One etcd member: version, bytes of its file and in use, leader's member id, raft term, its revision, quota.

    `quota` is 0 where the member does not tell (before etcd 3.6).
    """

    version: str
    db_size: int
    db_in_use: int
    leader: int
    raft_term: int
    revision: int
    quota: int
    member: int


class Alarm(NamedTuple):
    """An alarm raised by a member: `NOSPACE` or `CORRUPT`."""

    member: int
    kind: str


def encode(data: bytes) -> str:
    """Bytes as the gateway wants them."""
    return b2a_base64(data, newline=False).decode("ascii")


def encode_key(key: str) -> str:
    """A key as the gateway wants it (UTF-8; foreign bytes survive the round trip)."""
    return b2a_base64(key.encode("utf-8", "surrogateescape"), newline=False).decode("ascii")


def decode_key(text: str) -> str:
    """The key behind the gateway's text."""
    return a2b_base64(text).decode("utf-8", "surrogateescape")


def kv(raw: Json) -> KV:
    """One pair from the gateway."""
    get = raw.get
    return KV(
        a2b_base64(raw["key"]).decode("utf-8", "surrogateescape"),
        a2b_base64(get("value", "")),
        int(get("create_revision", 0)),
        int(get("mod_revision", 0)),
        int(get("version", 0)),
        int(get("lease", 0)),
    )


def page(raw: Json) -> Page:
    """An answer to a range request."""
    return Page(
        [kv(item) for item in raw.get("kvs", ())],
        int(raw.get("header", {}).get("revision", 0)),
        int(raw.get("count", 0)),
        bool(raw.get("more", False)),
    )
