"""Stamps: which stream a piece of output came from, and when. They lie beside the bytes, which stay as they were.

A stamp holds from its offset to the next one. What no stamp is known of came of a version that had one stream.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from itertools import pairwise
from operator import attrgetter
from typing import NamedTuple

from crony.errors import Invalid

SIZE = 17
"""Bytes of a packed stamp."""
MOST = 100_000
"""Most stamps of one attempt; what comes later is not told apart."""
_PACKED = struct.Struct(">QBQ")
_AT = attrgetter("at")


class Source(IntEnum):
    """The stream that a piece of output came from."""

    ANY = 0  # nobody knows: it counts as standard output
    STDOUT = 1
    STDERR = 2
    LOG = 3  # what a function logged, or the callee of an asynchronous run sent
    CRONY = 4  # what Crony itself says in between


NAMES = {source: source.name.lower() for source in Source if source}
"""What the streams are called in addresses and answers."""
SOURCES = {name: source for source, name in NAMES.items()}


class Stamp(NamedTuple):
    """From the byte `at` on: where it came from, and when it was read (epoch milliseconds; 0: nobody knows)."""

    at: int
    source: int
    time: int


class Piece(NamedTuple):
    """Bytes of one stream that were read together. `time` in epoch milliseconds; 0: nobody knows."""

    source: int
    time: int
    data: bytes


def pack(stamps: Iterable[Stamp]) -> bytes:
    """As they are stored and sent."""
    return b"".join(_PACKED.pack(*stamp) for stamp in stamps)


def unpack(data: bytes) -> list[Stamp]:
    """The stamps behind bytes; a last one that is not whole is left out."""
    return [Stamp(*found) for found in _PACKED.iter_unpack(data[: len(data) - len(data) % SIZE])]


def parse(data: bytes) -> list[Stamp]:
    """As `unpack`, of bytes from elsewhere. Raises `Invalid`."""
    stamps = unpack(data)
    if len(data) % SIZE:
        raise Invalid("stamps", f"must be a multiple of {SIZE} bytes long")
    if any(later.at < earlier.at for earlier, later in pairwise(stamps)):
        raise Invalid("stamps", "must be in the order of their offsets")
    if any(stamp.at >= 2**53 or stamp.time >= 2**53 for stamp in stamps):
        raise Invalid("stamps", "have a number that is out of range")
    return stamps


def cut(stamps: Sequence[Stamp], start: int, stop: int) -> list[Stamp]:
    """What holds for the bytes from `start` to `stop`, counted from `start`. Of several at one place the last holds."""
    if stop <= start:
        return []
    first = max(0, bisect_right(stamps, start, key=_AT) - 1)
    found: list[Stamp] = []
    for stamp in stamps[first : bisect_left(stamps, stop, key=_AT)]:
        at = max(0, stamp.at - start)
        if found and found[-1].at == at:
            found.pop()
        found.append(stamp._replace(at=at))
    return found


def pieces(data: bytes, stamps: Sequence[Stamp]) -> Iterator[Piece]:
    """`data` in its order, in pieces of one stamp each."""
    if not stamps or stamps[0].at:
        stamps = [Stamp(0, Source.ANY, 0), *stamps]
    ends = [*(stamp.at for stamp in stamps[1:]), len(data)]
    for stamp, end in zip(stamps, ends, strict=True):
        if part := data[stamp.at : end]:
            yield Piece(stamp.source, stamp.time, part)


def is_of(source: int, wanted: int) -> bool:
    """Whether a piece of that source is asked for; `ANY` asks for all, and nobody's counts as standard output."""
    return wanted in (Source.ANY, source) or (wanted == Source.STDOUT and source not in NAMES)


def only(data: bytes, stamps: Sequence[Stamp], wanted: int) -> bytes:
    """The bytes of one stream."""
    if wanted == Source.ANY:
        return data
    return b"".join(piece.data for piece in pieces(data, stamps) if is_of(piece.source, wanted))


def characters(found: Iterable[Piece]) -> Iterator[Piece]:
    """The same bytes, with no UTF-8 character cut between two neighbours of one stream."""
    held: Piece | None = None
    for piece in found:
        if held is not None:
            split = len(held.data) - incomplete(held.data) if held.source == piece.source else len(held.data)
            if split:
                yield held._replace(data=held.data[:split])
            piece = piece._replace(data=held.data[split:] + piece.data)
        held = piece
    if held is not None:
        yield held


def incomplete(data: bytes) -> int:
    """How many bytes at the end are the beginning of a UTF-8 character that goes on."""
    for size in range(1, min(3, len(data)) + 1):
        byte = data[-size]
        if byte >= 0xC0:
            return size if size < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4) else 0
        if byte < 0x80:
            return 0
    return 0
