"""The node's place in etcd: its record under the process's session, its load, and what people ordered for it.

The record says what the node can do and how busy it is; it is renewed every few seconds. A node that drains (being
stopped, or told to) or is cut from etcd claims nothing; what it runs goes on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import crony
from crony.domain.node import ABILITIES, NodeControl, NodeFacts
from crony.domain.queues import node_of, own, shared
from crony.domain.record import UnknownRecord
from crony.errors import Conflict, CronyError, Forbidden, Halted
from crony.etcd.client import KV, Client
from crony.etcd.keys import is_run_queue
from crony.etcd.session import Session, process_session
from crony.etcd.watch import Event, Watcher
from crony.lifecycle.register import boot_id, register
from crony.lifecycle.watermark import Watermark
from crony.workers import machine
from crony.workers.cutoff import CUTOFF
from crony.workers.loopwatch import LoopWatch
from crony.workers.process import Process
from crony.workers.runners import kinds
from crony.workers.spool import directory
from crony.workers.tally import TALLY

log = logging.getLogger("crony.worker")

EVERY = 5.0
"""Seconds between two renewals of the record."""
LOOK = 15.0
"""Seconds between two looks at whether etcd is still what it was."""


class Liveness:
    """One node in etcd. `capacity` and `running` are asked at each renewal."""

    def __init__(self, process: Process, *, capacity: Callable[[], int], running: Callable[[], int]) -> None:
        settings = process.settings
        self.name, self.queue = settings.node_name, own(settings.node_name)
        self.shared = [shared(name, kind) for name in settings.node_queues for kind in kinds(settings)]
        """Shared queues it takes from."""
        self._process, self._capacity, self._running = process, capacity, running
        self._session: Session | None = None
        self._stopping = self._drained = self._taken = self._told_stopping = False
        self._spared = settings.node_weight == 0
        """It gets no new work, but keeps what it has: nothing more from shared queues."""
        self._changed, self._closed = threading.Event(), threading.Event()
        self._started_at = self._look_at = 0.0
        kept = settings.spool_dir or settings.state_dir
        self._watermark = Watermark(str(directory(settings)) if kept else "", process.keys)
        self._halted = False
        self.loop = LoopWatch(settings.node_stuck)
        self.states: Callable[[], dict[str, float]] = dict
        """How the parts of the node stand that it does not know itself, for its figures."""
        self.on_stop: Callable[[], None] = lambda: None
        """Called from the node's own thread when it is being stopped."""
        self._thread = threading.Thread(target=self._renew, name="crony-liveness", daemon=True)
        key = process.keys.nodectl(self.name)
        self._orders = Watcher(
            process.client, key, None, on_snapshot=self._told, on_events=self._ordered, name="crony-nodectl"
        )

    @property
    def incarnation(self) -> str:
        """Id of this process start; empty before `join`."""
        return self._session.incarnation if self._session is not None else ""

    @property
    def draining(self) -> bool:
        """No new work: the node is being stopped, or people said so."""
        return self._stopping or self._drained

    @property
    def alive(self) -> bool:
        """Whether etcd certainly still knows this process."""
        return self._session is not None and self._session.alive

    def join(self, wait: Callable[[float], None]) -> None:
        """Register under the process's session. `wait(seconds)` is called between tries and may raise to give up.

        Raises `Conflict` when another live process has the name, `Forbidden` when etcd refuses us, `Halted`.
        """
        process, settings = self._process, self._process.settings
        self._session = process_session(process.client, process.keys, settings.node_ttl)
        CUTOFF.renewed(time.monotonic() + self._session.left)
        self._session.renewed = CUTOFF.renewed
        self._session.may_renew = lambda: not self.loop.stuck
        while True:
            try:
                self._watermark.begin(process.client)
                self._started_at = self._started_at or process.now()
                register(
                    process.client, process.keys, self._session, self.facts(), patience=settings.node_ttl + 2, wait=wait
                )
                break
            except (Conflict, Forbidden, Halted):
                raise
            except CronyError as error:
                log.warning("this node cannot register yet: %s", error)
                wait(0.5)
        self._orders.start()
        self._orders.synced(2.0)
        self._thread.start()
        log.info("node %s is registered as %s", self.name, self.incarnation)

    def facts(self) -> NodeFacts:
        """What the node says of itself."""
        settings = self._process.settings
        return NodeFacts(
            name=self.name,
            incarnation=self.incarnation,
            queue=self.queue,
            hostname=socket.gethostname(),
            pid=os.getpid(),
            boot_id=boot_id(),
            version=crony.__version__,
            capacity=self._capacity(),
            weight=settings.node_weight,
            labels=dict(settings.node_labels),
            kinds=kinds(settings),
            queues=list(settings.node_queues),
            secret_keys=list(self._process.cipher.key_ids),
            running=self._running(),
            started_at=self._started_at,
            seen_at=self._process.now(),
            draining=self._stopping,
            machine=machine.state(str(directory(settings))),
            versions=machine.versions(),
            figures=self._figures(),
            can=list(ABILITIES),
        )

    def _figures(self) -> dict[str, Any]:
        counts = {name: {"": number} for name, number in TALLY.counts().items()}
        return {"c": counts, "s": {name: {"": value} for name, value in self.states().items()}}

    def may_claim(self, queue: str) -> bool:
        """The transport's hook: whether to claim from a queue now."""
        if self._stopping or self._halted or self._session is None or not self._session.alive or self.loop.stuck:
            return False
        if not is_run_queue(queue):
            return True
        return not (self._drained or self._taken or (self._spared and not node_of(queue)))

    def stop_claiming(self) -> None:
        """The node is being stopped: nothing new, and the leader hears of it. Only sets flags (signal handlers)."""
        self._stopping = True
        self.loop.pause()
        self._changed.set()

    def close(self) -> None:
        """Leave: record and session go, what is still held in its name becomes free at once."""
        self._stopping = True
        self._closed.set()
        self._changed.set()
        self._orders.stop()
        if self._thread.is_alive():
            self._thread.join(self._process.client.timeout + 1)
        if self._session is not None:
            ours = self._session.holds(self._process.keys.node(self.name))
            if ours and self._session.alive and not self._told_stopping:
                with contextlib.suppress(CronyError):
                    self._publish()  # or the leader would take the node for lost
            self._session.close()

    # -- inside --------------------------------------------------------------------------------

    def _renew(self) -> None:
        told, process = time.monotonic(), self._process
        while not self._closed.is_set():
            self._changed.wait(max(0.0, EVERY - (time.monotonic() - told)))
            self._changed.clear()
            told = time.monotonic()
            if self._closed.is_set():
                return
            try:
                if self._stopping:
                    self.on_stop()
                if self._halted:
                    self._look_again()
                    continue
                if told >= self._look_at:
                    self._look_at = told + LOOK
                    self._watermark.look(process.client)
                self._publish()
            except Halted as error:
                self._halt(error)
            except CronyError as error:
                log.debug("the node's record could not be renewed: %s", error)
            except Exception:
                log.exception("the node's record could not be renewed")

    def _halt(self, error: Halted) -> None:
        """Take nothing more: what lies in etcd may have been done already. What runs goes on."""
        log.critical("this node takes no work: %s", error)
        self._halted = True
        self._process.client.halt(error)

    def _look_again(self) -> None:
        """When somebody has recovered etcd, stop: whoever supervises this process starts it anew."""
        with Client.from_settings(self._process.settings) as client:
            if self._watermark.recovered(client):
                log.warning("etcd was recovered: this node stops, to be started anew")
                os.kill(os.getpid(), signal.SIGTERM)

    def _publish(self) -> None:
        session, process = self._session, self._process
        assert session is not None
        key = process.keys.node(self.name)
        if session.holds(key):
            facts = self.facts()
            session.update(key, facts.encode())
            self._told_stopping = facts.draining
            return
        if not self._taken:
            log.error("another process took the name %s while this one was cut off; it claims nothing now", self.name)
        self._taken = True
        try:
            register(process.client, process.keys, session, self.facts(), patience=0)
        except Conflict:
            return
        self._taken = False
        log.info("node %s is registered again", self.name)

    def _told(self, found: list[KV], revision: int) -> None:
        self._obey(found[0].value if found else None)

    def _ordered(self, events: list[Event], revision: int) -> None:
        self._obey(events[-1].value if events[-1].kind == "put" else None)

    def _obey(self, value: bytes | None) -> None:
        try:
            control = NodeControl.read(value) if value is not None else NodeControl()
        except UnknownRecord:
            control = NodeControl(drain=True)  # orders we cannot read: the careful reading
        weight = self._process.settings.node_weight if control.weight is None else control.weight
        drained, spared = control.drain, control.cordoned or weight == 0
        if spared != self._spared:
            log.info("node %s takes %s from shared queues", self.name, "nothing more" if spared else "runs again")
        self._spared = spared
        if drained != self._drained:
            log.info("node %s %s", self.name, "is drained: no new runs" if drained else "takes runs again")
        self._drained = drained
