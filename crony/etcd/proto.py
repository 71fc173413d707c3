"""etcd's own messages (protobuf), the few fields we use: far cheaper than the gateway's JSON, for both sides.

Written by hand because nothing that brings gRPC's C core may live in a worker's parent (D1), and these few shapes
have been frozen since etcd 3.0.
"""

from __future__ import annotations

from typing import NamedTuple

from crony.etcd.wire import KV, Page

_ONE = [bytes([number]) for number in range(128)]


class Header(NamedTuple):
    """Which cluster answered, and the store's revision."""

    cluster: str
    revision: int


class Watched(NamedTuple):
    """One message of a watch: `events` are (deleted, pair)."""

    created: bool
    canceled: bool
    compact_revision: int
    reason: str
    events: list[tuple[bool, KV]]


# -- writing ---------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    """A number as protobuf writes it (64-bit; negative ones as two's complement)."""
    if 0 <= number < 128:
        return _ONE[number]
    if 0 < number < 16384:  # nearly every length
        return bytes((number & 127 | 128, number >> 7))
    number &= 0xFFFF_FFFF_FFFF_FFFF
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


def chunk(tag: bytes, data: bytes) -> bytes:
    """A field with a length: bytes, text, a message."""
    size = len(data)
    if size < 128:
        return tag + _ONE[size] + data
    return b"%b%b%b" % (tag, varint(size), data)


def key_bytes(key: str) -> bytes:
    """A key as etcd holds it."""
    return key.encode("utf-8", "surrogateescape")


def range_request(
    start: str,
    end: str | None,
    *,
    limit: int = 0,
    revision: int = 0,
    keys_only: bool = False,
    count_only: bool = False,
    min_mod: int = 0,
) -> bytes:
    """RangeRequest."""
    parts = [chunk(b"\x0a", key_bytes(start))]
    if end is not None:
        parts.append(chunk(b"\x12", key_bytes(end)))
    for tag, number in (
        (b"\x18", limit),
        (b"\x20", revision),
        (b"\x40", keys_only),
        (b"\x48", count_only),
        (b"\x50", min_mod),
    ):
        if number:
            parts.append(tag + varint(int(number)))
    return b"".join(parts)


def put_request(key: str, value: bytes, lease: int) -> bytes:
    """PutRequest."""
    body = chunk(b"\x0a", key.encode("utf-8", "surrogateescape")) + chunk(b"\x12", value)
    return body + b"\x18" + varint(lease) if lease else body


def delete_request(key: str, end: str | None = None) -> bytes:
    """DeleteRangeRequest."""
    body = chunk(b"\x0a", key_bytes(key))
    return body if end is None else body + chunk(b"\x12", key_bytes(end))


def watch_request(start: str, end: str | None, revision: int, *, puts_only: bool = False) -> bytes:
    """WatchRequest that creates a watch from `revision` on."""
    body = chunk(b"\x0a", key_bytes(start))
    if end is not None:
        body += chunk(b"\x12", key_bytes(end))
    body += b"\x18" + varint(revision)
    if puts_only:
        body += b"\x2a\x01\x01"
    return chunk(b"\x0a", body)


# -- reading ---------------------------------------------------------------------------------------


def number_at(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends."""
    found = data[at]
    at += 1
    if found < 128:
        return found, at
    found &= 127
    shift = 7
    while True:
        more = data[at]
        at += 1
        found |= (more & 127) << shift
        if more < 128:
            return found, at
        shift += 7


def skip(data: bytes, at: int, wire: int) -> int:
    """Where the field of that wire type which begins at `at` ends."""
    if wire == 2:
        size, at = number_at(data, at)
        return at + size
    if wire == 0:
        return number_at(data, at)[1]
    if wire in (1, 5):
        return at + (8 if wire == 1 else 4)
    raise ValueError("this is not etcd's wire format")


def header(data: bytes) -> Header:
    """ResponseHeader."""
    cluster = revision = at = 0
    end = len(data)
    while at < end:
        tag = data[at]
        at += 1
        if tag == 0x08:
            cluster, at = number_at(data, at)
        elif tag == 0x18:
            revision, at = number_at(data, at)
        else:
            at = skip(data, at, tag & 7)
    return Header(str(cluster), revision)


def pair(data: bytes) -> KV:
    """KeyValue."""
    key = value = b""
    create = mod = version = lease = at = 0
    end = len(data)
    while at < end:
        tag = data[at]
        at += 1
        if tag == 0x0A or tag == 0x2A:
            size, at = number_at(data, at)
            if tag == 0x0A:
                key = data[at : at + size]
            else:
                value = data[at : at + size]
            at += size
        elif tag == 0x10:
            create, at = number_at(data, at)
        elif tag == 0x18:
            mod, at = number_at(data, at)
        elif tag == 0x20:
            version, at = number_at(data, at)
        elif tag == 0x30:
            lease, at = number_at(data, at)
        else:
            at = skip(data, at, tag & 7)
    if at != end:
        raise ValueError("a pair is cut off")
    return KV(key.decode("utf-8", "surrogateescape"), value, create, mod, version, lease)


def range_response(data: bytes) -> tuple[Header, Page]:
    """RangeResponse."""
    head, kvs, more, count, at = Header("0", 0), [], 0, 0, 0
    end = len(data)
    while at < end:
        tag = data[at]
        at += 1
        if tag == 0x12 or tag == 0x0A:
            size, at = number_at(data, at)
            if tag == 0x12:
                kvs.append(pair(data[at : at + size]))
            else:
                head = header(data[at : at + size])
            at += size
        elif tag == 0x18:
            more, at = number_at(data, at)
        elif tag == 0x20:
            count, at = number_at(data, at)
        else:
            at = skip(data, at, tag & 7)
    return head, Page(kvs, head.revision, count, bool(more))


def write_response(data: bytes) -> tuple[Header, int]:
    """PutResponse or DeleteRangeResponse; the number deleted (0 for a put)."""
    head, deleted, at = Header("0", 0), 0, 0
    end = len(data)
    while at < end:
        tag = data[at]
        at += 1
        if tag == 0x0A:
            size, at = number_at(data, at)
            head = header(data[at : at + size])
            at += size
        elif tag == 0x10:
            deleted, at = number_at(data, at)
        else:
            at = skip(data, at, tag & 7)
    return head, deleted


def watch_response(data: bytes) -> Watched:
    """WatchResponse."""
    created = canceled = compact = at = 0
    reason = ""
    events: list[tuple[bool, KV]] = []
    end = len(data)
    while at < end:
        tag = data[at]
        at += 1
        if tag == 0x5A:
            size, at = number_at(data, at)
            events.append(_event(data, at, at + size))
            at += size
        elif tag == 0x18:
            created, at = number_at(data, at)
        elif tag == 0x20:
            canceled, at = number_at(data, at)
        elif tag == 0x28:
            compact, at = number_at(data, at)
        elif tag == 0x32:
            size, at = number_at(data, at)
            reason = data[at : at + size].decode("utf-8", "replace")
            at += size
        else:
            at = skip(data, at, tag & 7)
    return Watched(bool(created), bool(canceled), compact, reason, events)


def _event(data: bytes, at: int, end: int) -> tuple[bool, KV]:
    deleted, found = 0, b""
    while at < end:
        tag = data[at]
        at += 1
        if tag == 0x12:
            size, at = number_at(data, at)
            found = data[at : at + size]
            at += size
        elif tag == 0x08:
            deleted, at = number_at(data, at)
        else:
            at = skip(data, at, tag & 7)
    return bool(deleted), pair(found)
