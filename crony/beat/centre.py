"""The scheduling centre: stands for every shard, leads those it wins, shares them out with the other centres.

Through every outage, until it is told to stop; a restored etcd halts it until somebody recovers that.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import Any

from crony.beat import balance
from crony.beat.board import Board
from crony.beat.candidate import Candidate, Resharded
from crony.beat.clockwatch import SKEW, skew
from crony.beat.feed import Feed
from crony.beat.knowledge import Knowledge
from crony.beat.leader import Leader
from crony.beat.presence import Presence
from crony.clock import SYSTEM, Clock
from crony.domain.figures import Figures
from crony.domain.shards import Part
from crony.domain.signing import Sealer, Verifier, public_key
from crony.errors import CronyError, Forbidden, Halted
from crony.etcd.client import Client
from crony.etcd.election import Election, Term
from crony.etcd.keys import Keys
from crony.lifecycle import shards
from crony.lifecycle.shards import Sharding
from crony.lifecycle.watermark import Watermark
from crony.settings import Settings
from crony.store import marks
from crony.store.db import Database

log = logging.getLogger("crony.beat")

TICK = 0.2
"""Seconds between two looks at the clock, the other centres and the number of shards; bounds how late a stop is
noticed."""
ENDING = 5.0
"""Most seconds that leaders may take to end."""
LOOK = 5.0
"""Seconds between two looks at the mark."""
LOOK_HALTED = 2.0
RETAKEN = 60.0
"""Seconds for which nothing is given away after a shard was that nobody took."""


class Centre:
    """One scheduling centre. Raises `Invalid` at once when its keys are missing or malformed."""

    def __init__(self, settings: Settings, *, clock: Clock = SYSTEM) -> None:
        self.settings, self.clock = settings, clock
        self.keys = Keys(settings.namespace)
        self._sealer = Sealer(settings.signing_key)
        centres = {*settings.centre_keys, public_key(settings.signing_key)}
        self._centres = Verifier(centres)
        # Documents that reconciling publishes are sealed by a centre, which may sign what runs anyway.
        self._webs = Verifier({*settings.web_keys, *centres})
        self._database = Database(settings.database_url) if settings.database_url else None
        self._watermark = Watermark(settings.state_dir, self.keys)
        self._figures = Figures()
        self._connect()
        self.halted: Halted | None = None
        """Why it leads nothing until etcd is recovered."""
        if not settings.web_keys:
            log.warning("no web's public key is set (CRONY_WEB_KEYS): no job is acted on")

    @property
    def leaders(self) -> dict[int, Leader]:
        """What leads right now, by shard."""
        found = ((each.part.number, each.leader) for each in self._candidates)
        return {shard: leader for shard, leader in found if leader is not None}

    @property
    def leader(self) -> Leader | None:
        """What leads shard 0, which stands for the whole namespace; None: another centre does, or nobody."""
        return self.leaders.get(0)

    def run(self, stop: threading.Event) -> None:
        """Campaign and lead until `stop` is set. An outage is waited out; a restored etcd halts it until somebody
        recovers that."""
        while not stop.is_set():
            try:
                self._work(stop)
            except Halted as error:
                self.halted = error
                log.critical("this centre does not lead: %s", error)
            finally:
                self._disconnect()
            if self.halted is not None and self._recovered(stop):
                log.warning("etcd was recovered: this centre begins anew")
                self._connect()
                self.halted = None

    def _connect(self) -> None:
        self.client = Client.from_settings(self.settings)
        self.board = Board(self.client, self.keys, self.clock)
        self._presence = Presence(self.client, self.keys, self.settings, self.clock)
        self._candidates: list[Candidate] = []
        self._able, self._why, self._said_wrong = False, "", False
        self._given: tuple[int, int] | None = None
        """The shard given away last, and the term that ended with it."""
        self._give_after = self._look_at = 0.0

    def _disconnect(self) -> None:
        # What the client saw last counts, too; it looked at the mark a few seconds ago.
        self._watermark.keep(replace(self._watermark.kept, revision=self.client.revision))
        self._presence.withdraw()
        self.board.stop()
        self.client.close()

    def _work(self, stop: threading.Event) -> None:
        """Raises `Halted`."""
        self._ask_database()
        while not stop.is_set() and not self._know_the_past(stop):
            pass
        self.board.start()
        while not stop.is_set():
            sharding = self._sharding(stop)
            if sharding is not None:
                self._season(sharding, stop)

    def _ask_database(self) -> None:
        """Take over what the database knows of etcd: this machine may never have seen it."""
        if self._database is None:
            return
        try:
            kept = marks.load(self._database, self.settings.namespace)
        except CronyError as error:
            log.warning("whether etcd was restored is compared with this machine's own notes only: %s", error)
            return
        if kept is not None:
            self._watermark.keep(kept)

    def _know_the_past(self, stop: threading.Event) -> bool:
        """Compare etcd with what is known of it; False when it is away. Raises `Halted`."""
        try:
            self._watermark.begin(self.client)
            return True
        except Halted:
            raise
        except CronyError as error:
            log.warning("this centre waits: %s", error)
            stop.wait(5.0 if isinstance(error, Forbidden) else 0.5)
            return False

    def _recovered(self, stop: threading.Event) -> bool:
        """Wait until etcd is recovered, or `stop` is set: False."""
        while not stop.wait(LOOK_HALTED):
            try:
                with Client.from_settings(self.settings) as client:
                    if self._watermark.recovered(client):
                        return True
            except CronyError as error:
                log.debug("whether etcd is recovered cannot be told: %s", error)
        return False

    def status(self) -> dict[str, Any]:
        """What this centre does right now, for logs and people."""
        leaders = self.leaders
        facts: dict[str, Any] = {"name": self.settings.centre_name, "leads": bool(leaders), "shards": sorted(leaders)}
        if self.halted is not None:
            facts["halted"] = str(self.halted)
        if len(self._candidates) == 1:
            return facts | (leaders[0].status() if leaders else {})
        return facts | {"of": {shard: leader.status() for shard, leader in leaders.items()}}

    # -- one number of shards ------------------------------------------------------------------

    def _sharding(self, stop: threading.Event) -> Sharding | None:
        """How many shards there are; None when that cannot be told now. Raises `Halted`."""
        try:
            found = shards.begin(self.client, self.keys, self.settings.shards, by=self.settings.centre_name)
        except Halted:
            raise
        except CronyError as error:
            log.log(logging.ERROR if isinstance(error, Forbidden) else logging.WARNING,
                    "this centre waits, the number of shards cannot be told: %s", error)  # fmt: skip
            stop.wait(5.0 if isinstance(error, Forbidden) else 0.5)
            return None
        if self.settings.shards not in (0, found.count):
            log.error(
                "CRONY_SHARDS of this centre says %d and is not obeyed: there are %d shards (set by %s). `crony shards "
                "%d` changes that for all centres, or take the setting away",
                self.settings.shards, found.count, found.told.by or "nobody", self.settings.shards,
            )  # fmt: skip
        return found

    def _season(self, sharding: Sharding, stop: threading.Event) -> None:
        """Stand for every shard as long as their number stays what it is. Raises `Halted`."""
        feed = Feed(self.client, self.keys, sharding.count)
        self._tend()
        self._candidates = [
            self._candidate(Part(number, sharding.count), sharding, feed) for number in range(sharding.count)
        ]
        for each in self._candidates:
            each.start()
        try:
            while not stop.is_set() and not self._over(sharding):
                stop.wait(TICK)
                self._tend()
                self._balance(sharding.count)
        finally:
            if stop.is_set():
                self._presence.withdraw()  # first: the others need not leave the shards to us
            for each in self._candidates:
                each.end()
            for each in self._candidates:
                each.join(ENDING)
        if not stop.is_set():
            log.warning("the number of shards has changed: standing anew")

    def _over(self, sharding: Sharding) -> bool:
        halted = next((each.halted for each in self._candidates if each.halted is not None), None)
        if halted is not None:
            raise halted
        return self.board.contradicts(sharding) or any(each.resharded for each in self._candidates)

    def _candidate(self, part: Part, sharding: Sharding, feed: Feed) -> Candidate:
        name, ttl = self.settings.centre_name, self.settings.leader_ttl
        election = Election(self.client, self.keys, part.number, name, ttl, centre=self._presence.centre)

        def know(part: Part) -> Knowledge:
            return Knowledge(feed, self.keys, part, self._webs, self.clock)

        def lead(part: Part, term: Term, knowledge: Knowledge) -> Leader:
            if shards.look(self.client, self.keys).seen != sharding.seen:
                raise Resharded("the number of shards has changed")
            return Leader(
                self.settings,
                self.clock,
                self.client,
                self.keys,
                term,
                part=part,
                sharding=sharding,
                knowledge=knowledge,
                sealer=self._sealer,
                webs=self._webs,
                centres=self._centres,
                watermark=self._watermark,
                database=self._database,
                figures=self._figures,
            )

        return Candidate(part, election, self._ready, know, lead)

    # -- together with the others --------------------------------------------------------------

    def _ready(self, shard: int) -> bool:
        """Whether to stand for a shard now."""
        if not self._able:
            return False
        board = self.board
        if not board.healthy:
            return True  # blind: somebody has to
        return balance.may_take(self._presence.centre, board.leaders, board.able, board.vacant_for(shard))

    def _balance(self, count: int) -> None:
        """Give one shard away, if it is this centre's turn to."""
        board, me, now = self.board, self._presence.centre, self.clock.monotonic()
        if self._given is not None:
            shard, term = self._given
            leading = board.leading(shard)
            if leading is None or (leading.centre == me and leading.term == term):
                return
            if leading.centre == me:
                log.warning("shard %d was given away and nobody took it; this centre leads on", shard)
                self._give_after = now + RETAKEN
            self._given = None
        if now < self._give_after or not board.healthy or board.still_for < balance.SETTLE:
            return
        surplus = balance.to_give(me, board.leaders, board.able, count)
        leading = board.leading(surplus) if surplus is not None else None
        if leading is not None and self._candidates[leading.shard].give():
            log.info("shard %d is given to a centre that leads fewer", leading.shard)
            self._given = leading.shard, leading.term

    def _tend(self) -> None:
        """Look at the clock, and tell the others. Raises `Halted`."""
        try:
            if self.clock.monotonic() >= self._look_at:
                self._look_at = self.clock.monotonic() + LOOK
                self._watermark.look(self.client, timeout=1.0)
            off = self._clock_is_right()
            self._presence.tell(able=self._able, why=self._why, skew=off, untrusted=self._untrusted, figures=self._told)
        except Halted:
            raise
        except CronyError as error:
            log.debug("this centre cannot say that it is there: %s", error)

    def _untrusted(self) -> dict[str, str]:
        """Jobs whose documents its leaders cannot act on, and why."""
        return {job: why for leader in self.leaders.values() for job, why in leader.untrusted().items()}

    def _told(self) -> dict[str, Any]:
        """What this process counted, and how its leaders stand."""
        states: dict[str, dict[str, float]] = {}
        for leader in self.leaders.values():
            for name, values in leader.states().items():
                for label, value in values.items():
                    known = states.setdefault(name, {})
                    known[label] = known.get(label, 0) + value
        return self._figures.told(states)

    def _clock_is_right(self) -> float:
        """S9: who has the wrong time does not lead. Seconds that our clock is ahead. Raises as the client."""
        if not self._able:
            self.client.get(self.keys.control, timeout=1.0)  # a fresh look at etcd's clock
        off = skew(self.client, self.clock)
        able, was = abs(off) <= SKEW, self._able
        self._why = "" if able else f"its wall clock is {off:+.1f} s off from etcd's"
        if not able and (was or not self._said_wrong):
            log.error("this centre does not lead: its wall clock is %+.1f s off from etcd's. Set it right (NTP)", off)
        self._said_wrong = not able
        self._able = able
        return off


def main(settings: Settings, stop: threading.Event) -> None:
    """Run a centre until `stop` is set."""
    Centre(settings).run(stop)
