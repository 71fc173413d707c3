"""The leader's desk: writes envelopes, seals them for a node, and opens again what it (or another centre) sealed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from crony.beat.pools import Pools
from crony.beat.router import Router
from crony.domain import ids
from crony.domain.alerting import limits_of, minds_missed
from crony.domain.job import Retry
from crony.domain.join import MOST_NODES, Join
from crony.domain.livejob import LiveJob
from crony.domain.outcome import SkipReason
from crony.domain.queues import Shared
from crony.domain.routing import Strategy
from crony.domain.run import Envelope, Request, Trigger, Wait, WaitReason
from crony.domain.signing import Sealer, Verifier
from crony.lifecycle.end import PATIENCE
from crony.lifecycle.move import Dispatch
from crony.transport_etcd import message as wire

TASK = "crony.run"
"""The Celery task that runs every attempt."""
EXPIRES = 24 * 3600.0
"""Seconds an envelope stays good; messages that wait longer are sealed again."""


class NotSplit(Exception):
    """A run that should be carried out in parts cannot be now."""

    def __init__(self, reason: SkipReason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class Desk:
    """Drafts, seals and opens envelopes. `now` is etcd's wall clock."""

    def __init__(
        self, sealer: Sealer, verifier: Verifier, router: Router, now: Callable[[], float], pools: Pools
    ) -> None:
        self._sealer, self._verifier, self._router, self._now = sealer, verifier, router, now
        self._pools = pools
        self._sequence = 0

    def draft(self, live: LiveJob, run: str, *, trigger: str, at: float, fire_at: float | None = None) -> Envelope:
        """The first attempt of a run of a published job; addressed to nobody yet."""
        job = live.job
        return Envelope(
            run=run,
            job=live.id,
            name=live.name,
            generation=live.generation,
            revision=live.revision,
            attempt=1,
            queue="",
            incarnation="",
            trigger=trigger,
            action=dict(job.action),
            params=dict(job.params),
            fire_at=fire_at,
            requested_at=at,
            timeout=job.timeout,
            deadline=job.asynchronous.deadline if job.asynchronous else 0.0,
            heartbeat=job.asynchronous.heartbeat if job.asynchronous else 0.0,
            output_limit=job.output.limit,
            retry=job.retry.payload(),
            priority=job.priority,
            labels=dict(job.routing.labels),
            node=job.routing.node,
            exclude=list(job.routing.exclude),
            strategy=job.routing.strategy,
            shared=job.routing.queue or "",
            parts=job.routing.parts or 0,
            key=job.routing.key,
            overlap=job.overlap,
            delivery=job.delivery,
            on_node_loss=job.on_node_loss,
            on_cut=job.on_cut,
            pools=list(job.limits),
            secrets=dict(job.secrets),
            late=limits_of(job.alerts).late if trigger == Trigger.SCHEDULE else 0.0,
            missed=minds_missed(job.alerts),
            awaited=bool(job.pause_after) or trigger == (Trigger.SCHEDULE if job.after_end else Trigger.BACKFILL),
        )

    def draft_task(self, request: Request) -> Envelope:
        """The first attempt of a Celery task run by name: its implicit job has no document."""
        return Envelope(
            run=request.run,
            job=request.job,
            name=request.name,
            generation=0,
            revision=0,
            attempt=1,
            queue="",
            incarnation="",
            trigger=request.trigger,
            action={"kind": "python", "task": request.name.removeprefix("task:"), "args": [], "kwargs": {}},
            requested_at=request.requested_at,
            retry=Retry().payload(),
            overlap="allow",
        )

    def override(self, envelope: Envelope, request: Request) -> Envelope:
        """What the caller asked for this one run, over what the job says."""
        changes: dict[str, object] = {"args": list(request.args), "idem": request.idem}
        changes |= {"chain": request.chain, "cause": request.cause, "no_chain": request.no_chain is True}
        changes["chain_at"] = float(request.chain_at or request.not_before_at)
        changes["params"] = {**envelope.params, **request.params}
        if request.priority is not None:
            changes["priority"] = min(max(int(request.priority), 0), 9)
        if request.labels is not None:
            changes["labels"] = dict(request.labels)
        if request.timeout is not None:
            changes["timeout"] = float(request.timeout)
        if request.retries is not None:
            changes["retry"] = {**envelope.retry, "max": int(request.retries)}
        if request.requested_at:
            changes["requested_at"] = request.requested_at
        return envelope.but(**changes)

    def place(self, envelope: Envelope, *, at: float) -> Dispatch | Wait:
        """A run's first attempt for the best node, or the record with which it waits for a slot or a node."""
        slots = self._pools.enter(envelope.pools)
        if slots is None:
            return self.park(envelope, WaitReason.POOL.value, at=at, detail=self._pools.why(envelope.pools))
        dispatch = self.address(envelope, slots=slots)
        if dispatch is None:
            return self.park(envelope, WaitReason.NO_NODE.value, at=at, detail=self.why_nobody(envelope))
        return dispatch

    def address(self, envelope: Envelope, avoid: Collection[str] = (), *, slots: Sequence[str] = ()) -> Dispatch | None:
        """The attempt sealed for the best node (or the shared queue), at its place in the queue; None: nobody fits.

        `slots` are those promised to it; they are given back when nobody fits.
        """
        letter = self.letter(envelope, avoid, slots)
        if letter is None:
            self._pools.give_back(slots)
            return None
        return self._posted(*letter)

    def letter(
        self, envelope: Envelope, avoid: Collection[str] = (), slots: Sequence[str] = ()
    ) -> tuple[Envelope, bytes] | None:
        """The attempt addressed to the best node (or the shared queue), and its sealed message; None: nobody fits."""
        route = self._router.route(envelope, avoid)
        if route is None:
            return None
        told = envelope.but(
            queue=route.queue,
            incarnation=route.incarnation,
            why=route.why,
            expires_at=self._now() + EXPIRES,
            slots=list(slots),
        )
        return told, self._message(told)

    def post(self, told: Envelope, value: bytes) -> Dispatch:
        """A letter that was written before, at its place in the queue now."""
        self._router.promise(told)
        return self._posted(told, value)

    def _posted(self, told: Envelope, value: bytes) -> Dispatch:
        place = ids.place(told.priority, self._next(), told.run)
        return Dispatch(told, place, value, self._pools.seen(told.pools))

    def split(self, envelope: Envelope, *, at: float) -> Join:
        """The record of a run that is to be carried out in parts; of a broadcast, on the nodes that fit now.

        Raises `NotSplit` for a broadcast that no node fits, or too many.
        """
        nodes: list[str] = []
        if envelope.strategy == Strategy.BROADCAST:
            nodes, why = self._router.everyone(envelope)
            if not nodes:
                raise NotSplit(SkipReason.NO_NODE, self.why_nobody(envelope))
            if len(nodes) > MOST_NODES:
                raise NotSplit(SkipReason.ERROR, f"{len(nodes)} nodes fit; a broadcast goes to {MOST_NODES} at most")
            envelope = envelope.but(parts=len(nodes), why=why)
        return Join(envelope.run, self._sealed(envelope), envelope.parts, at, nodes)

    def part(self, told: Envelope, join: Join, number: int) -> Envelope:
        """The first attempt of one part of a run whose own envelope is `told`."""
        return told.but(
            run=ids.part_id(told.run, number),
            part=number,
            parts=join.total,
            node=join.nodes[number] if join.nodes else told.node,
            overlap="allow",
            awaited=False,
            late=0.0,
            missed="",
            idem="",
            chain="",
            cause="",
            chain_at=0.0,
            why="",
        )

    def again(self, envelope: Envelope) -> bytes:
        """The message of the same attempt for the same node, good for another while."""
        return self._message(envelope.but(expires_at=self._now() + EXPIRES))

    def park(self, envelope: Envelope, reason: str, *, at: float, due_at: float = 0.0, detail: str = "") -> Wait:
        """A run that has not had an attempt yet, as a waiting record."""
        return Wait(
            envelope.run, self._sealed(envelope), envelope.attempt - 1, reason, at, due_at=due_at, detail=detail
        )

    def _sealed(self, envelope: Envelope) -> str:
        """Sealed, and addressed to nobody."""
        return self._sealer.seal(envelope.but(queue="", incarnation="", slots=[]).brief()).decode()

    def open(self, sealed: str) -> Envelope:
        """The envelope behind a seal of a trusted centre. Raises `BadSeal` or `UnknownRecord`."""
        return Envelope.read(self._verifier.open(sealed))

    def why_nobody(self, envelope: Envelope) -> str:
        """Why `address` found nobody."""
        return self._router.explain(envelope)

    def taken(self, queue: Shared) -> bool:
        """Whether any node takes from this shared queue now."""
        return self._router.takers(queue.name, queue.kind) > 0

    def _next(self) -> int:
        """Microseconds by etcd's clock, strictly rising."""
        self._sequence = max(self._sequence + 1, int(self._now() * 1_000_000))
        return self._sequence

    def _message(self, told: Envelope) -> bytes:
        soft = hard = None
        if told.action.get("kind") == "python":
            # The runner keeps the timeout. A child that has an end to write waits for etcd as long as that may take.
            soft, hard = told.timeout, told.timeout + PATIENCE
        sealed = self._sealer.seal(told.brief()).decode()
        ident = f"{told.run}:{told.attempt}"
        return wire.task_message(
            TASK, ident, [sealed], {}, priority=told.priority, soft_limit=soft, hard_limit=hard, shown=told.name[:100]
        )


def allowed(task: str, imports: Iterable[str]) -> bool:
    """Whether a Celery task may be run by name: it lies in one of the modules the platform names."""
    return any(task.startswith(f"{module}.") for module in imports)
