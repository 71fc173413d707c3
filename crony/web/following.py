"""Live output as server-sent events (HTML Standard, section 9.2): replayed from where the reader is, then followed.

However many readers wait, the database is asked one question for all of them a few times a second: which outputs have
grown. Who is told so reads on; the others cost nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool

from crony.clock import SYSTEM
from crony.domain.stamps import Source
from crony.errors import CronyError, Unavailable
from crony.store import output
from crony.store.db import Database
from crony.web import printed
from crony.web.live import Live
from crony.web.runs import output_ended

log = logging.getLogger("crony.web")

MOST = 500
"""Most readers of one web process at a time."""
LOOK = 0.3
"""Seconds between two questions."""
SKEW = 10.0
"""Seconds that the clocks of two webs may differ."""
OVER = 1.0
"""Seconds between two looks at which runs have ended."""
ALIVE = 15.0
"""Seconds without an event after which a comment is sent, so that nobody in between takes the line for dead."""
PIECE = 256 * 1024

Key = tuple[str, int]


class Tails:
    """Who follows what in this process. Lives in its event loop."""

    def __init__(self, db: Database, live: Live) -> None:
        self._db, self._live = db, live
        self._waiting: dict[Key, set[asyncio.Event]] = {}
        self._readers = 0
        self._task: asyncio.Task[None] | None = None

    def follow(self, run: str, attempt: int, offset: int, wanted: Source = Source.ANY) -> AsyncIterator[bytes]:
        """The stream of one reader: `output` events, each with the byte offset after it as its id, then one `end`.
        `wanted`: what came by another stream is left out.

        Raises `Unavailable` when too many read already.
        """
        if self._readers >= MOST:
            raise Unavailable(f"{MOST} readers follow output here already", hint="try again later, or ask another web")
        return self._stream((run, attempt), offset, wanted)

    async def _stream(self, key: Key, offset: int, wanted: Source) -> AsyncIterator[bytes]:
        news = asyncio.Event()
        self._readers += 1
        self._waiting.setdefault(key, set()).add(news)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())
        try:
            yield b"retry: 1000\n\n"
            while True:
                news.clear()
                try:
                    piece = await run_in_threadpool(output.read, self._db, *key, offset, limit=PIECE)
                    before = offset
                    told, offset = printed.events(piece, wanted)
                    if offset > before and not piece.removed:
                        if told:
                            yield told
                        continue
                    ended = await run_in_threadpool(output_ended, self._db, self._live, *key, brought=piece.eof)
                except Unavailable as error:
                    log.debug("output of %s cannot be followed now: %s", key[0], error)
                else:
                    if ended:
                        state = printed.state_of(piece)
                        yield f"event: end\ndata: {json.dumps({'state': state, 'attempt': key[1]})}\n\n".encode()
                        return
                try:
                    await asyncio.wait_for(news.wait(), ALIVE)
                except TimeoutError:
                    yield b": alive\n\n"
        finally:
            self._readers -= 1
            self._waiting[key].discard(news)
            if not self._waiting[key]:
                del self._waiting[key]

    async def _look(self) -> None:
        """Wake the readers of what has grown or may be over, until nobody reads."""
        since, over_at = SYSTEM.wall() - SKEW, 0.0
        while self._waiting:
            await asyncio.sleep(LOOK)
            now = SYSTEM.wall()
            try:
                woken = await run_in_threadpool(output.grown, self._db, since)
                since = now - SKEW
                if SYSTEM.monotonic() >= over_at:
                    over_at = SYSTEM.monotonic() + OVER
                    alive = await run_in_threadpool(self._alive)
                    woken |= {key for key in self._waiting if key not in alive}
            except CronyError as error:
                log.debug("which outputs have grown cannot be asked now: %s", error)
                continue
            for key in woken & self._waiting.keys():
                for news in self._waiting[key]:
                    news.set()

    def _alive(self) -> set[Key]:
        return {(run.run, run.attempt) for run in self._live.runs()}
