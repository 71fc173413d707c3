"""Carries out the leader's moves: packs them into transactions, sends them, tells what became of each.

A few threads send, so that the loop goes on deciding meanwhile; moves under way together never write the same key.
Nothing is ever repeated blindly: a refused transaction is reported with what its keys are now, an unanswered one is
looked up by a key that only the leader writes, and whatever stays in doubt is decided anew from fresh facts, under
compares that let one of the two happen.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from crony.errors import CronyError, Halted, Unavailable, Unknown
from crony.etcd.client import KV, Client
from crony.etcd.errors import BadRequest, NoSpace
from crony.etcd.txn import Txn
from crony.lifecycle.move import Lead, Move, transaction

log = logging.getLogger("crony.beat")

MOST_STEPS = 50
OPERATIONS = 100
COMPARES = 115
"""Of the builder's 120: the rest is the leader's own."""
BYTES = 400 * 1024
SENDERS = 3
DEPTH = 4
"""Batches under way or lined up; more would only make decisions older."""


class Verdict(Enum):
    """What became of a step."""

    DONE = "done"
    REFUSED = "refused"  # something it had seen has changed; nothing happened
    UNSENT = "unsent"  # etcd is away; nothing happened
    LIMBO = "limbo"  # unanswered and not there yet: it may still arrive
    IMPOSSIBLE = "impossible"  # too large, or refused as malformed, all by itself: trying again is no use


@dataclass(frozen=True, slots=True)
class Step:
    """A move, and who wants to know: called on the decision loop with the verdict."""

    move: Move
    settle: Callable[[Verdict], None]


@dataclass(slots=True)
class Batch:
    """Moves of one kind in one transaction."""

    kind: str
    steps: list[Step]
    control_seen: int | None
    number: int = 0


@dataclass(slots=True)
class Result:
    """A batch that is through. `fresh`: keys of its compares as they are now (None: absent), read at `revision`."""

    batch: Batch
    verdict: Verdict
    revision: int = 0
    fresh: dict[str, KV | None] = field(default_factory=dict)
    deposed: bool = False
    error: CronyError | None = None


def pack(steps: Iterable[Step], limit: int = MOST_STEPS) -> Iterator[list[Step]]:
    """`steps` in order, in groups that each fit one transaction and touch no key twice."""
    group: list[Step] = []
    seen: dict[str, int] = {}
    touched: set[str] = set()
    sessions: set[str] = set()
    operations = size = 0
    for step in steps:
        move = step.move
        new_seen = {key: value for key, value in move.seen.items() if key not in seen}
        compares = len(seen) + len(new_seen) + len(sessions | move.alive | move.gone)
        if group and (
            len(group) >= limit
            or operations + move.operations > OPERATIONS
            or compares > COMPARES
            or size + move.size > BYTES
            or touched & move.touched
            or any(seen.get(key, value) != value for key, value in move.seen.items())
        ):
            yield group
            group, seen, touched, sessions, operations, size = [], {}, set(), set(), 0, 0
        group.append(step)
        seen |= move.seen
        touched |= move.touched
        sessions |= move.alive | move.gone
        operations += move.operations
        size += move.size
    if group:
        yield group


class Doubts:
    """What unanswered transactions would put that may still arrive, or may have: such a value proves no later one.

    What is decided anew says the same about a job as what it stands for, so reading it back cannot tell which of the
    two has happened. Used by the sending threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, set[bytes]] = {}

    def proof(self, moves: Iterable[Move]) -> Move | None:
        """The first move whose proof can only be its own; None: reading back would prove nothing."""
        with self._lock:
            return next((move for move in moves if move.proof and not self._doubtful(move)), None)

    def add(self, moves: Iterable[Move]) -> None:
        """Nobody knows whether these happened."""
        with self._lock:
            for move in moves:
                if move.proof:
                    self._values.setdefault(move.proof, set()).add(move.puts[move.proof])

    def clear(self, moves: Iterable[Move]) -> None:
        """These happened: what rested on the records before them cannot any more."""
        with self._lock:
            for move in moves if self._values else ():
                self._values.pop(move.proof, None)

    def _doubtful(self, move: Move) -> bool:
        return move.puts[move.proof] in self._values.get(move.proof, ())


