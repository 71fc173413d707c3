"""The highest etcd revision this centre ever saw, kept on disk: a restored snapshot must not go unnoticed (M6)."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path

from crony.beat.duty import Background
from crony.etcd.client import Client

log = logging.getLogger("crony.beat")

EVERY = 5.0


class Watermark:
    """A file `revision-<namespace>.json` in the centre's state directory; without a directory it does nothing."""

    def __init__(self, client: Client, folder: str, namespace: str) -> None:
        self._client = client
        self._path = Path(folder) / f"revision-{namespace.replace('/', '%2F')}.json" if folder else None
        self._kept = 0
        self.background = Background("watermark", EVERY, self.keep)

    def load(self) -> None:
        """Tell the client what was seen before: it raises `Halted` at the first answer below it."""
        if self._path is None:
            return
        try:
            self._kept = int(json.loads(self._path.read_text())["revision"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.error("%s cannot be read, so a restored etcd would go unnoticed: %s", self._path, error)
            return
        self._client.at_least(self._kept)

    def keep(self) -> None:
        """Write down the highest revision seen, durably, if it rose."""
        if self._path is None or self._client.revision <= self._kept:
            return
        revision = self._client.revision
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        with fresh.open("w") as file:
            json.dump({"revision": revision}, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        self._kept = revision

    def close(self) -> None:
        """A last note."""
        self.background.stop()
        with contextlib.suppress(OSError):
            self.keep()
