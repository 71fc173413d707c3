"""What runs printed: chunks by (run, attempt, offset), compressed, without gaps; storing one again is harmless.

Each chunk has its own stamps (streams and times), so that a piece of output can be read without what is before it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Text, delete, select, type_coerce, update
from sqlalchemy.orm import Session

from crony.clock import SYSTEM
from crony.domain.stamps import Source, Stamp, cut, pack, unpack
from crony.errors import Invalid
from crony.store.bulk import first_wins
from crony.store.db import Database
from crony.store.models import RUN, JobRow, OutputChunkRow, OutputRow, RunRow
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
    stamps: tuple[Stamp, ...] = ()
    """Streams and times of `data`, counted from its beginning."""
    removed: bool = False
    """It was there, and is kept no longer."""


@dataclass(frozen=True, slots=True)
class OutputState:
    """How much output an attempt has."""

    attempt: int
    size: int
    final: bool
    truncated: bool
    removed: bool = False


def append(
    db: Database, run: str, attempt: int, offset: int, data: bytes, final: bool = False, truncated: bool = False,
    stamps: Sequence[Stamp] = (),
) -> int:  # fmt: skip
    """Store `data` at `offset`, with its stamps (counted from its beginning), and return the next offset wanted.

    Bytes already there are passed over; data beyond a gap is not stored (send again from the offset
    returned); after the final chunk nothing changes. Raises `Invalid` for an impossible place.
    """
    if not run or len(run) > RUN or clean(run) != run:
        raise Invalid("run", "is not a run id")
    if not 1 <= attempt < 2**31 or not 0 <= offset < 2**53:
        raise Invalid("offset", "attempt and offset must be whole numbers in range")
    pieces = [(offset + i, data[i : i + CHUNK]) for i in range(0, len(data), CHUNK)]

    def put(session: Session) -> int:
        head = _head(session, run, attempt)
        if head.final or offset > head.size - head.told:
            return head.size - head.told
        for start, piece in pieces:
            known = max(0, head.size - head.told - start)
            fresh, at = piece[known:][: max(0, MOST - head.size)], start - offset + known
            _add(session, head, fresh, cut(stamps, at, at + len(fresh)))
        have, end = head.size - head.told, offset + len(data)
        if end > have:
            head.truncated = head.final = True
        if end >= have:  # a late repeat of an early chunk knows nothing of the end
            head.final, head.truncated = head.final or final, head.truncated or truncated
        return end if head.final else have

    return db.transaction(put)


def add(db: Database, run: str, attempt: int, data: bytes, offset: int | None = None, *, most: int = MOST) -> int:
    """Store what the callee of an asynchronous attempt sends, after all that is there; how much it has sent so far.

    With `offset` (in what it has sent) bytes already there are passed over, and data beyond a gap is not stored. Of
    one attempt `most` bytes are kept; what follows is passed over, and the output marked as truncated.
    """

    now = round(SYSTEM.wall() * 1000)

    def put(session: Session) -> int:
        head = _head(session, run, attempt)
        have, room = head.told, max(0, min(most - head.told, MOST - head.size))
        start = have if offset is None else offset
        if start > have and room:
            return have
        fresh = data[max(0, have - start) :]
        for i in range(0, min(len(fresh), room), CHUNK):
            head.told += _add(session, head, fresh[:room][i : i + CHUNK], [Stamp(0, Source.LOG, now)])
        if len(fresh) > room:
            head.truncated = True
        return max(have, start + len(data))

    return db.transaction(put)


def _head(session: Session, run: str, attempt: int) -> OutputRow:
    """The attempt's row, made if need be, and locked."""
    now = SYSTEM.wall()
    fresh = {"run_id": run, "n": attempt, "updated_at": now, "size": 0, "told": 0}
    fresh |= dict.fromkeys(("final", "truncated", "removed"), False)
    first_wins(session, OutputRow, [fresh])
    place = OutputRow.run_id == run, OutputRow.n == attempt
    head = session.scalars(select(OutputRow).where(*place).with_for_update()).one()
    head.updated_at = now
    return head


