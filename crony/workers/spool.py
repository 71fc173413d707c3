"""Output on its way to the web: one file per attempt in a private directory, appended while the attempt runs.

File names are `<run>~<attempt>~<incarnation>.<stage>`: `open` is being written, `done` is complete, `cut` is complete
up to a cap, `shed` was emptied because the spool was full. Renames are the only state changes, so a kill at any
moment leaves a file that the next start of the node understands.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple

from crony.domain.masking import Mask, Stream
from crony.errors import Invalid
from crony.etcd.keys import decode, encode
from crony.settings import Settings

log = logging.getLogger("crony.output")

TAIL = 128 * 1024
"""Most bytes kept of the end of an output that is over its cap."""
FULL = ".full"
"""Present while the spool is over its limit although all that could be shed was: no new output is kept."""


class Piece(NamedTuple):
    """What the name of a spool file says."""

    run: str
    attempt: int
    incarnation: str
    stage: str

    @property
    def stem(self) -> str:
        """The part of the name that stays through all stages."""
        return f"{encode(self.run)}~{self.attempt}~{self.incarnation}"

    @property
    def filename(self) -> str:
        """Name of the file in this stage."""
        return f"{self.stem}.{self.stage}"


def parse(filename: str) -> Piece | None:
    """What a file name says; None when it is not one of the spool's."""
    stem, _, stage = filename.rpartition(".")
    parts = stem.rsplit("~", 2)
    if len(parts) != 3 or stage not in ("open", "done", "cut", "shed") or not parts[1].isdigit():
        return None
    return Piece(decode(parts[0]), int(parts[1]), parts[2], stage)


def directory(settings: Settings) -> Path:
    """The spool directory of this node: below `spool_dir`, else `state_dir`, else a private one of this user."""
    if settings.spool_dir:
        base = Path(settings.spool_dir)
    elif settings.state_dir:
        base = Path(settings.state_dir) / "spool"
    else:
        lasting = Path("/var/tmp")
        roomy = lasting if os.access(lasting, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
        base = roomy / f"crony-spool-{os.getuid()}"
    return base / encode(settings.namespace) / encode(settings.node_name)


class Spool:
    """The spool directory of a node. Raises `Invalid` when it is not this user's alone."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        self.limit = settings.output_limit
        self.keeps = bool(settings.api)
        """Whether output is kept at all: only when there is a web to send it to."""
        if self.keeps:
            _make_private(path)

    def open(self, run: str, attempt: int, incarnation: str) -> Output:
        """Where the output of an attempt goes. Nothing is created before the first byte."""
        return Output(self, Piece(run, attempt, incarnation, "open"))

    def finish(self, run: str, attempt: int, incarnation: str, *, note: bytes = b"") -> None:
        """Complete the file of an attempt whose process is gone, if there is one, with a last `note`."""
        open_ = Piece(run, attempt, incarnation, "open")
        with contextlib.suppress(OSError):
            if note and self.keeps:
                with (self.path / open_.filename).open("ab") as file:
                    file.write(note)
            self.rename(open_, "done")

    def rename(self, piece: Piece, stage: str) -> Piece:
        """Move a file to another stage. Raises OSError."""
        moved = piece._replace(stage=stage)
        os.rename(self.path / piece.filename, self.path / moved.filename)
        return moved


class Output:
    """The output of one attempt: appended from any thread, capped, never in the way of the work (raises nothing)."""

    def __init__(self, spool: Spool, piece: Piece) -> None:
        self._spool, self._piece = spool, piece
        self._lock = threading.Lock()
        self._file = -1
        self._size = 0
        self._tail, self._left_out = bytearray(), 0
        self._over = False
        """Over the cap: only the end is kept still."""
        self._closed = not spool.keeps
        self._lost = False
        """It cannot be kept any more."""
        self._masked: Stream | None = None

    @property
    def truncated(self) -> bool:
        """Whether not all of it is kept."""
        return self._lost or self._over

    def mask(self, mask: Mask) -> None:
        """What is written from now on is masked."""
        with self._lock:
            self._masked = mask.stream() if mask else None

    def write(self, data: bytes) -> None:
        """Append `data`; beyond the cap a marker says so, and only the end is kept, which comes when it is closed."""
        if not data or self._closed:
            return
        with self._lock:
            if self._closed or self._lost:
                return
            if self._masked is not None:
                data = self._masked.feed(data)
            self._keep(data)

    def text(self, line: str) -> None:
        """Append one line of ours."""
        self.write(f"{line}\n".encode(errors="backslashreplace"))

    def close(self) -> None:
        """Nothing more comes; what is written now is dropped."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._masked is not None and not self._lost:
                self._keep(self._masked.end())
            if self._over and not self._lost:
                self._write_tail()
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
                with contextlib.suppress(OSError):
                    self._spool.rename(self._piece, "cut" if self.truncated else "done")

    def _keep(self, data: bytes) -> None:
        try:
            self._append(data)
        except OSError as error:
            self._lost = True
            log.error("output of %s cannot be kept: %s", self._piece.run, error)

    def _append(self, data: bytes) -> None:
        if not data:
            return
        if self._over:
            self._tail += data
            spare = len(self._tail) - min(TAIL, self._spool.limit)
            if spare > 0:
                del self._tail[:spare]
                self._left_out += spare
            return
        if self._file < 0:
            if (self._spool.path / FULL).exists():
                self._lost = True
                return
            path = self._spool.path / self._piece.filename
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._size = os.fstat(self._file).st_size
        room = self._spool.limit - self._size
        if len(data) <= room:
            self._write(data)
            return
        cut = f"\n[crony: output cut here, more than {self._spool.limit} bytes; its end comes when it is over]\n"
        self._write(data[: max(room, 0)] + cut.encode())
        self._over = True
        self._append(data[max(room, 0) :])

    def _write_tail(self) -> None:
        note = f"[crony: {self._left_out} bytes were left out here]\n" if self._left_out else ""
        try:
            self._write(note.encode() + self._tail)
        except OSError as error:
            log.error("the end of the output of %s cannot be kept: %s", self._piece.run, error)

    def _write(self, data: bytes) -> None:
        while data:
            written = os.write(self._file, data)
            self._size += written
            data = data[written:]


def _make_private(path: Path) -> None:
    base = path.parents[1]
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = base.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise Invalid(
            "CRONY_SPOOL_DIR",
            f"{base} must be a directory that only this user may write to",
            hint=f"chmod 700 it, or name another one for user {os.getuid()}",
        )
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
