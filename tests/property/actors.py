"""Who takes part: producers, consumers with a pool behind them, subscribers of broadcasts. Each on a link of its own.

Every actor is an incarnation of its own (a process start, as etcd sees it), in a thread or in a process. It uses Kombu
as a program would, and writes down what it is about to do before it does it.
"""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import kombu
from kombu.exceptions import ChannelError, OperationalError

from crony.errors import CronyError
from crony.etcd.errors import EtcdUnknown
from crony.etcd.txn import Txn, TxnResult
from crony.transport_etcd import hooks
from crony.transport_etcd.errors import CONNECTION_ERRORS
from crony.transport_etcd.link import Link, link_to
from crony.transport_etcd.options import of
from tests.property.history import Journal
from tests.property.plan import FAN, FETCHED, PRIORITIES, Plan, exchange_of

TROUBLE = (*CONNECTION_ERRORS, ChannelError, OperationalError, CronyError)
TIMEOUT = 1.0
"""Whole time of one request to etcd, seconds."""


POOL: set[str] = set()
"""Delivery tags of what the pools of this process work on."""


@dataclass(frozen=True)
class Habits:
    """How consumers deal with messages: each way by weight; how long work and connections take, seconds."""

    ways: dict[str, int] = field(
        default_factory=lambda: {"ack": 50, "later": 28, "requeue": 12, "reject": 5, "hold": 5}
    )
    work: tuple[float, ...] = (0.01, 0.05, 0.3, 2.5)
    connected: tuple[float, float] = (0.5, 4.0)
    prefetch: tuple[int, ...] = (1, 2, 5, 10, 40)
    holding: int = 2
    """Most messages of a connection that are never settled."""
    everything: bool = False
    """Consume every queue, not some of them."""


SLOW = Habits(
    {"later": 60, "requeue": 10, "hold": 30},
    work=(2.0, 3.0, 4.0, 5.0),
    connected=(5.0, 9.0),
    prefetch=(100,),
    holding=15,
    everything=True,
)
"""Much is held for long: there is always something to be taken over, and somebody late to settle it."""


def share_pool() -> None:
    """Tell the transport what the pools of this process have, as Celery's worker state does."""
    hooks.in_pool = lambda: frozenset(POOL.copy())


class Actor(threading.Thread):
    """One incarnation. `stop` and `join` end it; `killed` means: leave everything as it is."""

    def __init__(self, name: str, url: str, plan: Plan, journal: Journal, seed: int, ttl: float) -> None:
        super().__init__(name=name, daemon=True)
        self.url, self.plan, self.journal = url, plan, journal
        self.rng = random.Random(f"{name} {seed}")
        self.options = {"timeout": TIMEOUT, "session_ttl": ttl}
        self.stopping = threading.Event()
        self.killed = threading.Event()
        self.link: Link = link_to(of(self.connection()))
        self.hesitate = 0.0
        """How likely a request to etcd is held up before it leaves."""
        self.about = ""
        self._transports: list[Any] = []
        self._tap()

    def note(self, op: str, **facts: Any) -> None:
        """Write an entry."""
        self.journal.note(op, self.name, **facts)

    def connection(self) -> kombu.Connection:
        """A new connection."""
        return kombu.Connection(self.url, transport_options=self.options, connect_timeout=2)

    @property
    def incarnation(self) -> str:
        """The name of its session."""
        session = self.link.session_or_none
        return session.incarnation if session is not None else ""

    def _tap(self) -> None:
        """Hold up some requests, and note the publishes whose answer was lost."""
        real: Callable[..., TxnResult] = self.link.client.txn
        rng = random.Random(f"tap {self.name} {self.rng.random()}")

        def txn(sent: Txn, **options: Any) -> TxnResult:
            if self.hesitate and rng.random() < self.hesitate:
                time.sleep(rng.choice((0.001, 0.005, 0.02, 0.1)))
            try:
                return real(sent, **options)
            except EtcdUnknown:
                if self.about:
                    self.note("unanswered", id=self.about)
                raise

        self.link.client.txn = txn  # type: ignore[method-assign]

    def run(self) -> None:
        """Connect, work, connect again after every loss, until told to stop."""
        while not self.stopping.is_set():
            try:
                self.work()
            except TROUBLE as error:
                self.note("trouble", error=f"{type(error).__name__}: {error}"[:200])
                self.stopping.wait(0.05)
            except Exception as error:
                self.note("crashed", error=repr(error))
                raise

    def work(self) -> None:
        """One connection's worth of work."""
        raise AssertionError(f"{type(self).__name__} does not say what it works")

    def let_go(self) -> None:
        """End what the link does in the background, as the end of a process would."""
        self.link.client.close()
        self.link.settler._pending.clear()
        self.link.settler.close(0.0)
        self.link.publisher.outbox.close()
        for transport in self._transports:
            if transport._pump is not None:
                transport._pump.stop(0.0)


