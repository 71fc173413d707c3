"""Output on its way to the web: one file per attempt in a private directory, appended while the attempt runs.

File names are `<run>~<attempt>~<incarnation>.<stage>`: `open` is being written, `done` is complete, `cut` is complete
up to a cap, `lost` could not be kept to its end, `shed` was emptied because there was no room. Renames are the only
state changes, so a kill at any moment leaves a file that the next start of the node understands. Beside it lies
`….stamps` with streams and times; without one it is of a version before them, and sent as it is.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from crony.domain.stamps import SIZE, Source, Stamp, pack
from crony.errors import Invalid
from crony.etcd.keys import decode, encode
from crony.settings import Settings
from crony.workers.output import Output
from crony.workers.tally import TALLY

log = logging.getLogger("crony.output")

STAGES = ("open", "done", "cut", "lost", "shed")
SHEDDABLE = ("done", "cut", "lost")
RESERVE = 4 * 1024 * 1024
"""Bytes of its volume that the spool leaves free; of a small one an eighth."""
FULL = ".full"
"""Present while the spool is over its limit although all that could be shed was: no new output is kept."""
STAMPS = ".stamps"


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

    @property
    def stamps(self) -> str:
        """Name of the file with its streams and times."""
        return f"{self.stem}{STAMPS}"


def parse(filename: str) -> Piece | None:
    """What a file name says; None when it is not one of the spool's."""
    stem, _, stage = filename.rpartition(".")
    parts = stem.rsplit("~", 2)
    if len(parts) != 3 or stage not in STAGES or not parts[1].isdigit():
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

    def open(self, run: str, attempt: int, incarnation: str, limit: int = 0) -> Output:
        """Where the output of an attempt goes. Nothing is created before the first byte.

        `limit`: most bytes that its job wants kept; 0: as many as the node keeps, which is the most anyway.
        """
        return Output(self, Piece(run, attempt, incarnation, "open"), min(limit or self.limit, self.limit))

    def finish(self, run: str, attempt: int, incarnation: str, *, note: bytes = b"") -> None:
        """Complete the file of an attempt whose process is gone, if there is one, with a last `note`."""
        open_ = Piece(run, attempt, incarnation, "open")
        with contextlib.suppress(OSError):
            if note and self.keeps:
                with (self.path / open_.filename).open("ab") as file, (self.path / open_.stamps).open("ab") as stamps:
                    stamps.truncate(stamps.tell() - stamps.tell() % SIZE)
                    stamps.write(pack([Stamp(file.tell(), Source.CRONY, time.time_ns() // 1_000_000)]))
                    file.write(note)
            self.rename(open_, "done")

    @property
    def is_full(self) -> bool:
        """Whether nothing new is kept now."""
        return (self.path / FULL).exists()

    def room(self, used: int) -> int:
        """Most bytes that output may take on this volume, of which it takes `used`."""
        facts = os.statvfs(self.path)
        reserve = min(RESERVE, facts.f_blocks * facts.f_frsize // 8)
        return used + facts.f_bavail * facts.f_frsize - reserve

    def make_room(self) -> bool:
        """The volume is full: shed the oldest output that is complete, a good part of it. False: there is none."""
        with contextlib.suppress(OSError):
            found = [(each.stat(), piece) for each in self.path.iterdir() if (piece := parse(each.name)) is not None]
            old = sorted((facts.st_mtime, facts.st_size, piece) for facts, piece in found if piece.stage in SHEDDABLE)
            freed = attempts = 0
            for _, size, piece in old:
                with contextlib.suppress(OSError):
                    self.shed(piece)
                    freed, attempts = freed + size, attempts + 1
                if freed >= RESERVE // 4:
                    break
            if attempts:
                log.warning("the volume is full: output of %d attempts was dropped, oldest first", attempts)
            return freed > 0
        return False

    def shed(self, piece: Piece) -> Piece:
        """Let its bytes go; what is left says so to the web. Raises OSError."""
        emptied = self.rename(piece, "shed")
        os.truncate(self.path / emptied.filename, 0)
        (self.path / piece.stamps).unlink(missing_ok=True)
        TALLY.add("shed")
        return emptied

    def remove(self, piece: Piece) -> None:
        """The web has it."""
        (self.path / piece.filename).unlink(missing_ok=True)
        (self.path / piece.stamps).unlink(missing_ok=True)

    def rename(self, piece: Piece, stage: str) -> Piece:
        """Move a file to another stage. Raises OSError."""
        moved = piece._replace(stage=stage)
        os.rename(self.path / piece.filename, self.path / moved.filename)
        return moved


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
