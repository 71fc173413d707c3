"""What runs printed: chunks by (run, attempt, offset), compressed, without gaps; storing one again is harmless."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from crony.clock import SYSTEM
from crony.errors import Invalid
from crony.store.bulk import first_wins
from crony.store.db import Database
from crony.store.models import RUN, OutputChunkRow, OutputRow
from crony.store.types import clean

CHUNK = 256 * 1024
"""Most bytes of one stored chunk."""
MOST = 64 * 1024 * 1024
"""Most bytes kept of one attempt, whatever a node sends; what follows is marked as truncated."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of output. `next`: the offset after it; `eof`: nothing follows; `truncated`: the rest was dropped."""

    data: bytes
    next: int
    eof: bool
    truncated: bool


@dataclass(frozen=True, slots=True)
class OutputState:
    """How much output an attempt has."""

    attempt: int
    size: int
    final: bool
    truncated: bool


def append(
    db: Database, run: str, attempt: int, offset: int, data: bytes, final: bool = False, truncated: bool = False
) -> int:
    """Store `data` at `offset` and return the next offset wanted.

    Bytes already there are passed over; data beyond a gap is not stored (send again from the offset
    returned); after the final chunk nothing changes. Raises `Invalid` for an impossible place.
    """
    if not run or len(run) > RUN or clean(run) != run:
        raise Invalid("run", "is not a run id")
    if not 1 <= attempt < 2**31 or not 0 <= offset < 2**53:
        raise Invalid("offset", "attempt and offset must be whole numbers in range")
    pieces = [(offset + i, data[i : i + CHUNK]) for i in range(0, len(data), CHUNK)]

    def put(session: Session) -> int:
        now = SYSTEM.wall()
        first_wins(
            session,
            OutputRow,
            [{"run_id": run, "n": attempt, "size": 0, "final": False, "truncated": False, "updated_at": now}],
        )
        place = OutputRow.run_id == run, OutputRow.n == attempt
        head = session.scalars(select(OutputRow).where(*place).with_for_update()).one()
        if head.final or offset > head.size:
            return head.size
        for start, piece in pieces:
            fresh = piece[max(0, head.size - start) :][: max(0, MOST - head.size)]
            if fresh:
                packed = zlib.compress(fresh, 6)
                session.add(OutputChunkRow(run_id=run, n=attempt, offset=head.size, length=len(fresh), data=packed))
                head.size += len(fresh)
        if offset + len(data) > MOST:
            head.truncated = head.final = True
        if offset + len(data) >= head.size:  # a late repeat of an early chunk knows nothing of the end
            head.final, head.truncated = head.final or final, head.truncated or truncated
        head.updated_at = now
        return offset + len(data) if head.final else head.size

    return db.transaction(put)


def read(db: Database, run: str, attempt: int, start: int = 0, *, limit: int = 1024 * 1024) -> Piece:
    """Output from byte `start`, at most about `limit` bytes. Without any stored: empty, not at its end."""
    chunk = OutputChunkRow

    def look(session: Session) -> tuple[OutputRow | None, list[OutputChunkRow]]:
        head = session.get(OutputRow, (run, attempt))
        place = chunk.run_id == run, chunk.n == attempt
        span = chunk.offset > start - CHUNK, chunk.offset < start + limit
        return head, list(session.scalars(select(chunk).where(*place, *span).order_by(chunk.offset)))

    head, chunks = db.read(look)
    if head is None:
        return Piece(b"", start, False, False)
    parts: list[bytes] = []
    place = start
    for row in chunks:
        if row.offset <= place < row.offset + row.length:
            part = zlib.decompress(row.data)[place - row.offset :]
            parts.append(part)
            place += len(part)
    ended = head.final and place >= head.size
    return Piece(b"".join(parts), place, ended, head.truncated)


def states(db: Database, run: str) -> list[OutputState]:
    """The attempts of a run that have output, in order."""
    query = select(OutputRow).where(OutputRow.run_id == run).order_by(OutputRow.n)
    rows = db.read(lambda session: session.scalars(query).all())
    return [OutputState(row.n, row.size, row.final, row.truncated) for row in rows]
