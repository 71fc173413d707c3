"""Retention: once a day the database lets go of runs, output, skips, alerts and sign-ins that are over (D7).

Output of jobs that say so (`output.keep`) goes before its runs do.
"""

from __future__ import annotations

import logging

from crony.beat.duty import Background
from crony.clock import Clock
from crony.store import alerts, output, runs, signin
from crony.store.db import Database

log = logging.getLogger("crony.beat")

EVERY = 24 * 3600.0
BATCH = 200
"""Runs deleted by one transaction: short, so that archiving goes on in between."""


def retention(database: Database, clock: Clock, days: float) -> Background:
    """The duty; it begins at once, so that a leader that never lives a day clears up too. `days` are kept."""

    def clear_up() -> None:
        signin.forget_expired(database)
        before = clock.wall() - days * 86400
        for job, keep in output.wishes(database):
            if removed := output.remove(database, job, clock.wall() - keep * 86400, batch=BATCH):
                log.info("output of %d runs of job %s was removed: it keeps it for %d days", removed, job, keep)
        gone = {**runs.prune(database, before, batch=BATCH), "alerts": alerts.prune(database, before, batch=BATCH)}
        if any(gone.values()):
            log.info("what is older than %g days was deleted: %s", days, dict(gone))

    return Background("retention", EVERY, clear_up)
