"""Executing one delivered run message: verify, run, end. Called by the Celery task `crony.run`, in the pool.

Nothing in the message is believed before its seal was opened. When this returns, the attempt has its outcome in etcd
(or its claim was somebody else's by then), so Celery's acknowledgement afterwards means nothing.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from dataclasses import replace
from typing import Any

from crony.domain.callback import Token
from crony.domain.ids import place_ident
from crony.domain.loss import Next, after_loss
from crony.domain.outcome import Kind
from crony.domain.queues import Shared, read_shared
from crony.domain.record import UnknownRecord
from crony.domain.run import Accepted, Envelope
from crony.domain.signing import BadSeal
from crony.errors import CronyError
from crony.etcd.keys import is_run_queue
from crony.lifecycle.accept import CancelOrdered, accept
from crony.lifecycle.end import Ended, Stale, outcome_of
from crony.lifecycle.handback import hand_back
from crony.lifecycle.permit import permit, starting
from crony.lifecycle.quarantine import quarantine
from crony.workers import ending, runners, secrets
from crony.workers.attempt import Attempt, Held, Verdict
from crony.workers.calling import Callback
from crony.workers.cutoff import Guard
from crony.workers.interrupt import INTERRUPTER
from crony.workers.process import Process, current
from crony.workers.tally import TALLY

log = logging.getLogger("crony.worker")


class Starts:
    """Which attempts of this process have begun, and which must not any more: decided once for each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun: set[Held] = set()
        self._withdrawn: set[Held] = set()

    def begin(self, held: Held) -> bool:
        """It begins; False when it was withdrawn."""
        with self._lock:
            self._begun.add(held)
            return held not in self._withdrawn

    def end(self, held: Held) -> None:
        """It is over."""
        with self._lock:
            self._begun.discard(held)

    @property
    def under_way(self) -> int:
        """How many have begun and are not over."""
        return len(self._begun)

    def withdraw(self, held: Held) -> bool:
        """It shall not begin; False when it has."""
        with self._lock:
            if held in self._begun:
                return False
            self._withdrawn.add(held)
            return True


STARTS = Starts()
CUT = "stopped, because its node was cut off from etcd"
NOT_STARTED = Verdict(Kind.CANCELLED, "cancelled before it started")
NO_CALLBACK = "this node cannot say where to call back: it needs CRONY_API or CRONY_API_PUBLIC"


class Bad(CronyError):
    """The message must not be acted on: it goes to quarantine."""


class Elsewhere(CronyError):
    """A genuine message for an earlier start of this node: its attempt is handed back, unstarted."""


def execute(task_id: str, properties: Any, sealed: str) -> None:
    """Execute the attempt that `sealed` names, which was delivered with `properties`. Raises nothing of its own."""
    held = Held.read(properties.get("crony")) if isinstance(properties, dict) else None
    if held is None or not is_run_queue(held.queue):
        log.error("a run message came by another way than a run queue of Crony's transport; it is not executed")
        return
    try:
        if STARTS.begin(held):
            _execute(current(), held, task_id, sealed)
    finally:
        STARTS.end(held)


def _execute(process: Process, held: Held, task_id: str, sealed: str) -> None:
    try:
        envelope = verify(process, held, task_id, sealed)
    except Bad as bad:
        set_aside(process, held, str(bad))
        return
    except Elsewhere as elsewhere:
        give_back(process, held, sealed, str(elsewhere))
        return
    with INTERRUPTER.attempt() if INTERRUPTER.can_stop else contextlib.nullcontext():
        _Execution(process, held, sealed, envelope).go()


def verify(process: Process, held: Held, task_id: str, sealed: str) -> Envelope:
    """The envelope, if a trusted centre sealed it for this queue, place and attempt. Raises `Bad`, `Elsewhere`."""
    envelope = opened(process, sealed)
    if envelope.queue != held.queue:
        raise Bad(f"it was sealed for queue {envelope.queue!r} and came from {held.queue!r}")
    if envelope.run != place_ident(held.place):
        raise Bad(f"it was sealed for run {envelope.run!r} and lies at the place of another")
    if task_id != f"{envelope.run}:{envelope.attempt}" or envelope.attempt < 1:
        raise Bad(f"it was sealed for attempt {envelope.attempt} and came as {task_id!r}")
    now = process.now()
    if envelope.expires_at and now > envelope.expires_at:
        raise Bad(f"it expired {now - envelope.expires_at:.0f} s ago")
    shared = read_shared(held.queue)
    if shared is not None:
        _check_shared(process, shared, envelope)
    elif envelope.incarnation != held.incarnation:
        raise Elsewhere("sent to an earlier start of this node")
    return envelope


