"""`crony recover`: makes a restored etcd fit to go on from (M6). Repeating it after it was interrupted is right.

It holds the terms of all shards while it works, so no centre dispatches; each step compares what it rests on. The very
last step puts a mark of the next epoch, which is what every halted process waits for.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from crony.beat.commit import Step, pack
from crony.catalog.jobs import Catalog
from crony.domain.backfill import Backfill
from crony.domain.livejob import LiveJob
from crony.domain.mark import Seen
from crony.domain.record import UnknownRecord
from crony.domain.shards import shard_of
from crony.domain.signing import Sealer, Verifier, public_key
from crony.errors import Conflict, Unavailable, Unknown
from crony.etcd.client import KV, Client
from crony.etcd.election import Election
from crony.etcd.keys import Keys
from crony.lifecycle import mark, shards
from crony.lifecycle.centres import look as look_at_centres
from crony.lifecycle.move import Lead, Move, transaction
from crony.lifecycle.recover import put_again, set_back
from crony.recovery import chains, runs
from crony.recovery.backfills import advanced, must_not_repeat
from crony.recovery.cursors import Cursors
from crony.settings import Settings
from crony.store import audit, marks, recovery
from crony.store.db import Database
from crony.store.recovery import KnownRun

log = logging.getLogger("crony.recover")

TTL = 15.0
PATIENCE = 90.0
"""Seconds to wait for the leases that came back with the backup to run out."""
PASSES = 10
"""Times a part is looked at again while others change records under it."""
BUMP = 200_000
"""Most revisions that etcd is moved forward by writing."""
WRITERS = 8
SLACK = 60.0
"""Seconds by which clocks and the age of a mark may be wrong about when the backup was made."""


@dataclass(slots=True)
class Report:
    """What was done."""

    epoch: int = 0
    bumped: int = 0
    behind: int = 0
    """Revisions that etcd is still behind what was seen before."""
    cursors: int = 0
    skipped: int = 0
    """Fires recorded as not known."""
    runs: Counter[str] = field(default_factory=Counter)
    """Runs by what became of them."""
    held: list[str] = field(default_factory=list)
    """Runs that wait for a person."""
    backfills: int = 0
    """Backfills that were moved on or stopped."""
    followed: int = 0
    """Runs asked for because one that they follow has ended since."""
    not_followed: int = 0
    """Records why such a run does not follow."""
    published: int = 0


class Recovery:
    """One recovery. `database`: None: nothing is known of what happened since the backup."""

    def __init__(
        self,
        settings: Settings,
        client: Client,
        keys: Keys,
        database: Database | None,
        seen: Iterable[Seen],
        say: Callable[[str], None],
    ) -> None:
        """`seen`: what is known of etcd before it was restored. Raises `Invalid` without a centre's keys."""
        self._settings, self._client, self._keys, self._database = settings, client, keys, database
        self._seen, self._say = list(seen), say
        self._sealer = Sealer(settings.signing_key)
        own = public_key(settings.signing_key)
        self._centres = Verifier({*settings.centre_keys, own})
        self._webs = Verifier({*settings.web_keys, *settings.centre_keys, own})
        self._leads: dict[int, Lead] = {}
        self._now = client.now()
        self.report = Report()

    def perform(self) -> Report:
        """All of it. Raises `Conflict` when a centre leads or others keep changing what is recovered, and as client and
        database: run it again then."""
        with self._leading():
            self._bump()
            self._say("cursors of jobs")
            published = self._move_cursors()
            self._say("chains")
            self._settle_chains()
            self._say("runs")
            self._settle_runs(published)
            self._entries()
            if self._database is not None:
                self._say("catalogue")
                self._publish(self._database)
            self._finish()
        return self.report

    # -- the terms ---------------------------------------------------------------------------------

    @contextmanager
    def _leading(self) -> Iterator[None]:
        sharding = shards.look(self._client, self._keys)
        name = f"recover on {socket.gethostname()}"
        deadline = time.monotonic() + PATIENCE
        with ExitStack() as stack:
            for shard in range(sharding.count):
                self._say(f"waiting for the lead of shard {shard}")
                stop = threading.Event()
                timer = threading.Timer(max(0.1, deadline - time.monotonic()), stop.set)
                timer.start()
                try:
                    term = Election(self._client, self._keys, shard, name, TTL).campaign(stop)
                finally:
                    timer.cancel()
                if term is None:
                    leading = look_at_centres(self._client, self._keys).leaders.get(shard)
                    raise Conflict(
                        f"{leading.name if leading else 'Somebody'} leads shard {shard} and does not let go",
                        why="a centre that does not know of the restore would go on dispatching",
                        hint="stop all centres, then run this again",
                    )
                stack.callback(term.resign)
                self._leads[shard] = Lead(self._keys, term.compare(), sharding.seen)
            yield

    def _bump(self) -> None:
        """Move etcd's revision past all that was seen: no revision of the time that is missing is used twice."""
        highest = max((seen.revision for seen in self._seen), default=0)
        missing = highest - self._client.range(self._keys.mark).revision + 1
        if missing <= 0:
            return
        if missing > BUMP:
            self.report.behind = missing
            return
        self._say(f"moving etcd forward by {missing:,} revisions")
        key = f"{self._keys.beat}bump"

        def write(_: int) -> None:
            self._client.put(key, b"")

        with ThreadPoolExecutor(WRITERS) as pool:
            for _ in pool.map(write, range(missing)):
                pass
        self._client.delete(key)
        self.report.bumped = missing

    def _move_cursors(self) -> dict[str, LiveJob]:
        """Every cursor to now, and a record of each fire that nobody knows about; the published jobs."""
        cursors = Cursors(self._client, self._keys, self._webs, self._database, self._now)
        for _ in range(PASSES):
            published, steps = cursors.look()
            if not steps or self._commit((step.job, step.move) for step in steps) == 0:
                self.report.cursors = len(steps)
                self.report.skipped = sum(step.unknown for step in steps)
                return published
        raise Conflict("Cursors changed each time they were moved", hint="stop all centres and webs, then try again")

    def _settle_chains(self) -> None:
        """What ended since the backup, for the jobs that follow; before the runs: each new one is judged, too."""
        if self._database is None:
            return
        since = mark.look(self._client, self._keys).at - SLACK
        for _ in range(PASSES):
            pairs = [kv for prefix in ("run/", "dead/") for kv in self._list(self._keys.root + prefix)]
            there = {run for run, held in runs.sort(self._keys, pairs).items() if any(held.places) or held.letter}
            found = chains.look(self._client, self._keys, self._database, there, since, self._now)
            self.report.followed += found.asked
            self.report.not_followed += found.told
            if not found.moves or self._commit(found.moves) == 0:
                return
        raise Conflict("Chains changed each time they were looked at", hint="stop all nodes, then try again")

    # -- runs --------------------------------------------------------------------------------------

    def _settle_runs(self, published: dict[str, LiveJob]) -> None:
        """Each run that the backup holds, then each that it has lost."""
        counted = False
        for _ in range(PASSES):
            pairs = [kv for prefix in ("run/", "dead/", "cmd/") for kv in self._list(self._keys.root + prefix)]
            held = runs.sort(self._keys, pairs)
            known = self._known(held)
            judge = runs.Judge(self._keys, self._sealer, self._centres, published, known, self._known, self._now)
            decisions = [judge.decide(each) for each in held.values()]
            moves = [(_job_of(each.run), each.move) for each in decisions if each.move is not None]
            found = self._backfills(pairs, published)
            moves += found
            moves += self._lost(held)
            if not counted:  # later passes find what the first one made
                counted = True
                self.report.runs.update(each.fate.name.lower() for each in decisions)
                self.report.backfills = len(found)
                self.report.held = [each.run for each in decisions if each.fate is runs.Fate.HELD]
            if not moves or self._commit(moves) == 0:
                return
        raise Conflict("Runs changed each time they were looked at", hint="stop all nodes, then try again")

    def _known(self, wanted: Iterable[str]) -> Mapping[str, KnownRun]:
        return recovery.runs(self._database, wanted) if self._database is not None else {}

    def _backfills(self, pairs: Iterable[KV], published: dict[str, LiveJob]) -> list[tuple[str, Move]]:
        moves: list[tuple[str, Move]] = []
        cancelled = set() if self._database is None else audit.targets(self._database, "backfill", "backfill.cancel")
        for kv in pairs:
            if not kv.key.startswith(self._keys.backfill("")):
                continue
            try:
                record = Backfill.read(kv.value)
            except UnknownRecord:
                continue
            once = must_not_repeat(published.get(record.job))
            if self._database is None and not once:
                continue
            after, skip = advanced(
                record, once=once, known=self._known, now=self._now, cancelled=record.id in cancelled
            )
            if after is None:
                outcomes = [(0, skip)] if skip is not None else []
                moves.append((record.job, set_back(self._keys, {kv.key: kv.mod}, outcomes=outcomes)))
            elif after != record:
                moves.append((record.job, put_again(kv.key, kv.mod, after.encode())))
        return moves

    def _lost(self, held: dict[str, runs.Held]) -> list[tuple[str, Move]]:
        """Runs of which the archive knows an attempt, not the end, and etcd nothing."""
        if self._database is None:
            return []
        prefix = self._keys.outs
        ended = {kv.key.removeprefix(prefix).split("/")[0] for kv in self._list(prefix) if runs.is_final(kv.value)}
        since = mark.look(self._client, self._keys).at - SLACK  # of the backup: the new mark comes last
        there = [*recovery.open_runs(self._database), *recovery.open_wholes(self._database, since)]
        missing = [known for known in there if known.id not in held]
        outcomes = [runs.lost(known, self._now) for known in missing if known.id not in ended]
        self.report.runs["lost"] += len(outcomes)
        key = self._keys.out
        return [(out.job, Move({key(out.run, "end"): 0}, puts={key(out.run, "end"): out.encode()})) for out in outcomes]

    def _entries(self) -> None:
        """Plain entries of Celery apps are due from now on."""
        moves: list[tuple[str, Move]] = []
        for kv in self._list(f"{self._keys.beat}plain/"):
            try:
                record = {**json.loads(kv.value), "last": datetime.fromtimestamp(self._now, UTC).isoformat()}
            except (ValueError, TypeError):
                continue
            moves.append(("", put_again(kv.key, kv.mod, json.dumps(record).encode())))
        self._commit(moves)

    # -- the end -----------------------------------------------------------------------------------

    def _publish(self, database: Database) -> None:
        # From the very instant to which the cursors were moved: nothing is due twice, or by no schedule.
        catalog = Catalog(database, self._client, self._keys, self._sealer)
        objects = catalog.reconcile_objects()
        found = catalog.reconcile(now=self._now)
        self.report.published = sum(map(len, objects.values())) + len(found.published) + len(found.deleted)

    def _finish(self) -> None:
        before = mark.look(self._client, self._keys)
        epoch = max([before.epoch, *(seen.epoch for seen in self._seen)]) + 1
        move, _ = mark.put(self._keys, before, at=self._client.now(), epoch=epoch)
        if not self._client.txn(transaction(self._leads[0], [move])).succeeded:
            raise Conflict("The lead was lost before the end", hint="run it again: nothing is done twice")
        self.report.epoch = epoch
        if self._database is not None:
            marks.keep(self._database, self._keys.namespace, mark.look(self._client, self._keys))
            entry, facts = audit.entry_id(), {"epoch": epoch, "skipped": self.report.skipped, **self.report.runs}
            self._database.transaction(
                lambda session: audit.add(session, entry, "crony recover", "etcd.recover", "etcd", "etcd", facts)
            )

    # -- parts -------------------------------------------------------------------------------------

    def _list(self, prefix: str) -> list[KV]:
        return self._client.list(prefix).kvs

    def _commit(self, moves: Iterable[tuple[str, Move]]) -> int:
        """Carry them out, each under the term of its job's shard; how many did not happen."""
        refused = 0
        by_shard: dict[int, list[Step]] = {}
        for job, move in moves:
            by_shard.setdefault(shard_of(job, len(self._leads)), []).append(Step(move, lambda verdict: None))
        for shard, steps in by_shard.items():
            for group in pack(steps):
                txn = transaction(self._leads[shard], [step.move for step in group])
                try:
                    done = self._client.txn(txn).succeeded
                except Unknown:
                    done = False  # the next pass sees whether it happened
                if not done and not self._still_leading(shard):
                    raise Unavailable("the lead was lost", why="etcd was away for too long", hint="run it again")
                refused += 0 if done else len(group)
        return refused

    def _still_leading(self, shard: int) -> bool:
        kv = self._client.get(self._keys.leader(shard))
        return kv is not None and kv.create == self._leads[shard].term.number


def _job_of(run: str) -> str:
    return run.split(".", 1)[0]
