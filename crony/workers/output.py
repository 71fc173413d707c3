"""The output of one attempt, as its runner writes it: capped, masked, stamped with stream and time, into the spool."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from crony.domain.masking import Mask, Stream
from crony.domain.stamps import MOST, SIZE, Source, Stamp, pack

if TYPE_CHECKING:
    from crony.workers.spool import Piece, Spool

log = logging.getLogger("crony.output")

TAIL = 128 * 1024
"""Most bytes kept of the end of an output that is over its cap."""
APART = 10
"""Milliseconds within which what one stream brings has one time."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Output:
    """The output of one attempt: appended from any thread, capped, never in the way of the work (raises nothing)."""

    def __init__(self, spool: Spool, piece: Piece, limit: int) -> None:
        """`limit`: most bytes kept of its beginning."""
        self._spool, self._piece, self._limit = spool, piece, limit
        self._lock = threading.RLock()
        self._writing = False
        self._file = self._stamps = -1
        self._size = self._count = 0
        self._last = Stamp(0, Source.ANY, 0)
        self._end = _End(min(TAIL, limit))
        self._over = False
        """Over the cap: only the end is kept still."""
        self._closed = not spool.keeps
        self._lost = False
        """It cannot be kept any more."""
        self._mask: Mask | None = None
        self._masked: dict[Source, Stream] = {}

    @property
    def truncated(self) -> bool:
        """Whether not all of it is kept."""
        return self._lost or self._over

    def mask(self, mask: Mask) -> None:
        """What is written from now on is masked, each stream for itself."""
        with self._lock:
            self._mask, self._masked = mask or None, {}

    def write(self, data: bytes, source: Source = Source.STDOUT) -> None:
        """Append `data`; beyond the cap a marker says so, and only the end is kept, which comes when it is closed."""
        if not data or self._closed:
            return
        with self._lock:
            # What we log while we write (that there is no room, say) would come back here: a function's log is output.
            if self._closed or self._lost or self._writing:
                return
            self._writing = True
            try:
                self._keep(self._without_secrets(data, source), source)
            finally:
                self._writing = False

    def _without_secrets(self, data: bytes, source: Source) -> bytes:
        if self._mask is None:
            return data
        if source not in self._masked:
            self._masked[source] = self._mask.stream()
        return self._masked[source].feed(data)

    def text(self, line: str, source: Source = Source.CRONY) -> None:
        """Append one line, of ours unless told otherwise."""
        self.write(f"{line}\n".encode(errors="backslashreplace"), source)

    def close(self) -> None:
        """Nothing more comes; what is written now is dropped."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for source, stream in self._masked.items():
                self._keep(stream.end(), source)
            if self._over:
                self._keep_end()
            if self._lost and self._file < 0:
                with contextlib.suppress(OSError):
                    self._open()
            if self._file >= 0:
                os.close(self._stamps)
                os.close(self._file)
                self._file = self._stamps = -1
                with contextlib.suppress(OSError):
                    self._spool.rename(self._piece, "lost" if self._lost else "cut" if self._over else "done")

    def _keep(self, data: bytes, source: Source) -> None:
        if self._lost or not data:
            return
        try:
            self._append(data, source)
        except OSError as error:
            self._lost = True
            log.error("output of %s cannot be kept: %s", self._piece.run, error)

    def _append(self, data: bytes, source: Source) -> None:
        if self._over:
            self._end.add(data, source)
            return
        if self._file < 0:
            if self._spool.is_full:
                self._lost = True
                return
            self._open()
        room = max(0, self._limit - self._size)
        self._put(data[:room], source)
        if len(data) > room:
            cut = f"\n[crony: output cut here, more than {self._limit} bytes; its end comes when it is over]\n"
            self._put(cut.encode(), Source.CRONY)
            self._over = True
            self._end.add(data[room:], source)

    def _keep_end(self) -> None:
        left_out, end = self._end.taken()
        if left_out:
            self._keep_piece(f"[crony: {left_out} bytes were left out here]\n".encode(), Source.CRONY, 0)
        for data, source, at in end:
            self._keep_piece(data, source, at)

    def _keep_piece(self, data: bytes, source: int, at: int) -> None:
        if not self._lost:
            try:
                self._put(data, source, at)
            except OSError as error:
                self._lost = True
                log.error("the end of the output of %s cannot be kept: %s", self._piece.run, error)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        file = os.open(self._spool.path / self._piece.filename, flags, 0o600)
        try:
            self._stamps = os.open(self._spool.path / self._piece.stamps, flags, 0o600)
        except OSError:
            os.close(file)
            raise
        self._file, self._size = file, os.fstat(file).st_size
        self._count = os.fstat(self._stamps).st_size // SIZE

    def _put(self, data: bytes, source: int, at: int = 0) -> None:
        """Into the file, and before it its stamp where that is another one. `at`: when it came, if not now."""
        if not data:
            return
        at = at or time.time_ns() // 1_000_000
        if self._count < MOST and not (source == self._last.source and 0 <= at - self._last.time < APART):
            self._count += 1
            self._last = Stamp(self._size, source if self._count < MOST else Source.ANY, at)
            self._write(self._stamps, pack([self._last]))
        self._write(self._file, data)
        self._size += len(data)

    def _write(self, file: int, data: bytes) -> None:
        """All of it; where the volume is full, older output makes room. Raises OSError."""
        while data:
            try:
                data = data[os.write(file, data) :]
            except OSError as error:
                if error.errno not in NO_ROOM or not self._spool.make_room():
                    raise


class _End:
    """The last bytes of a stream of pieces, with their stamps."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._data = bytearray()
        self._stamps: deque[Stamp] = deque()
        self._left_out = 0

    def add(self, data: bytes, source: int) -> None:
        """What comes at the end now; what is too much at the beginning goes."""
        now = time.time_ns() // 1_000_000
        last = self._stamps[-1] if self._stamps else None
        if last is None or last.source != source or not 0 <= now - last.time < APART:
            self._stamps.append(Stamp(self._left_out + len(self._data), source, now))
        self._data += data
        spare = len(self._data) - self._most
        if spare > 0:
            del self._data[:spare]
            self._left_out += spare
            while len(self._stamps) > 1 and self._stamps[1].at <= self._left_out:
                self._stamps.popleft()

    def taken(self) -> tuple[int, list[tuple[bytes, int, int]]]:
        """How many bytes are left out, and those that are there: (bytes, source, time)."""
        found, end = [], len(self._data)
        for stamp in reversed(self._stamps):
            start = max(0, stamp.at - self._left_out)
            found.append((bytes(self._data[start:end]), stamp.source, stamp.time))
            end = start
        return self._left_out, found[::-1]
