"""What this machine and the database know of etcd, and whether etcd is older than that."""

from __future__ import annotations

from crony.domain.mark import Seen, past
from crony.errors import CronyError
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.lifecycle.mark import look
from crony.lifecycle.watermark import Watermark
from crony.settings import Settings
from crony.store import marks
from crony.store.db import Database


def known(settings: Settings, keys: Keys) -> dict[str, Seen]:
    """Who knows -> how far it saw etcd. A database that is away knows nothing."""
    found: dict[str, Seen] = {}
    if settings.state_dir:
        found["this machine"] = Watermark(settings.state_dir, keys).kept
    if settings.database_url:
        database = Database(settings.database_url)
        try:
            kept = marks.load(database, keys.namespace)
        except CronyError:
            kept = None
        finally:
            database.close()
        if kept is not None:
            found["the database"] = kept
    return {who: seen for who, seen in found.items() if seen != Seen()}


def restored(client: Client, keys: Keys, settings: Settings) -> str:
    """Why etcd is older than what is known of it; empty: it is not, as far as is known. Raises as the client."""
    found = look(client, keys)
    reasons = (past(kept, found) for kept in known(settings, keys).values())
    return next((why for why in reasons if why), "")
