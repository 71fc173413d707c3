"""Where reports wait until the platform has them: one file each, written whole or not at all, in a private directory.

Reports of one attempt form a lane and keep their order. Several processes may share a directory: a lane is sent by
one of them at a time, and what a process left when it died is sent by another, or after the restart.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from crony_sdk import forks
from crony_sdk.errors import Invalid

try:
    import fcntl
except ImportError:  # Windows: give each process a directory of its own
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("crony_sdk")

_FOREIGN_AGE = 2.0
"""Seconds for which a report is left to the process that wrote it."""
_LEFT_OVER = 3600.0


@dataclass(frozen=True)
class Report:
    """One call to make: `verb` of an attempt with a body."""

    callback: str
    token: str = field(repr=False)
    verb: str = ""
    body: dict[str, Any] = field(default_factory=dict, repr=False)
    traceparent: str = ""
    written: float = field(default_factory=time.time)

    @property
    def lane(self) -> str:
        """What keeps its order: the attempt, as part of a file's name. Begins with `place`, eight characters."""
        return place(self.callback) + _digest(self.callback, 16)

    @property
    def ends(self) -> bool:
        """Whether it is the attempt's end."""
        return self.verb in ("complete", "fail")

    @property
    def about(self) -> str:
        """For logs: the verb and the attempt's path."""
        return f"{self.verb} of {'/'.join(self.callback.split('/')[-3:])}"


