"""A candidate: stands for one shard, leads it when elected, stands again; until it is told to end."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
from collections.abc import Callable

from crony.beat.knowledge import Knowledge
from crony.beat.leader import Leader
from crony.beat.standby import Standby
from crony.domain.shards import Part
from crony.errors import CronyError, Forbidden, Halted, Unavailable
from crony.etcd.election import Election, Term

log = logging.getLogger("crony.beat")


class Resharded(CronyError):
    """The number of shards is not what it was."""


class Candidate:
    """One shard's, in a thread of its own."""

    def __init__(
        self,
        part: Part,
        election: Election,
        ready: Callable[[int], bool],
        know: Callable[[Part], Knowledge],
        lead: Callable[[Part, Term, Knowledge], Leader],
    ) -> None:
        """`ready(shard)`: whether to stand now. `know` begins to know of a shard. `lead` makes the leader of a term; it
        raises `Resharded`."""
        self.part = part
        self._election, self._ready, self._know, self._make = election, ready, know, lead
        self._stop = threading.Event()
        self._over = threading.Event()
        self.leader: Leader | None = None
        """What leads the shard right now; None: another centre does, or nobody."""
        self.halted: Halted | None = None
        self.resharded = False
        self._large = False
        self._thread = threading.Thread(target=self._run, name=f"crony-shard-{part.number}", daemon=True)

    def start(self) -> Candidate:
        """Begin to stand."""
        self._thread.start()
        return self

    def give(self) -> bool:
        """Give the shard to another centre; whether there was anything to give."""
        leader = self.leader
        if leader is None:
            return False
        with contextlib.suppress(CronyError):
            leader.hand_over()
        self._over.set()
        return True

    def end(self) -> None:
        """Stop leading and standing, soon."""
        self._stop.set()
        self._over.set()

    def join(self, timeout: float) -> None:
        """Wait until it has ended."""
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stop.is_set() and self.halted is None and not self.resharded:
            self._once()

    def _once(self) -> None:
        """One campaign and one term. It stands once it knows the shard: elected, it can then lead at once."""
        if self._large:  # what was known in the last term goes before all is listed again
            gc.collect()
        standby = Standby(self.part.number, lambda: self._know(self.part)).start()
        try:
            term = self._election.campaign(self._stop, lambda: standby.warm and self._ready(self.part.number))
            if term is not None:
                self._lead(term, standby)
        except Halted as error:
            self.halted = error
        except Resharded:
            self.resharded = True
        except Forbidden as error:
            log.error("etcd refuses this centre: %s", error)
            self._stop.wait(5.0)
        except CronyError as error:
            log.warning("leading shard %d failed, campaigning again: %s", self.part.number, error)
            self._stop.wait(0.5)
        except Exception:
            log.exception("leading shard %d failed, campaigning again", self.part.number)
            self._stop.wait(1.0)
        finally:
            standby.end()

    def _lead(self, term: Term, standby: Standby) -> None:
        self._over.clear()
        if self._stop.is_set():
            self._over.set()
        knowledge = standby.take()
        try:
            if knowledge is None:
                raise Unavailable("the shard is not known yet", hint="it stands again when it is")
            leader = self._make(self.part, term, knowledge)
            self.leader = leader
            leader.lead(self._over)
        finally:
            self.leader = None
            term.resign()
            if knowledge is not None:
                self._large = knowledge.leave()
