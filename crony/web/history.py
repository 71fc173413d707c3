"""Whether etcd is still what it was: a web that finds it restored to an earlier state refuses to use it (M6, I8)."""

from __future__ import annotations

import contextlib
import logging

from crony.domain.mark import behind
from crony.errors import CronyError, Halted
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.lifecycle.watermark import Watermark
from crony.settings import Settings
from crony.store import marks
from crony.store.db import Database

log = logging.getLogger("crony.web")


class History:
    """What this web and the database saw of etcd. One thread at a time looks."""

    def __init__(self, settings: Settings, keys: Keys) -> None:
        self._settings, self._namespace = settings, keys.namespace
        self._watermark = Watermark("", keys)
        self._halted: Halted | None = None
        self.behind = ""
        """Why the database is an earlier one than it was; empty: it is not."""

    def look(self, client: Client, db: Database | None) -> str:
        """Why etcd must not be used; empty: it may, or is away. Every call of `client` raises it from then on.

        `db`: None while it is away.
        """
        if self._halted is not None:
            self._look_again(client)
        else:
            kept = None
            with contextlib.suppress(CronyError):
                kept = marks.load(db, self._namespace) if db is not None else None
                if kept is not None:
                    self._watermark.keep(kept)
            try:
                found = self._watermark.look(client)
                if db is not None:
                    self.behind = behind(kept, found)
            except Halted as error:
                log.critical("%s", error)
                self._halted = error
                client.halt(error)
            except CronyError:
                pass  # etcd is away, and others say so
        return str(self._halted) if self._halted is not None else ""

    def _look_again(self, client: Client) -> None:
        """Whether somebody recovered etcd meanwhile."""
        try:
            with Client.from_settings(self._settings) as fresh:
                if self._watermark.recovered(fresh):
                    log.warning("etcd was recovered: it is used again")
                    self._halted = None
                    client.begin_anew()
        except CronyError as error:
            log.debug("whether etcd is recovered cannot be told: %s", error)