class Store(ABC):
    """Holds reports in order. Names are `<lane>-<number>-<end or text>…`."""

    durable = False

    @abstractmethod
    def put(self, report: Report) -> str:
        """Keep a report; its name. Raises `OSError` when it cannot be kept."""

    @abstractmethod
    def pending(self, lane: str) -> list[str]:
        """Names of a lane's reports, oldest first."""

    @abstractmethod
    def backlog(self) -> dict[str, list[str]]:
        """Names by lane, of the lanes that are ours or that another process seems to have left."""

    @abstractmethod
    def read(self, name: str) -> Report | None:
        """A report; None when it is gone, or cannot be read and was put aside."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """It needs no sending any more."""

    @abstractmethod
    def size(self) -> int:
        """Bytes kept."""

    def close(self) -> None:  # noqa: B027
        """Let go of it; what a durable one keeps stays."""

    @contextmanager
    def sole(self, lane: str) -> Iterator[bool]:
        """While it lasts no other process sends this lane; False when one does already."""
        yield True


class Memory(Store):
    """Keeps reports as long as the process lives."""

    def __init__(self) -> None:
        self._kept: dict[str, Report] = {}
        self._count = 0
        self._lock = threading.Lock()
        forks.renew_after_fork(self)

    def after_fork(self) -> None:
        """The parent sends its own reports."""
        self._kept, self._lock = {}, threading.Lock()

    def put(self, report: Report) -> str:
        """As of `Store`."""
        with self._lock:
            self._count += 1
            name = f"{report.lane}-{self._count:020d}-{_kind(report)}"
            self._kept[name] = report
            return name

    def pending(self, lane: str) -> list[str]:
        """As of `Store`."""
        with self._lock:
            return sorted(name for name in self._kept if name.startswith(lane))

    def backlog(self) -> dict[str, list[str]]:
        """As of `Store`."""
        with self._lock:
            return _by_lane(self._kept)

    def read(self, name: str) -> Report | None:
        """As of `Store`."""
        return self._kept.get(name)

    def remove(self, name: str) -> None:
        """As of `Store`."""
        with self._lock:
            self._kept.pop(name, None)

    def size(self) -> int:
        """As of `Store`."""
        with self._lock:
            return sum(len(str(report.body)) for report in self._kept.values())


class Directory(Store):
    """Keeps reports in a directory of mode 0700, files 0600: they hold tokens. Raises `Invalid` for one open to others.

    A file is synced and renamed into place before `put` returns.
    """

    durable = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            facts = self.path.stat()
            self._locks = os.open(self.path / "locks", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Invalid("spool", f"{self.path} cannot be used: {error.strerror}") from None
        if hasattr(os, "getuid") and (facts.st_uid != os.getuid() or stat.S_IMODE(facts.st_mode) & 0o077):
            raise Invalid("spool", f"{self.path} must be ours and closed to others; try: chmod 700 {self.path}")
        self._last, self._lock = 0, threading.Lock()
        self._mine: set[str] = set()
        self._size, self._sized = 0, -1.0
        self._tidy()
        forks.renew_after_fork(self)

    def close(self) -> None:
        """As of `Store`."""
        descriptor, self._locks = self._locks, -1
        if descriptor >= 0:
            os.close(descriptor)

    def after_fork(self) -> None:
        """What the parent wrote is the parent's to send."""
        self._lock, self._mine = threading.Lock(), set()

    def put(self, report: Report) -> str:
        """As of `Store`."""
        with self._lock:
            self._last = max(self._last + 1, time.time_ns())
            name = f"{report.lane}-{self._last:020d}-{_kind(report)}-{os.getpid()}"
            self._mine.add(name)
        content = json.dumps(asdict(report), ensure_ascii=False).encode()
        scratch = self.path / f".{name}"
        try:
            descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            os.replace(scratch, self.path / f"{name}.json")
            self._sync()
            self._size += len(content)
        except OSError:
            with self._lock:
                self._mine.discard(name)
            scratch.unlink(missing_ok=True)
            raise
        return name

    def pending(self, lane: str) -> list[str]:
        """As of `Store`."""
        return sorted(name for name, _ in self._files() if name.startswith(f"{lane}-"))

    def backlog(self) -> dict[str, list[str]]:
        """As of `Store`."""
        ripe = time.time() - _FOREIGN_AGE
        found, fresh = [], set()
        for name, entry in self._files():
            try:
                found.append(name)
                if name not in self._mine and entry.stat().st_mtime > ripe and _lives(name):
                    fresh.add(name.partition("-")[0])
            except FileNotFoundError:
                pass
        return {lane: names for lane, names in _by_lane(found).items() if lane not in fresh}

    def read(self, name: str) -> Report | None:
        """As of `Store`."""
        path = self.path / f"{name}.json"
        try:
            return Report(**json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            log.error("the report in %s cannot be read and is put aside: %s", path, type(error).__name__)
            path.replace(path.with_suffix(".bad"))
            return None

    def remove(self, name: str) -> None:
        """As of `Store`."""
        (self.path / f"{name}.json").unlink(missing_ok=True)
        with self._lock:
            self._mine.discard(name)

    def size(self) -> int:
        """As of `Store`; looked up once a second, and in between too large rather than too small."""
        if time.monotonic() > self._sized + 1.0:
            total = 0
            for _, entry in self._files():
                try:
                    total += entry.stat().st_size
                except FileNotFoundError:
                    pass
            self._size, self._sized = total, time.monotonic()
        return self._size

    @contextmanager
    def sole(self, lane: str) -> Iterator[bool]:
        """As of `Store`. The lock is one byte of one file: it goes with its process, and no child inherits it."""
        if fcntl is None:
            yield True
            return
        byte = int(lane[8:15], 16)
        try:
            fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, byte)

    def _files(self) -> list[tuple[str, os.DirEntry[str]]]:
        with os.scandir(self.path) as entries:
            return [(entry.name[:-5], entry) for entry in entries if entry.name.endswith(".json")]

    def _tidy(self) -> None:
        """Remove what a process was writing when it died."""
        for path in self.path.glob(".*-*"):
            try:
                if path.stat().st_mtime < time.time() - _LEFT_OVER:
                    path.unlink()
            except FileNotFoundError:
                pass

    def _sync(self) -> None:
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def place(callback: str) -> str:
    """Where a report goes, short: the same for all that go to one web."""
    parts = urlsplit(callback)
    return _digest(f"{parts.scheme}://{parts.netloc}", 8)


def is_end(name: str) -> bool:
    """Whether the report of this name is the end of its attempt."""
    return name.split("-")[2] == "end"


def _kind(report: Report) -> str:
    return "end" if report.ends else "text"


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _lives(name: str) -> bool:
    """Whether the process that wrote it seems to be there; one with our own number is our predecessor."""
    writer = int(name.rpartition("-")[2]) if name.rpartition("-")[2].isdigit() else 0
    if writer in (0, os.getpid()) or fcntl is None:
        return False
    try:
        os.kill(writer, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _by_lane(names: Iterable[str]) -> dict[str, list[str]]:
    lanes: dict[str, list[str]] = {}
    for name in sorted(names):
        lanes.setdefault(name.partition("-")[0], []).append(name)
    return lanes
