"""Everything the web process holds, wired in one place; lives in `app.state.web`."""

from __future__ import annotations

import contextlib
import logging
import threading
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from crony.catalog.jobs import Catalog
from crony.clock import SYSTEM
from crony.domain import zones
from crony.domain.sealing import Cipher
from crony.domain.signing import Sealer
from crony.errors import CronyError, Unavailable
from crony.etcd.client import Client
from crony.etcd.errors import AuthFailed
from crony.etcd.keys import Keys
from crony.settings import Settings
from crony.store.db import Database
from crony.web.auth import Sessions
from crony.web.beats import Beats
from crony.web.callbacks import CALLS, Pace
from crony.web.following import Tails
from crony.web.hiding import Hiding
from crony.web.history import History
from crony.web.live import Cached, Live
from crony.web.metrics import Own
from crony.web.rendering import Renderer
from crony.web.shields import ShieldedClient, ShieldedDatabase
from crony.web.static_files import static_files

log = logging.getLogger("crony.web")


@dataclass(frozen=True, slots=True)
class Health:
    """What the web needs, and for each a sentence when it is away (empty: it is there)."""

    etcd: str = ""
    database: str = ""
    halted: str = ""
    """Why nothing is dispatched until somebody recovers etcd; empty: it was not restored."""
    behind: str = ""
    """Why the database is an earlier one than it was; empty: it is not."""
    etcd_facts: Any = None
    database_ms: float | None = None

    @property
    def away(self) -> list[str]:
        """Names of what is away."""
        etcd = self.etcd and not self.halted
        return [name for name, why in (("etcd", etcd), ("database", self.database)) if why]


class Web:
    """The parts of one web process. Making it connects to nothing and waits for nobody."""

    def __init__(self, settings: Settings, *, client: Client | None = None, db: Database | None = None) -> None:
        self.settings = settings
        self.keys = Keys(settings.namespace)
        self.client = client or ShieldedClient.from_settings(settings)
        self.db = db or ShieldedDatabase(settings.database_url)
        self.sealer = Sealer(settings.signing_key)
        self.catalog = Catalog(self.db, self.client, self.keys, self.sealer, Cipher(settings.secret_key))
        self.live = Live(self.client, self.keys)
        self.sessions = Sessions(self)
        self.tails = Tails(self.db, self.live)
        self.callees = Pace(most=CALLS)
        self.hiding = Hiding(self.client, self.keys, self.catalog.cipher)
        self.beats = Beats(self.client, self.keys, self.hiding)
        self.own = Own()
        self.static = static_files()
        self.render = Renderer(self)
        self._history = History(settings, self.keys)
        self.health: Cached[Health] = Cached(self._check, 2.0)
        self.version = _version()
        self._upgraded, self._upgrade_lock = False, threading.Lock()

    def upgrade(self) -> None:
        """Bring the schema up to date once; a database that is away is tried again at the next health check."""
        with self._upgrade_lock:
            if not self._upgraded:
                self.db.upgrade()
                self._upgraded = True

    def close(self) -> None:
        """Let the connections go."""
        self.beats.close()
        self.client.close()
        self.db.close()

    def _check(self) -> Health:
        zones.refresh()  # what is shown follows time zone data that were installed meanwhile
        etcd = database = ""
        facts, milliseconds = None, None
        begun = SYSTEM.monotonic()
        try:
            self.upgrade()
            self.db.ping()
            milliseconds = (SYSTEM.monotonic() - begun) * 1000
        except CronyError as error:
            database = str(error)
            if not isinstance(error, Unavailable):
                log.warning("the database cannot be used: %s", error)
        except Exception:
            # A schema nobody foresaw must not take the pages away that need only etcd.
            log.exception("the database cannot be used")
            database = "The database cannot be used; the log of the web process says why"
        halted = self._history.look(self.client, None if database else self.db)
        try:
            self.client.get(self.keys.control)
            with contextlib.suppress(AuthFailed):  # newer etcd tells its state to the root role only
                facts = self.client.status()
        except CronyError as error:
            etcd = str(error)
        return Health(etcd, database, halted, self._history.behind, facts, milliseconds)


def _version() -> str:
    try:
        return version("crony-scheduler")
    except PackageNotFoundError:
        return "0+source"