class Committer:
    """Sends batches under one term. `send` and `finished` belong to the decision loop."""

    def __init__(self, client: Client, lead: Lead, post: Callable[[Result], None]) -> None:
        """`post` takes each result back to the loop."""
        self._client, self._lead, self._post = client, lead, post
        self._queue: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._under_way: set[int] = set()
        self.lined_up = 0
        """Batches lined up so far; the number of the next one."""
        self._limits: dict[str, int] = {}
        self._refusals: dict[str, int] = {}
        self._rest_until = 0.0
        self._failures = 0
        self._closed = threading.Event()
        self._doubts = Doubts()
        self._threads = [
            threading.Thread(target=self._send_all, name=f"crony-beat-commit-{number}", daemon=True)
            for number in range(SENDERS)
        ]
        for thread in self._threads:
            thread.start()

    def free(self, now: float) -> bool:
        """Whether another batch may be decided. `now`: monotonic."""
        return len(self._under_way) < DEPTH and now >= self._rest_until

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._under_way

    @property
    def oldest(self) -> int:
        """Number of the oldest batch under way; with none, of the next one."""
        return min(self._under_way, default=self.lined_up)

    def limit(self, kind: str) -> int:
        """Most steps of this kind in one transaction; halved after two refusals in a row."""
        return self._limits.get(kind, MOST_STEPS)

    def send(self, kind: str, steps: Iterable[Step], *, control_seen: int | None = None) -> None:
        """Line up; `control_seen`: also compare the control key (everything that dispatches does)."""
        for group in pack(steps, self.limit(kind)):
            self._under_way.add(self.lined_up)
            self._queue.put(Batch(kind, group, control_seen, self.lined_up))
            self.lined_up += 1

    def finished(self, result: Result) -> None:
        """The loop has taken `result`."""
        self._under_way.discard(result.batch.number)
        kind = result.batch.kind
        if result.verdict is Verdict.DONE:
            self._refusals[kind] = 0
            self._limits[kind] = min(MOST_STEPS, self.limit(kind) * 2)
        elif result.verdict is Verdict.REFUSED:
            self._refusals[kind] = self._refusals.get(kind, 0) + 1
            if self._refusals[kind] >= 2 or isinstance(result.error, BadRequest):
                self._limits[kind] = max(1, min(self.limit(kind), len(result.batch.steps)) // 2)

    def away(self, error: CronyError | None, now: float) -> None:
        """etcd did not take (or not answer) a batch: rest a moment, longer each time."""
        self._failures += 1
        self._rest_until = now + min(1.0, 0.02 * 2 ** min(self._failures, 8))
        if self._failures == 2:
            log.warning("decisions cannot be written, they are made again later: %s", error)

    def well(self) -> bool:
        """A batch went through. Whether that is a change."""
        was_away = self._failures >= 2
        if was_away:
            log.warning("decisions are written again")
        self._failures, self._rest_until = 0, 0.0
        return was_away

    def close(self, timeout: float) -> None:
        """Send nothing more; wait a moment for what is under way."""
        self._closed.set()
        for _ in self._threads:
            self._queue.put(None)
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    # -- the sending threads --------------------------------------------------------------------

    def _send_all(self) -> None:
        while (batch := self._queue.get()) is not None and not self._closed.is_set():
            try:
                result = self._send(batch)
            except Exception as error:
                log.exception("a batch of %s steps could not be sent", batch.kind)
                result = Result(batch, Verdict.UNSENT, error=CronyError(str(error)))
            self._post(result)

    def _send(self, batch: Batch) -> Result:
        moves = [step.move for step in batch.steps]
        try:
            answer = self._client.txn(transaction(self._lead, moves, control_seen=batch.control_seen))
        except Unknown as error:
            return self._look_up(batch, error)
        except (Unavailable, NoSpace, Halted) as error:
            return Result(batch, Verdict.UNSENT, error=error)
        except BadRequest as error:
            log.error("a transaction of %d %s steps cannot be carried out: %s", len(moves), batch.kind, error)
            return Result(batch, Verdict.REFUSED if len(moves) > 1 else Verdict.IMPOSSIBLE, error=error)
        if answer.succeeded:
            self._doubts.clear(moves)
            return Result(batch, Verdict.DONE, answer.revision)
        return self._refresh(batch)

    def _refresh(self, batch: Batch) -> Result:
        """What the keys that a refused batch had seen are now; runs are left out: their one watch tells those whole."""
        keys = self._lead.keys
        # A pool's limit comes by its watch, too: whoever knows it then knows every slot that was taken before.
        # So does what follows what: `chains` is worth what was heard of the links before it.
        watched = keys.run, keys.obj("pool", ""), keys.chains
        wanted = {key for step in batch.steps for key in step.move.seen if not key.startswith(watched)}
        wanted |= {keys.control, keys.shards, self._lead.term.key}
        result = Result(batch, Verdict.REFUSED)
        try:
            for group in _groups(sorted(wanted), OPERATIONS):
                read = Txn()
                for key in group:
                    read.get(key)
                answer = self._client.txn(read)
                result.revision = min(result.revision or answer.revision, answer.revision)
                for key, found in zip(group, answer.responses, strict=True):
                    result.fresh[key] = found[0] if found else None
        except (Unavailable, Unknown, Halted) as error:
            result.error = error
            result.fresh.clear()
            return result
        leader, shards = result.fresh.pop(self._lead.term.key), result.fresh.pop(keys.shards)
        result.deposed = leader is None or leader.create != self._lead.term.number
        result.deposed |= (shards.mod if shards else 0) != self._lead.shards_seen
        return result

    def _look_up(self, batch: Batch, error: Unknown) -> Result:
        """An unanswered batch: it happened if a key that only the leader writes has its value, and nothing else that is
        in doubt would have given it that."""
        moves = [step.move for step in batch.steps]
        proof = self._doubts.proof(moves)
        if proof is None:
            self._doubts.add(moves)
            return Result(batch, Verdict.LIMBO, error=error)
        while not self._closed.is_set():
            try:
                found = self._client.get(proof.proof)
            except (Unavailable, Unknown):
                self._closed.wait(0.1)
                continue
            except Halted as halted:
                return Result(batch, Verdict.UNSENT, error=halted)
            if found is not None and found.value == proof.puts[proof.proof] and found.mod != proof.seen[proof.proof]:
                self._doubts.clear(moves)
                return Result(batch, Verdict.DONE, found.mod)
            break
        self._doubts.add(moves)
        return Result(batch, Verdict.LIMBO, error=error)


def _groups(items: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
