"""Alerts: a lost node is put down, and every alert is delivered to the database (21).

The keys are the truth until the database has their rows: with it away they stay, and nothing is lost but what is
beyond `MOST_UNDELIVERED`, which is counted. A row's id is the alert's, so delivering twice makes one row.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable

from crony.beat.commit import Step, Verdict
from crony.beat.duty import Background
from crony.beat.office import Office
from crony.domain import alert as alerts
from crony.domain.alert import Alert, AlertKind
from crony.etcd.client import KV, Client
from crony.etcd.keys import Keys, prefix_end
from crony.lifecycle.alert import LIMIT, sent, tell
from crony.lifecycle.move import Lead, transaction
from crony.store import alerts as store
from crony.store.db import Database

log = logging.getLogger("crony.beat")

EVERY = 2.0
LOOK = 15.0
"""Seconds between two looks of the leaders that deliver nothing at how many there are."""
MARGIN = 1.0
"""Seconds beyond the grace before a node counts as lost: its last words come by another stream than its end."""
REFUSALS = 5
_INCARNATION = re.compile(r"[0-9A-Za-z_-]{1,64}")


class Undelivered:
    """How many alerts lie in etcd, as far as this leader knows: others may put some at the same time."""

    def __init__(self, count: int) -> None:
        self._count, self._lock = count, threading.Lock()
        self._changes = 0

    @property
    def count(self) -> int:
        """So many wait for the database."""
        return self._count

    @property
    def room(self) -> int:
        """So many more may be put."""
        return max(0, alerts.MOST_UNDELIVERED - self._count)

    def more(self, count: int) -> None:
        """So many were put (less than 0: deleted)."""
        with self._lock:
            self._changes += 1
            self._count = max(0, self._count + count)

    def looking(self) -> int:
        """Somebody is about to count them in etcd; to be given to `listed`."""
        return self._changes

    def listed(self, count: int, since: int) -> None:
        """So many were there. What was put `since` the look began may not be among them: then it can only be more."""
        with self._lock:
            self._count = count if self._changes == since else max(count, self._count)


class Room:
    """Keeps the leader of a shard that delivers none informed of how many there are."""

    def __init__(self, client: Client, keys: Keys, undelivered: Undelivered) -> None:
        def look() -> None:
            begun = undelivered.looking()
            undelivered.listed(client.count(keys.alert("")), begun)

        self.background = Background("alert-room", LOOK, look)


class Losses:
    """The duty on nodes that are gone though nobody asked them to stop."""

    def __init__(self, office: Office, undelivered: Undelivered, delivery: Background) -> None:
        self._office, self._undelivered, self._delivery = office, undelivered, delivery
        self._gone: dict[str, float] = {}
        """Incarnation -> monotonic time at which its absence was first seen."""
        self._refused: dict[str, int] = {}
        self._busy: set[str] = set()

    def work(self) -> float | None:
        """Tell of the nodes that did not come back within the grace."""
        office, mono = self._office, self._office.mono()
        if not office.committer.free(mono):
            return None
        wish: float | None = None
        steps: list[Step] = []
        for incarnation, presence in list(office.book.incarnations.items()):
            if incarnation in self._busy:
                continue
            if incarnation in office.book.sessions:
                self._gone.pop(incarnation, None)
                continue
            left = self._gone.setdefault(incarnation, mono) + office.settings.grace + MARGIN - mono
            if left > 0:
                wish = left if wish is None else min(wish, left)
                continue
            control = office.book.controls.get(presence.node)
            drained = control is not None and control[0].drain
            if presence.draining or drained or not _INCARNATION.fullmatch(incarnation):
                self._let_go(incarnation)
            elif not self._undelivered.room:
                log.error("node %s is lost, and there is no room for an alert about it", presence.node)
                office.counts["alerts_not_kept"] += 1
                self._let_go(incarnation)
            else:
                steps.append(self._step(incarnation, presence.node))
        if steps:
            office.committer.send("node_lost", steps)
        return wish

    def _step(self, incarnation: str, node: str) -> Step:
        office = self._office
        move = tell(office.keys, alerts.node_lost(incarnation, node, office.wall()), gone=incarnation)
        self._busy.add(incarnation)

        def settle(verdict: Verdict) -> None:
            self._busy.discard(incarnation)
            if verdict is Verdict.DONE:
                office.counts["alerts"] += 1
                self._undelivered.more(1)
                self._delivery.nudge()
                self._let_go(incarnation)
            elif verdict in (Verdict.REFUSED, Verdict.IMPOSSIBLE):
                # The node is back, of which the watch tells, or another leader told of it already.
                self._gone[incarnation] = office.mono()
                self._refused[incarnation] = self._refused.get(incarnation, 0) + 1
                if self._refused[incarnation] >= REFUSALS:
                    self._let_go(incarnation)

        return Step(move, settle)

    def _let_go(self, incarnation: str) -> None:
        self._office.book.incarnations.pop(incarnation, None)
        self._gone.pop(incarnation, None)
        self._refused.pop(incarnation, None)


class Delivery:
    """Writes alerts to the database, then deletes their keys. In a thread of its own: nothing waits for it."""

    def __init__(
        self,
        client: Client,
        lead: Lead,
        database: Database | None,
        undelivered: Undelivered,
        heard: Callable[[], None] = lambda: None,
    ) -> None:
        """`database`: None: alerts stay in etcd, and are said in the log; `heard`: called first, whenever it works."""
        self._heard = heard
        self._client, self._lead, self._database, self._undelivered = client, lead, database, undelivered
        self._said: set[str] = set()
        """Alerts logged by this leader that are still in etcd."""
        self.background = Background("alerts", EVERY, self._work)

    def _work(self) -> None:
        self._heard()
        prefix = self._lead.keys.alert("")
        while not self.background.stopping:
            begun = self._undelivered.looking()
            page = self._client.range(prefix, prefix_end(prefix), limit=LIMIT)
            self._undelivered.listed(page.count, begun)
            if not page.kvs:
                self._said.clear()
                return
            now = self._client.now()
            found = [(kv, alerts.read(kv.key.removeprefix(prefix), kv.value, now)) for kv in page.kvs]
            for kv, alert in found:
                self._say(kv, alert)
            if self._database is None:
                return
            store.write(self._database, [alert for _, alert in found])
            if not self._delete(found):
                return

    def _say(self, kv: KV, alert: Alert) -> None:
        """One line for each alert, also while the database is away. A leader that takes over may say it again."""
        if kv.key not in self._said:
            self._said.add(kv.key)
            if alert.told:
                return  # it was said when it came; this is what became of it
            log.warning("alert: %s", alert.sentence())

    def _delete(self, found: list[tuple[KV, Alert]]) -> bool:
        """Delete what the database has. False: something was put anew, or this is not the leader any more."""
        # The count of what was not kept rises with every settle of a storm; the others must not wait for it.
        rising = {kv.key: kv.mod for kv, alert in found if alert.kind == AlertKind.NOT_KEPT}
        others = {kv.key: kv.mod for kv, _ in found if kv.key not in rising}
        gone = True
        for part in (others, rising):
            if part and self._client.txn(transaction(self._lead, [sent(part)])).succeeded:
                self._undelivered.more(-len(part))
                self._said.difference_update(part)
            else:
                gone = gone and not part
        return gone
