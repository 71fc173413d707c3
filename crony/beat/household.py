"""What the leader of shard 0 does for the whole namespace, whatever the number of shards (H2).

Outcomes are settled and archived, alerts delivered, etcd compacted, the database cleared up and reconciled, and lost
nodes told of, by one leader; runs are decided by the leader of their job's shard.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from crony.beat.duties.alerts import Delivery, Losses, Undelivered
from crony.beat.duties.archiver import Archiver
from crony.beat.duties.compaction import Compaction
from crony.beat.duties.marking import Marking
from crony.beat.duties.overdue import Overdue
from crony.beat.duties.pruning import IdemPruning
from crony.beat.duties.rates import Rates
from crony.beat.duties.reconcile import reconciling
from crony.beat.duties.retention import retention
from crony.beat.duties.sending import Sending
from crony.beat.duties.settling import Settling
from crony.beat.duties.zonewatch import ZoneVersions
from crony.beat.duty import Background, Duty
from crony.beat.office import Office
from crony.beat.tails import Tails
from crony.domain.sealing import Cipher
from crony.domain.signing import Sealer
from crony.errors import Halted
from crony.lifecycle.move import Lead
from crony.lifecycle.watermark import Watermark
from crony.notifications.directory import Directory
from crony.store.db import Database


class Household:
    """The duties, ready to be worked by a leader."""

    def __init__(
        self,
        office: Office,
        lead: Lead,
        undelivered: Undelivered,
        database: Database | None,
        sealer: Sealer,
        *,
        term: int,
        watermark: Watermark,
        halt: Callable[[Halted], None],
    ) -> None:
        """`term`: revision of the leader's term; `halt`: ends it because etcd went back in time."""
        client, keys = office.client, office.keys
        self._undelivered = undelivered
        self._archiver = Archiver(client, lead, database)
        self.delivery = Delivery(client, lead, database, undelivered, self._alert_put).background
        """Of alerts; it is nudged when one was put."""
        cipher = Cipher(office.settings.secret_key)
        self.sending = Sending(
            client, lead, Directory(client, keys, office.webs, cipher), office.clock, undelivered, self.delivery,
            tail=Tails(database), console=office.settings.console_address,
        )  # fmt: skip
        rates = Rates(client, lead, Directory(client, keys, office.webs, cipher), database, undelivered, self.delivery)
        self._settling = Settling(office, self._archiver, undelivered, self.delivery, rates, term=term)
        self.duties: list[Duty] = [Losses(office, undelivered, self.delivery), self._settling, Overdue(office)]
        marking = Marking(client, lead, watermark, database, halt)
        self.background: list[Background] = [
            self._archiver.background,
            marking.background,
            *([marking.keeping] if marking.keeping is not None else []),
            self.sending.background,
            rates.background,
            Compaction(client).background,
            IdemPruning(client, keys, lead).background,
            ZoneVersions(client, lead, office.clock, undelivered).background,
        ]
        self._reconcile: Background | None = None
        if database is not None:
            self._reconcile = reconciling(database, client, keys, sealer)
            self.background += [retention(database, office.clock, office.settings.retention_days), self._reconcile]

    def _alert_put(self) -> None:
        """There may be something to send."""
        self.sending.background.nudge()

    def runs_known_to(self, revision: int) -> None:
        """All news of runs up to this revision is in the book."""
        self._settling.stream_revision = revision

    def etcd_is_back(self) -> None:
        """It was away for a while: webs could not publish either."""
        if self._reconcile is not None:
            self._reconcile.nudge()

    def states(self) -> dict[str, dict[str, float]]:
        """For the figures of the centre."""
        return {"backlog": {"": self._archiver.backlog}, "undelivered": {"": self._undelivered.count}}

    def status(self) -> dict[str, Any]:
        """For logs and people."""
        return {
            "archive_backlog": self._archiver.backlog,
            "alerts_undelivered": self._undelivered.count,
            "alerts_unsent": self.sending.waiting,
            "alert_channels_failing": self.sending.failing,
        }
