"""What this process saw of etcd, kept on disk, so that a restored etcd does not go unnoticed after a restart (M6)."""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path

from crony.domain.mark import Seen, past
from crony.domain.record import UnknownRecord
from crony.errors import Halted
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.lifecycle.mark import HINT, check, look, same_history

log = logging.getLogger("crony.etcd")


class Watermark:
    """A file `revision-<namespace>.json` in a directory; without a directory it remembers while it lives."""

    def __init__(self, folder: str, keys: Keys) -> None:
        self._path = Path(folder) / f"revision-{keys.namespace.replace('/', '%2F')}.json" if folder else None
        self._keys, self._lock = keys, threading.Lock()
        self.kept = self._load()
        """The furthest that was seen."""

    def look(self, client: Client, *, timeout: float | None = None) -> Seen:
        """How far etcd is now, kept. Raises `Halted` when that is behind what was kept before, and as the client."""
        kept = self.kept  # before the question: another thread may see more until it is answered
        found = look(client, self._keys, timeout=timeout)
        check(kept, found)
        self.keep(found)
        return found

    def keep(self, found: Seen) -> None:
        """Write down, durably, what was seen, if it is later. An unwritable disk is said, and stops nothing."""
        with self._lock:
            if found.order > self.kept.order:
                self.kept = found
                self._write(found)

    def begin(self, client: Client) -> Seen:
        """As `look`, at the start of a process: others may have led meanwhile who noticed nothing."""
        kept, found = self.kept, look(client, self._keys)
        check(kept, found)
        if found.epoch == kept.epoch and same_history(client, self._keys, kept) is False:
            raise Halted("etcd's data went back in time", why="it did not go through what was seen before", hint=HINT)
        self.keep(found)
        return found

    def recovered(self, client: Client) -> bool:
        """Whether etcd was recovered since, or is for certain what it was before. Raises as the client."""
        found = look(client, self._keys)
        went_on = not past(self.kept, found) and same_history(client, self._keys, self.kept)
        if found.epoch <= self.kept.epoch and not went_on:
            return False
        self.keep(found)
        return True

    def _write(self, found: Seen) -> None:
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._path.with_suffix(".new")
            with fresh.open("wb") as file:
                file.write(found.encode())
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        except OSError as error:
            log.error("%s cannot be written, so a restored etcd could go unnoticed: %s", self._path, error)

    def _load(self) -> Seen:
        if self._path is None:
            return Seen()
        try:
            kept = Seen.read(json.loads(self._path.read_bytes()))
            numbers = (kept.epoch, kept.mod, kept.revision)
            if all(type(number) is int for number in numbers) and isinstance(kept.at, int | float):
                return kept
            raise ValueError("not numbers")
        except FileNotFoundError:
            return Seen()
        except (OSError, ValueError, UnknownRecord) as error:
            log.error("%s cannot be read, so a restored etcd would go unnoticed: %s", self._path, error)
            return Seen()