def _add(session: Session, head: OutputRow, data: bytes, stamps: Sequence[Stamp]) -> int:
    """Put `data` at the end; how many bytes that were."""
    if data:
        session.add(
            OutputChunkRow(
                run_id=head.run_id, n=head.n, offset=head.size, length=len(data), data=zlib.compress(data, 6),
                stamps=zlib.compress(pack(stamps), 6) if stamps else None,
            )
        )  # fmt: skip
        head.size += len(data)
    return len(data)


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
    if head.removed:
        return Piece(b"", max(start, head.size), head.final, head.truncated, removed=True)
    parts: list[bytes] = []
    stamps: list[Stamp] = []
    place = start
    for row in chunks:
        if row.offset <= place < row.offset + row.length:
            skipped = place - row.offset
            part = zlib.decompress(row.data)[skipped:]
            parts.append(part)
            known = cut(unpack(zlib.decompress(row.stamps)), skipped, row.length) if row.stamps else []
            if stamps and not known:
                known = [Stamp(0, Source.ANY, 0)]
            stamps += [stamp._replace(at=stamp.at + place - start) for stamp in known]
            place += len(part)
    ended = head.final and place >= head.size
    return Piece(b"".join(parts), place, ended, head.truncated, tuple(stamps))


def tail(db: Database, run: str, attempt: int, most: int) -> tuple[str, bool]:
    """The last `most` bytes of an attempt's output at most, as text, and whether that is all of it."""
    head = db.read(lambda session: session.get(OutputRow, (run, attempt)))
    if head is None:
        return "", False
    piece = read(db, run, attempt, max(0, head.size - most), limit=most)
    return piece.data.decode("utf-8", "replace"), head.final


def grown(db: Database, since: float) -> set[tuple[str, int]]:
    """(run, attempt) of every output that changed at or after `since` (epoch seconds, by the clocks of webs)."""
    query = select(OutputRow.run_id, OutputRow.n).where(OutputRow.updated_at >= since)
    return {(run, attempt) for run, attempt in db.read(lambda session: session.execute(query).all())}


def states(db: Database, run: str) -> list[OutputState]:
    """The attempts of a run that have output, in order."""
    query = select(OutputRow).where(OutputRow.run_id == run).order_by(OutputRow.n)
    rows = db.read(lambda session: session.scalars(query).all())
    return [OutputState(row.n, row.size, row.final, row.truncated, row.removed) for row in rows]


def wishes(db: Database) -> list[tuple[str, int]]:
    """(job, days) of each that wants its output kept for so many days; it may be deleted, with runs left."""
    document = type_coerce(JobRow.document, Text)
    # Such a field stands in the documents of few; nothing of a save depends on a column beside it.
    query = select(JobRow.id, JobRow.document).where(document.like('%"output":{%"keep":%'))
    rows = db.read(lambda session: session.execute(query).all())
    found = [(job, (saved.get("output") or {}).get("keep")) for job, saved in rows]
    return [(job, int(keep)) for job, keep in found if keep]


def remove(db: Database, job: str, before: float, *, batch: int = 500) -> int:
    """Let go of what runs of a job printed that were asked for before this instant, in short transactions; of how
    many runs. That there was output, and how much, stays known as long as the run."""
    old = (
        select(OutputRow.run_id)
        .join(RunRow, RunRow.id == OutputRow.run_id)
        .where(RunRow.job_id == job, RunRow.sort_at < before, RunRow.state == "ended", OutputRow.removed.is_(False))
        .distinct()
        .limit(batch)
    )
    gone = 0
    while runs := db.read(lambda session: list(session.scalars(old))):
        db.transaction(lambda session, runs=runs: _remove(session, runs))  # type: ignore[misc]
        gone += len(runs)
    return gone


def _remove(session: Session, runs: list[str]) -> None:
    session.execute(delete(OutputChunkRow).where(OutputChunkRow.run_id.in_(runs)))
    session.execute(update(OutputRow).where(OutputRow.run_id.in_(runs)).values(removed=True, final=True))
