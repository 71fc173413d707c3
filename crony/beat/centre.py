"""The scheduling centre: campaigns, leads, hands over; through every outage, until it is told to stop."""

from __future__ import annotations

import logging
import threading
from typing import Any

from crony.beat.clockwatch import SKEW, skew
from crony.beat.leader import Leader
from crony.beat.watermark import Watermark
from crony.clock import SYSTEM, Clock
from crony.domain.signing import Sealer, Verifier, public_key
from crony.errors import CronyError, Forbidden, Halted
from crony.etcd.client import Client
from crony.etcd.election import Election, Term
from crony.etcd.keys import Keys
from crony.settings import Settings
from crony.store.db import Database

log = logging.getLogger("crony.beat")

SHARD = 0
"""One shard for now; keys and compares carry it."""


class Centre:
    """One candidate for leadership. Raises `Invalid` at once when its keys are missing or malformed."""

    def __init__(self, settings: Settings, *, clock: Clock = SYSTEM) -> None:
        self.settings, self.clock = settings, clock
        self.keys = Keys(settings.namespace)
        self._sealer = Sealer(settings.signing_key)
        centres = {*settings.centre_keys, public_key(settings.signing_key)}
        self._centres = Verifier(centres)
        # Documents that reconciling publishes are sealed by a centre, which may sign what runs anyway.
        self._webs = Verifier({*settings.web_keys, *centres})
        self._database = Database(settings.database_url) if settings.database_url else None
        self.client = Client.from_settings(settings)
        self.leader: Leader | None = None
        """What leads right now; None: another centre does, or nobody."""
        self.halted: Halted | None = None
        if not settings.web_keys:
            log.warning("no web's public key is set (CRONY_WEB_KEYS): no job is acted on")

    def run(self, stop: threading.Event) -> None:
        """Campaign and lead until `stop` is set. An outage is waited out; a restored etcd halts it until restarted."""
        mark = Watermark(self.client, self.settings.state_dir, self.settings.namespace)
        mark.load()
        mark.background.start()
        try:
            while not stop.is_set():
                self._once(stop)
        except Halted as error:
            self.halted = error
            log.critical("this centre does not lead: %s", error)
            stop.wait()
        finally:
            mark.close()
            self.client.close()

    def status(self) -> dict[str, Any]:
        """What this centre does right now, for logs and people."""
        leader = self.leader
        facts: dict[str, Any] = {"name": self.settings.centre_name, "leads": leader is not None}
        if self.halted is not None:
            facts["halted"] = str(self.halted)
        return facts | (leader.status() if leader is not None else {})

    def _once(self, stop: threading.Event) -> None:
        """One campaign and one term."""
        try:
            if not self._clock_is_right(stop):
                return
            election = Election(self.client, self.keys, SHARD, self.settings.centre_name, self.settings.leader_ttl)
            term = election.campaign(stop)
            if term is not None:
                self._lead(term, stop)
        except Halted:
            raise
        except Forbidden as error:
            log.error("etcd refuses this centre: %s", error)
            stop.wait(5.0)
        except CronyError as error:
            log.warning("leading failed, campaigning again: %s", error)
            stop.wait(0.5)
        except Exception:
            log.exception("leading failed, campaigning again")
            stop.wait(1.0)

    def _lead(self, term: Term, stop: threading.Event) -> None:
        try:
            leader = Leader(
                self.settings,
                self.clock,
                self.client,
                self.keys,
                term,
                sealer=self._sealer,
                webs=self._webs,
                centres=self._centres,
                database=self._database,
            )
            self.leader = leader
            leader.lead(stop)
        finally:
            self.leader = None
            term.resign()

    def _clock_is_right(self, stop: threading.Event) -> bool:
        """S9: who has the wrong time does not lead. Waits a moment when it is wrong."""
        try:
            self.client.get(self.keys.control)
        except Halted:
            raise
        except CronyError:
            return True  # etcd is away: the campaign waits for it, and the leader looks again
        off = skew(self.client, self.clock)
        if abs(off) <= SKEW:
            return True
        log.error("this centre does not lead: its wall clock is %+.1f s off from etcd's. Set it right (NTP)", off)
        stop.wait(1.0)
        return False


def main(settings: Settings, stop: threading.Event) -> None:
    """Run a centre until `stop` is set."""
    Centre(settings).run(stop)
