"""Reconciling: what the database says of jobs and what they name, and what is published, come to agree (D8, M4, M5)."""

from __future__ import annotations

import logging

from crony.beat.duties.marking import CATALOGUE
from crony.beat.duty import Background
from crony.catalog.jobs import Catalog
from crony.domain.mark import behind
from crony.domain.signing import Sealer
from crony.errors import CronyError
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.lifecycle.mark import look
from crony.store import marks
from crony.store.db import Database

log = logging.getLogger("crony.beat")

EVERY = 90.0


def reconciling(database: Database, client: Client, keys: Keys, sealer: Sealer) -> Background:
    """The duty; it begins at once, so that what a web could not publish before it died lives soon."""
    catalog = Catalog(database, client, keys, sealer)

    def reconcile() -> None:
        why = behind(marks.load(database, keys.namespace), look(client, keys))
        if why:  # a job deleted since that backup would live again
            raise CronyError("the database was restored to an earlier state", why=why, hint=CATALOGUE)
        for kind, names in catalog.reconcile_objects().items():  # before the jobs that name them
            log.warning("reconciled: published the %ss %s", kind, ", ".join(names[:20]))
        found = catalog.reconcile()
        for words, jobs in (("published", found.published), ("tombstones put for", found.deleted)):
            if jobs:
                log.warning("reconciled: %s %s", words, ", ".join(jobs[:20]))
        if not found.clean:
            log.error(
                "the database and etcd differ on jobs and nothing is lowered: %d are newer in etcd, %d unknown to the "
                "database, %d could not be published. Was an older backup restored? `crony recover catalogue`",
                len(found.ahead),
                len(found.strange),
                len(found.failed),
            )

    return Background("reconcile", EVERY, reconcile)