class Producer(Actor):
    """Publishes, one by one and in bursts, over two connections in turn."""

    number = 0
    pace = 0.008
    most = 10_000

    def work(self) -> None:
        """Publish until stopped."""
        with self.connection() as first, self.connection() as second:
            producers = [each.Producer() for each in (first, second)]
            while not self.stopping.is_set() and self.number < self.most:
                for _ in range(self.rng.choice((1, 1, 1, 2, 5, 15))):
                    self._publish(self.rng.choice(producers))
                self.stopping.wait(self.rng.expovariate(1 / self.pace))
            self.stopping.wait(0.05)

    def _publish(self, producer: Any) -> None:
        rng = self.rng
        self.number += 1
        exchange, key = self.plan.route(rng)
        ident, options = f"{self.name}.{self.number}", {"priority": rng.choice(PRIORITIES)}
        if rng.random() < 0.06:
            options["expiration"] = rng.choice((0.02, 0.3, 1.0))
        self.note("send", id=ident, exchange=exchange, key=key, **options)
        self.about = ident
        try:
            producer.publish(
                {"n": self.number},
                exchange=exchange_of(exchange) if exchange else "",
                routing_key=key,
                headers={"id": ident},
                retry=True,
                retry_policy={"max_retries": 2, "interval_start": 0.02, "interval_step": 0.1, "interval_max": 0.2},
                **options,
            )
        except TROUBLE as error:
            self.note("doubt", id=ident, error=f"{type(error).__name__}: {error}"[:200])
        else:
            self.note("sent", id=ident)
        finally:
            self.about = ""


