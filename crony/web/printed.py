"""Pieces of output as programs are told of them: JSON with text, stream and time, cut between characters."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from crony.clock import rfc3339
from crony.domain.stamps import NAMES, SOURCES, Source, characters, incomplete, is_of, pieces
from crony.store.output import Piece


class Told(NamedTuple):
    """One piece. `offset`: where the next one begins in the output; `facts`: what is told of it."""

    offset: int
    facts: dict[str, Any]


def source_of(name: str | None) -> Source:
    """The stream of that name; without one all."""
    return Source.ANY if name is None else SOURCES[name]


def state_of(piece: Piece, *, ended: bool = True) -> str:
    """`open` while more may come, else `complete`, `truncated` or `removed`."""
    if piece.removed:
        return "removed"
    return "open" if not ended else "truncated" if piece.truncated else "complete"


def told(piece: Piece, wanted: Source = Source.ANY) -> tuple[list[Told], int]:
    """What is told of a piece of the store, one by one, and the offset after all of it.

    A character at its end that is not whole waits for the next piece, unless nothing follows. Bytes that are no UTF-8
    are told as `base64`, others as `text`. Of pieces that are not of the stream wanted nothing is told.
    """
    data = piece.data
    start = piece.next - len(data)
    if not piece.eof:
        data = data[: len(data) - incomplete(data)]
    found, place = [], start
    for source, time, part in characters(pieces(data, [stamp for stamp in piece.stamps if stamp.at < len(data)])):
        place += len(part)
        if is_of(source, wanted):
            found.append(Told(place, _facts(source, time, part)))
    return found, place


def lines(piece: Piece, wanted: Source) -> tuple[bytes, int]:
    """As `told`, as lines of JSON."""
    found, following = told(piece, wanted)
    return b"".join(_json({"offset": each.offset, **each.facts}) + b"\n" for each in found), following


def events(piece: Piece, wanted: Source) -> tuple[bytes, int]:
    """As `told`, as server-sent events whose ids are the offsets after them."""
    found, following = told(piece, wanted)
    return b"".join(_event(found)), following


def _event(found: list[Told]) -> Iterator[bytes]:
    for each in found:
        yield b"id: %d\nevent: output\ndata: %b\n\n" % (each.offset, _json(each.facts))


def _facts(source: int, time: int, data: bytes) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    try:
        facts["text"] = data.decode()
    except UnicodeDecodeError:
        facts["base64"] = base64.b64encode(data).decode()
    if source in NAMES:
        facts["stream"] = NAMES[Source(source)]
    if time:
        facts["at"] = rfc3339(time / 1000)
    return facts


def _json(facts: dict[str, Any]) -> bytes:
    return json.dumps(facts).encode()
