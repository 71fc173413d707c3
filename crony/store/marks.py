"""How far etcd was seen, as the database knows it: only ever further."""

from __future__ import annotations

from sqlalchemy.orm import Session

from crony.domain.mark import Seen
from crony.store.db import Database
from crony.store.models import MarkRow


def load(db: Database, namespace: str) -> Seen | None:
    """What was seen last; None: nothing was. Raises `Unavailable`."""
    return db.read(lambda session: _seen(session.get(MarkRow, namespace)), patience=0)


def keep(db: Database, namespace: str, found: Seen) -> Seen | None:
    """Note what is found, unless something later is noted: that is returned then. Raises `Unavailable`, `Unknown`."""

    def put(session: Session) -> Seen | None:
        row = session.get(MarkRow, namespace, with_for_update=True)
        known = _seen(row)
        if known is not None and known.order > found.order:
            return known
        if row is None:
            row = MarkRow(namespace=namespace)
            session.add(row)
        row.epoch, row.nonce, row.mod, row.at = found.epoch, found.nonce, found.mod, found.at
        row.revision, row.cluster = found.revision, found.cluster
        return None

    return db.transaction(put)


def _seen(row: MarkRow | None) -> Seen | None:
    if row is None:
        return None
    return Seen(row.epoch, row.nonce, row.mod, row.at, row.revision, row.cluster)
