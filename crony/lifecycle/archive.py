"""Archive (transaction 17): outcomes that the database has, and that lie behind `settled`, leave etcd."""

from __future__ import annotations

from collections.abc import Mapping

from crony.lifecycle.move import Move

LIMIT = 90
"""Most outcomes removed by one transaction."""


def archive(outcomes: Mapping[str, int]) -> Move:
    """Delete outcome keys (with the revisions archived). It puts nothing: it must work when etcd has no room (M2)."""
    return Move(outcomes, deletes=tuple(outcomes))