def _check_shared(process: Process, shared: Shared, envelope: Envelope) -> None:
    """A message of a shared queue is for whoever takes from it, and for nobody else."""
    settings = process.settings
    if envelope.incarnation:
        raise Bad("it was sealed for one node and lies in a queue of many")
    if envelope.action.get("kind") != shared.kind:
        raise Bad(f"it is a {envelope.action.get('kind')} job and lies in a queue of {shared.kind} jobs")
    if shared.name not in settings.node_queues or shared.kind not in runners.kinds(settings):
        raise Bad(f"this node does not take {shared.kind} jobs from the queue {shared.name}")


def opened(process: Process, sealed: str) -> Envelope:
    """The envelope behind the seal. Raises `Bad`."""
    try:
        return Envelope.read(process.verifier.open(sealed))
    except (BadSeal, UnknownRecord) as error:
        raise Bad(str(error)) from None


def set_aside(process: Process, held: Held, reason: str) -> None:
    """Quarantine the message; repeated until etcd answers. Raises nothing."""
    TALLY.add("quarantined")
    log.error(
        "ALARM: message %s of queue %s must not be executed and is quarantined: %s", held.place, held.queue, reason
    )
    client, node = process.client, process.settings.node_name
    ending.persist(
        lambda: quarantine(
            client, process.keys, held.queue, held.place, held.fence, reason, node=node, at=process.now()
        ),
        f"the quarantine of {held.place}",
    )


def give_back(process: Process, held: Held, sealed: str, reason: str, *, delivered: bool = False) -> bool:
    """Hand an unstarted attempt back to the leader; repeated until etcd answers. False: its claim is not ours any more.

    `delivered`: its process had it and died, which counts against the limit of deliveries. Raises `Bad`.
    """
    client, node = process.client, process.settings.node_name
    told = opened(process, sealed)
    log.info("run %s attempt %d is handed back: %s", told.run, told.attempt, reason)
    if delivered:
        told = replace(told, deliveries=told.deliveries + 1)
    handed = ending.persist(
        lambda: hand_back(
            client, process.keys, told, sealed, held.place, held.fence, at=process.now(), detail=reason, node=node
        ),
        f"handing back run {told.run}",
    )
    return handed is True