class Consumer(Actor):
    """Consumes some queues: acknowledges now, later from a pool, or never; gives back, drops, cancels, reconnects."""

    habits = Habits()
    gentle = False
    """Only acknowledge: to empty the queues at the end."""

    def __init__(self, *told: Any, **named: Any) -> None:
        super().__init__(*told, **named)
        self._late: list[tuple[float, int, Any]] = []
        self._change = threading.Condition()
        self._last = threading.Event()
        self._turn = 0
        self._holding = 0
        self._pool = threading.Thread(target=self._work_off, name=f"{self.name}-pool", daemon=True)
        self._pool.start()

    def work(self) -> None:
        """One connection."""
        rng = self.rng
        connection = self.connection()
        self._holding = 0
        try:
            channel = connection.channel()
            channel.basic_qos(0, rng.choice(self.habits.prefetch) if not self.gentle else 100, False)
            consumers = [self._consume(channel, queue) for queue in self._queues()]
            self._transports.append(connection.transport)
            self.note("open", incarnation=self.incarnation)
            until = time.monotonic() + (rng.uniform(*self.habits.connected) if not self.gentle else 1e9)
            while not self.stopping.is_set() and time.monotonic() < until:
                try:
                    connection.drain_events(timeout=0.05)
                except TimeoutError:
                    pass
                if not self.gentle and rng.random() < 0.05:
                    self._something_else(channel, consumers)
        finally:
            if not self.killed.is_set():
                self.note("close", incarnation=self.incarnation)
                connection.release()
                if self.link.settler.flush(0):
                    self.note("flushed", revision=self.link.client.revision)

    def _queues(self) -> list[str]:
        queues = list(self.plan.queues)
        return (
            queues
            if self.gentle or self.habits.everything
            else self.rng.sample(queues, self.rng.randint(1, len(queues)))
        )

    def _consume(self, channel: Any, queue: str) -> Any:
        self._turn += 1
        tag = f"{self.name}/{self._turn}"
        consumer = kombu.Consumer(
            channel,
            [kombu.Queue(queue, routing_key=queue)],
            on_message=partial(self._on_message, queue, tag),
            auto_declare=False,
            tag_prefix=tag,
        )
        consumer.consume()
        return consumer

    def _something_else(self, channel: Any, consumers: list[Any]) -> None:
        rng = self.rng
        match rng.choice(("qos", "cancel", "get", "take", "recover")):
            case "qos":
                channel.basic_qos(0, rng.choice(self.habits.prefetch), False)
            case "cancel" if consumers:
                consumer = consumers.pop(rng.randrange(len(consumers)))
                queue = consumer.queues[0].name
                self.note("cancel", queue=queue)
                consumer.cancel()
                if rng.random() < 0.8:
                    consumers.append(self._consume(channel, queue))
            case "get":
                queue = rng.choice(self.plan.queues)
                message = channel.basic_get(queue)
                if message is not None:
                    self._turn += 1
                    self._on_message(queue, f"{self.name}/get{self._turn}", message)
            case "take":
                self.note("taking", queue=FETCHED)
                message = channel.basic_get(FETCHED, no_ack=True)
                got = {"place": message.delivery_tag, "id": message.headers["id"]} if message is not None else {}
                self.note("taken", queue=FETCHED, **got)
            case "recover" if not self._late:
                self.note("close", incarnation=self.incarnation)
                channel.basic_recover(requeue=True)

    def _on_message(self, queue: str, tag: str, message: Any) -> None:
        facts, rng = message.properties["crony"], self.rng
        about = {"queue": queue, "place": facts["place"], "fence": facts["fence"]}
        self.note(
            "deliver",
            **about,
            id=message.headers["id"],
            consumer=tag,
            count=facts["count"],
            incarnation=facts["incarnation"],
            redelivered=message.delivery_info["redelivered"],
        )
        if self.gentle:
            self._settle("ack", about, message)
            return
        ways = self.habits.ways
        what = rng.choices(list(ways), list(ways.values()))[0]
        if what == "hold" and self._holding < self.habits.holding:
            self._holding += 1
        elif what in ("hold", "later"):
            self._work_on(about, message)
        else:
            self._settle(what, about, message)

    def _work_on(self, about: dict[str, Any], message: Any) -> None:
        """Hand it to the pool, which acknowledges it when it is done."""
        POOL.add(message.delivery_tag)
        self.note("pooled", **about)
        with self._change:
            due = time.monotonic() + self.rng.choice(self.habits.work)
            heapq.heappush(self._late, (due, id(message), (about, message)))
            self._change.notify()

    def _settle(self, what: str, about: dict[str, Any], message: Any) -> None:
        self.note(what, **about)
        getattr(message, what)()
        self.note("told", **about)

    def _work_off(self) -> None:
        """The pool: acknowledges when the work is done, whatever became of the connection meanwhile."""
        while not self.killed.is_set():
            with self._change:
                while not self._late or self._late[0][0] > time.monotonic():
                    self._change.wait(0.05)
                    if self.killed.is_set() or (self._last.is_set() and not self._late):
                        return
                about, message = heapq.heappop(self._late)[2]
            try:
                self._settle("ack", about, message)
            except TROUBLE as error:
                self.note("trouble", error=f"{type(error).__name__}: {error}"[:200])
            POOL.discard(message.delivery_tag)

    def finish(self, timeout: float) -> None:
        """After `join`: wait until the pool is done; everything was settled or given back."""
        self._last.set()
        self._pool.join(timeout)
        if self.link.settler.flush(timeout):
            self.note("flushed", revision=self.link.client.revision)


class Subscriber(Actor):
    """Listens to broadcasts with an exclusive queue, bound for a while before it consumes."""

    turn = 0
    patient = False
    """One subscription for the whole run."""

    def work(self) -> None:
        """One subscription."""
        rng = self.rng
        self.turn += 1
        name = f"x.{self.name}.{self.turn}"
        with self.connection() as connection:
            queue = kombu.Queue(name, exchange_of(FAN), exclusive=True, auto_delete=True, durable=False)
            channel = connection.channel()
            queue(channel).declare()
            self.stopping.wait(rng.choice((0.0, 0.1, 0.4)))
            on_message = partial(self._on_message, name)
            consumer = kombu.Consumer(channel, [queue], on_message=on_message, no_ack=True, auto_declare=False)
            consumer.consume()
            until = time.monotonic() + (rng.uniform(0.5, 5.0) if not self.patient else 1e9)
            while not self.stopping.is_set() and time.monotonic() < until:
                try:
                    connection.drain_events(timeout=0.05)
                except TimeoutError:
                    pass

    def _on_message(self, name: str, message: Any) -> None:
        self.note("heard", queue=name, id=message.headers["id"])


__all__ = ["POOL", "SLOW", "TIMEOUT", "TROUBLE", "Actor", "Consumer", "Habits", "Producer", "Subscriber", "share_pool"]
