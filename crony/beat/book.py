"""What the leader knows: jobs, cursors, runs by place, nodes; built from one listing, kept by watches.

Plain memory, owned by the decision loop alone: no locks, no I/O. Everything enters through `put` and `drop` with
its etcd revision, whoever tells it first: the leader's own committed transaction or the watch. Older news about a
key never undoes newer. It never judges; it only knows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from crony.beat import facts
from crony.beat.alive import Alive
from crony.beat.entries import (
    Asked,
    Awaited,
    Filling,
    JobEntry,
    Joined,
    Queued,
    Waiting,
    backfill_of,
)
from crony.beat.facts import read
from crony.beat.fleet import Fleet
from crony.beat.jobs import Jobs
from crony.beat.lying import Lying
from crony.beat.news import News
from crony.beat.pools import Pools
from crony.beat.sorting import filled_by, job_of
from crony.domain.alerting import Rule
from crony.domain.chain import Graph
from crony.domain.gathering import Gathering
from crony.domain.ids import place_ident
from crony.domain.join import Join
from crony.domain.run import Accepted, Request, Wait, WaitReason
from crony.domain.shards import Part
from crony.etcd.keys import Keys, decode
from crony.lifecycle.settle import Position

log = logging.getLogger("crony.beat")


class Book:
    """The leader's memory of one shard."""

    def __init__(self, keys: Keys, part: Part | None = None) -> None:
        """`part`: the shard; it is told of what concerns that only (see `sorting`)."""
        self._keys, self._root = keys, len(keys.root)
        self.part = part or Part()
        self._ignored = (keys.name(""), keys.alert(""), f"{keys.root}delayed/")
        self.pools = Pools(keys)
        self.graph = Graph()
        self.gathered: dict[str, tuple[int, Gathering | None]] = {}
        """Runs that are to follow several others, with what they have so far; None: nobody can read it."""
        self.mods: dict[str, int] = {}
        """Key -> revision known, but for those of jobs: their entries have it."""
        self.requests: dict[str, Asked] = {}
        self.ends: dict[str, Asked] = {}
        """Requests that tell of an awaited end."""
        self.backfills: dict[str, Filling] = {}
        self.waits: dict[str, Waiting] = {}
        self.accepted: dict[str, Awaited] = {}
        self.joins: dict[str, Joined] = {}
        self.outs: dict[str, tuple[int, bytes]] = {}
        """Outcome key -> (revision, value), until the loop hands them on; without the value in shards but the first."""
        self.lapses: set[str] = set()
        """Jobs whose last run failed; known to the leader of shard 0."""
        self.orders: dict[str, set[str]] = {}
        """Run -> keys of orders about it."""
        self.told: dict[str, set[str]] = {}
        """Run -> keys of what people were told of it while it lived."""
        self.beats: set[str] = set()
        """Runs of which there is a sign of life, or a word on how far they are."""
        self.rules: dict[str, Rule] = {}
        """Alert rules by name, as written (not verified): what is put for them goes nowhere if they are forged."""
        self.dead: dict[str, tuple[int, bytes]] = {}
        self.stopped = False
        self.settled = Position()
        self.news = News()
        self._alive = Alive(self.waits)
        self.catalogue = Jobs(keys, self.news, self._alive)
        self.jobs: dict[str, JobEntry] = self.catalogue.entries
        self._fleet = Fleet(self.news)
        self.sessions, self.nodes = self._fleet.sessions, self._fleet.nodes
        self.incarnations, self.controls = self._fleet.incarnations, self._fleet.controls
        self._lying = Lying(self.news)
        self.queued, self.places, self.load = self._lying.queued, self._lying.places, self._lying.load
        self._graves: dict[str, int] = {}
        self._most_graves = 1000

    # -- questions -----------------------------------------------------------------------------

    @property
    def fleet(self) -> int:
        """Rises whenever the set of nodes, what they can do, or the stop switch changes."""
        return self._fleet.changes

    def seen(self, key: str) -> int:
        """Last known revision of a key; 0: absent."""
        return self.catalogue.seen(key) if key.startswith(self.catalogue.prefixes) else self.mods.get(key, 0)

    def live(self, job: str) -> list[str]:
        """Runs of a job that count for overlap (see `Alive`)."""
        return self._alive.of(job)

    def has_runs(self, job: str) -> bool:
        """Whether any run of a job is alive, whatever its kind."""
        return self._alive.any_of(job)

    def filled(self, backfill: str) -> set[str]:
        """Live runs of a backfill."""
        return self._alive.filled(backfill)

    def line(self, job: str) -> list[str]:
        """Runs of a job that wait until another one has ended, first come first."""
        return self._alive.line(job)

    def turn(self, job: str) -> str:
        """The run whose turn it is; empty: nobody's."""
        return self._alive.turn(job)

    def is_live(self, run: str) -> bool:
        """Whether a run waits, is queued, runs, is accepted or is carried out in parts."""
        return run in self.waits or run in self.places or run in self.accepted or run in self.joins

    def requested(self, run: str) -> Asked | None:
        """The request that a run still is."""
        wanted = ("run", run)
        found = (asked for asked in self.requests.values() if asked.request)
        return next((each for each in found if each.request and (each.request.kind, each.request.run) == wanted), None)

    def queue(self, queue: str) -> Iterator[Queued]:
        """Messages of one queue."""
        return (item for (name, _), item in self.queued.items() if name == queue)

    def node_of(self, incarnation: str) -> str:
        """Name of the registered node with this incarnation; empty when there is none."""
        return next((name for name, node in self.nodes.items() if node.facts.incarnation == incarnation), "")

    # -- news ----------------------------------------------------------------------------------

    def put(self, key: str, value: bytes, revision: int, born: int = 0) -> None:
        """A key has this value since `revision`. `born`: its create revision, where known."""
        if revision <= self._graves.get(key, 0):
            return
        if key.startswith(self.catalogue.prefixes):  # first: of these there are most
            if self.catalogue.put(key, value, revision):
                self._graves.pop(key, None)
            return
        if revision <= self.mods.get(key, 0) or key.startswith(self._ignored):
            return
        self._graves.pop(key, None)
        self.mods[key] = revision
        try:
            self._enter_key(key, value, revision, born)
        except Exception:  # whoever may write to etcd must not be able to stop the leader
            log.exception("the record %s cannot be taken in and is ignored", key)

    def _enter_key(self, key: str, value: bytes, revision: int, born: int) -> None:
        match key[self._root :].split("/"):
            case ["session", incarnation]:
                self.sessions.add(incarnation)
                self._fleet.changed()
            case ["node", node]:
                self._fleet.says(decode(node), value, revision)
            case ["nodectl", node]:
                self.controls[decode(node)] = (facts.orders(value), revision)
                self._fleet.changed()
            case ["cmd", _, run]:
                self.orders.setdefault(run, set()).add(key)
            case ["run", "in", ident]:
                asked = Asked(ident, value, revision, born or revision, read(Request, value))
                self.ends.pop(ident, None)
                told = asked.request
                # The leader of shard 0 puts requests to those of all shards, and takes in what it puts.
                others = told is not None and not self.part.has(job_of(str(told.run)) or str(told.job))
                if told is not None and (others or told.kind == "ended"):
                    self._unblock(self.requests.pop(ident, None))  # whoever may write there may write over another
                    if not others:
                        self.ends[ident], self.news.ends = asked, True
                        self.news.backfills.add(filled_by(told.run))
                    return
                self._unblock(self.requests.get(ident))
                self.requests[ident] = asked
                self.news.inbox = True
            case ["run", "backfill", ident]:
                self._unblock(self.backfills.get(ident))
                self.backfills[ident] = Filling(ident, value, revision, backfill_of(ident, value))
                self.news.backfills.add(ident)
            case ["run", "wait", run]:
                self._enter(run, run not in self.waits)
                self._unblock(self.waits.get(run))
                self.waits[run] = Waiting(run, read(Wait, value), revision)
                self.news.waits.add(run)
                self._stand(run)
            case ["run", "q", queue, "m", place] if not self.part.has(job_of(place_ident(place))):
                self._lying.foreign((decode(queue), place))
            case ["run", "q", queue, "m", place]:
                self._enter(place_ident(place), (decode(queue), place) not in self.queued)
                self._lying.message((decode(queue), place), value, revision)
            case ["run", "q", queue, "c", place]:
                self._lying.claimed((decode(queue), place), value, revision)
            case ["run", "join", run]:
                self._enter(run, run not in self.joins)
                self.joins[run] = Joined(run, read(Join, value), revision)
                self.news.joins.add(run)
            case ["run", "chain", run]:
                self.gathered[run] = revision, read(Gathering, value)
            case ["run", "acc", run]:
                self._enter(run, run not in self.accepted)
                self.accepted[run] = Awaited(run, read(Accepted, value), revision)
                self.news.heard.add(run)
            case ["run", "beat", run]:
                self.beats.add(run)
                self.news.heard.add(run)
            case ["run", "told", run, _] if self.part.has(job_of(run)):
                self.told.setdefault(run, set()).add(key)
            case ["run", "out", _, _]:
                self.outs[key] = (revision, value if self.part.first else b"")  # only shard 0's leader settles them
                self.news.outs = True
            case ["dead", *_]:
                self.dead[key] = (revision, value)
                self.news.dead = True
            case ["obj", "pool", name]:
                self.pools.publish(decode(name), value, revision)
            case ["obj", "alert-rule", name]:
                self.rules.pop(name, None)
                if (rule := facts.rule(value)) is not None:
                    self.rules[name] = rule
            case ["obj", "chain", job]:
                self.graph.put(job, value)
            case ["pool", name, number]:
                self.pools.hold(decode(name), number, value, revision)
            case ["control"]:
                self.stopped = facts.stopped(value)
                self._fleet.changed()
            case ["lapse", job]:
                self.lapses.add(job)
            case ["settled"]:
                self.settled = read(Position, value) or Position()

    def drop(self, key: str, revision: int) -> None:
        """A key was deleted at `revision`."""
        known = self.seen(key)
        if revision < known or key.startswith(self._ignored):
            return
        if revision > self._graves.get(key, 0):
            self._graves[key] = revision
        if not known:
            return
        if key.startswith(self.catalogue.prefixes):
            self.catalogue.drop(key)
            return
        del self.mods[key]
        try:
            self._leave_key(key)
        except Exception:
            log.exception("the deletion of %s cannot be taken in and is ignored", key)

    def _leave_key(self, key: str) -> None:
        match key[self._root :].split("/"):
            case ["session", incarnation]:
                self.sessions.discard(incarnation)
                self._fleet.changed()
            case ["node", node]:
                self._fleet.leaves(decode(node))
            case ["nodectl", node]:
                self.controls.pop(decode(node), None)
                self._fleet.changed()
            case ["cmd", _, run]:
                self.orders.get(run, set()).discard(key)
                if not self.orders.get(run):
                    self.orders.pop(run, None)
            case ["run", "in", ident]:
                self.ends.pop(ident, None)
                self._unblock(self.requests.pop(ident, None))
            case ["run", "backfill", ident]:
                self._unblock(self.backfills.pop(ident, None))
            case ["run", "wait", run]:
                self._unblock(self.waits.pop(run, None))
                self._stand(run)
                self._leave(run)
            case ["run", "q", queue, "m", place]:
                if run := self._lying.gone((decode(queue), place)):
                    self._leave(run)
            case ["run", "q", queue, "c", place]:
                self._lying.unclaimed((decode(queue), place))
            case ["run", "join", run]:
                self.joins.pop(run, None)
                self._leave(run)
            case ["run", "chain", run]:
                self.gathered.pop(run, None)
            case ["run", "acc", run]:
                self.accepted.pop(run, None)
                self._leave(run)
            case ["run", "beat", run]:
                self.beats.discard(run)
            case ["run", "told", run, _]:
                self.told.get(run, set()).discard(key)
                if not self.told.get(run):
                    self.told.pop(run, None)
            case ["run", "out", _, _]:
                self.outs.pop(key, None)
            case ["dead", *_]:
                self.dead.pop(key, None)
            case ["obj", "pool", name]:
                self.pools.unpublish(decode(name))
            case ["obj", "alert-rule", name]:
                self.rules.pop(name, None)
            case ["obj", "chain", job]:
                self.graph.drop(job)
            case ["pool", name, number]:
                self.pools.let_go(decode(name), number)
            case ["control"]:
                self.stopped = False
                self._fleet.changed()
            case ["lapse", job]:
                self.lapses.discard(job)
            case ["settled"]:
                self.settled = Position()

    def replace(self, start: str, end: str, pairs: Iterable[tuple[str, bytes, int, int]], revision: int) -> None:
        """Everything in [start, end) as of `revision`, as (key, value, mod, create): what is not named is gone."""
        there = set()
        for key, value, mod, born in pairs:
            there.add(key)
            self.put(key, value, mod, born)
        known = chain(self.mods, self.catalogue.keys())
        for key in [key for key in known if start <= key < end and key not in there]:
            self.drop(key, revision)

    def forget(self, passed: Callable[[str], int]) -> None:
        """`passed(key)`: older news about the key than that revision cannot come any more."""
        if len(self._graves) > self._most_graves:
            self._graves = {key: revision for key, revision in self._graves.items() if revision > passed(key)}
            self._most_graves = max(1000, 2 * len(self._graves))

    def rest(self) -> None:
        """Somebody else leads, so nobody here looks at the news: do not gather them; the agenda has taken its own."""
        self.news.rest()

    def wake(self) -> None:
        """This centre leads from now on: everything is news, as after a listing."""
        news = self.news
        news.waits.update(self.waits)
        news.heard.update(self.accepted)
        news.joins.update(self.joins)
        news.backfills.update(self.backfills)
        news.inbox = news.ends = news.queues = news.outs = news.dead = True
        self.pools.news = True
        self._fleet.only_present()

    # -- inside --------------------------------------------------------------------------------

    def _unblock(self, item: Asked | Filling | Waiting | None) -> None:
        """The record changed, so an unanswered transaction about it can no longer happen, or has happened."""
        if item is not None and item.blocks is not None:
            item.blocks.busy = False
            self.news.jobs.add(item.blocks.id)
            item.blocks = None

    def _enter(self, run: str, new: bool) -> None:
        if new:
            self._alive.enter(run)

    def _leave(self, run: str) -> None:
        if backfill := self._alive.leave(run):
            self.news.backfills.add(backfill)
        self._next_in(job_of(run))

    def _next_in(self, job: str) -> None:
        """Something of the job went: have the first in line looked at."""
        if run := self._alive.next_in(job):
            self.news.waits.add(run)

    def _stand(self, run: str) -> None:
        waiting = self.waits.get(run)
        if waiting is not None and waiting.wait is not None and waiting.wait.reason == WaitReason.POOL:
            self.pools.line_up(run, waiting.wait)
        else:
            self.pools.leave(run)
        if self._alive.stand(run):
            self._next_in(job_of(run))