class _Execution:
    """One attempt from its first instruction to its outcome."""

    def __init__(self, process: Process, held: Held, sealed: str, envelope: Envelope) -> None:
        self._process, self._sealed, self._envelope = process, sealed, envelope
        output = process.spool.open(envelope.run, envelope.attempt, held.incarnation, envelope.output_limit)
        self._attempt = Attempt(envelope, held, output, process)
        self._attempt.finishes_with(self._end)
        self._token: Token | None = None
        self._gone: tuple[str, ...] = ()
        """Keys that go with the end."""
        self._started_at: float | None = None
        self._began = 0.0

    def go(self) -> None:
        """Run it and end it."""
        attempt, run = self._attempt, self._envelope.run
        self._process.cancels.register(run, attempt.cancel)
        with contextlib.ExitStack() as stack:
            stack.callback(self._process.cancels.forget, run, attempt.cancel)
            verdict = self._run(stack)
        if verdict is None:
            attempt.output.close()
        elif not attempt.finish(verdict):
            log.warning("run %s attempt %d came back after it had been ended", run, self._envelope.attempt)

    def _run(self, stack: contextlib.ExitStack) -> Verdict | None:
        """How it went; None: it was not allowed to start, and is not ours to end."""
        attempt = self._attempt
        if attempt.cancelled:
            return NOT_STARTED
        kind = str(self._envelope.action.get("kind", ""))
        runner = runners.find(kind, self._process.settings)
        if runner is None:
            return Verdict(Kind.REFUSED, f"this node does not run {kind or 'such'} jobs")
        if self._envelope.asynchronous:
            if not self._process.settings.callback_api:
                return Verdict(Kind.REFUSED, NO_CALLBACK)
            self._token = Token.new(attempt.held.queue, attempt.held.place)
        if self._envelope.secrets:
            try:
                attempt.open(secrets.resolve(self._process.client, self._process.keys, self._process.cipher,
                                             self._envelope.secrets))  # fmt: skip
            except secrets.NoSecret as error:
                return Verdict(Kind.REFUSED, f"not started: {error}")
            stack.enter_context(secrets.hidden(attempt.mask))
        if self._envelope.needs_permit:
            if not self._permitted(self._token.digest if self._token else ""):
                return None
            if attempt.cancelled:
                return NOT_STARTED
        self._started_at, self._began = self._process.now(), time.monotonic()
        if self._token is not None:
            token, api = self._token.under(attempt.held.fence), self._process.settings.callback_api
            attempt.callback = Callback.of(self._envelope, token, api=api, now=self._started_at)
        guard = self._guard()
        try:
            return runner(attempt)
        except Exception as error:
            log.exception("the %s runner failed on run %s", kind, self._envelope.run)
            return Verdict(Kind.FAILED, f"the {kind} runner failed: {type(error).__name__}: {error}"[:300])
        finally:
            if guard is not None:
                guard.close()

    def _guard(self) -> Guard | None:
        """Stops work that must not go on when its node is cut off, in time to be gone before anybody takes it over."""
        if self._envelope.on_cut != "stop":
            return None
        patience = max(0.5, self._process.settings.grace - 1.0)
        return Guard(self._process.alarms, lambda: self._attempt.cut(patience))

    def _permitted(self, secret: str = "") -> bool:
        """Take the durable permit (9), however long etcd takes to answer. False: never start.

        `secret`: hash of the secret that an asynchronous callee will answer with.
        """
        process, held, told = self._process, self._attempt.held, self._envelope
        claim = starting(held.incarnation, held.count, node=process.settings.node_name, at=process.now(), secret=secret)
        fence = ending.persist(
            lambda: permit(
                process.client, process.keys, held.queue, held.place, held.fence, claim, commit=process.commit
            ),
            f"the permit of run {told.run} attempt {told.attempt}",
        )
        if fence is None:
            log.warning("run %s attempt %d does not start: its claim is not ours any more", told.run, told.attempt)
            return False
        self._attempt.permitted(fence)
        return True

    def _ended_at(self) -> float:
        """Now; the duration is the monotonic clock's, whatever became of the wall clock."""
        if self._started_at is None:
            return self._process.now()
        return self._started_at + time.monotonic() - self._began

    def _end(self, verdict: Verdict) -> None:
        self._attempt.output.close()
        if self._attempt.progress is not None and self._attempt.progress.close():
            self._gone = (self._process.keys.run_beat(self._envelope.run),)
        if verdict.accepted:
            verdict = self._accept() or verdict
        if not verdict.accepted:
            self._settle(verdict)

    def _accept(self) -> Verdict | None:
        """Leave the run to its callee (11); the verdict to end it with instead, if it cannot be left."""
        process, held, told, callback = self._process, self._attempt.held, self._envelope, self._attempt.callback
        if callback is None:
            return Verdict(Kind.FAILED, "it was to be answered later, and its job has no `async` section")
        record = Accepted(
            run=told.run,
            envelope=self._sealed,
            attempt=told.attempt,
            fence=held.fence,
            secret=callback.token.digest,
            deadline_at=callback.deadline_at,
            heartbeat=callback.heartbeat,
            node=process.settings.node_name,
            incarnation=held.incarnation,
            at=self._ended_at(),
            started_at=self._started_at,
        )
        found = ending.persist(
            lambda: accept(process.client, process.keys, told, held.place, record, commit=process.commit),
            f"the acceptance of run {told.run} attempt {told.attempt}",
        )
        if isinstance(found, CancelOrdered):
            return Verdict(Kind.CANCELLED, "cancelled when its callee accepted it")
        if isinstance(found, Stale):
            ending.stale(found, told.run, told.attempt, "accepted")
        return None

    def _settle(self, verdict: Verdict) -> None:
        process, held = self._process, self._attempt.held
        follows: dict[str, bool] = {"final": True} if verdict.final else {}
        if self._attempt.was_cut and verdict.kind is Kind.CANCELLED:
            verdict = replace(verdict, kind=Kind.LOST, reason=CUT)
            after = after_loss(self._envelope, started=True)
            follows = {"final": after is Next.END, "held": after is Next.HOLD}
        outcome = outcome_of(
            self._envelope,
            verdict.kind,
            ended_at=self._ended_at(),
            fence=held.fence,
            reason=verdict.reason,
            code=verdict.code,
            result=verdict.result,
            retry_after=verdict.retry_after,
            node=process.settings.node_name,
            incarnation=held.incarnation,
            started_at=self._started_at,
            **follows,
            secret=self._token.digest if self._token else "",
        )
        found = ending.settle(
            process.client,
            process.keys,
            self._sealed,
            held.place,
            held.fence,
            outcome,
            told=self._envelope,
            commit=process.commit,
            gone=self._gone,
        )
        if isinstance(found, Ended):
            ending.ENDS.add(held)
