"""Queues, declared, bound, used, deleted. Run queues exist by themselves and are left alone."""

from __future__ import annotations

import logging
import time
from typing import Literal

from crony.errors import CronyError
from crony.etcd.client import KV, Client
from crony.etcd.keys import Keys, is_run_queue, prefix_end
from crony.etcd.session import Session
from crony.etcd.txn import Txn, absent, lease, mod, vacant
from crony.transport_etcd.declared import Declared
from crony.transport_etcd.errors import BrokerUnavailable, locked, not_equivalent, precondition
from crony.transport_etcd.exchange import Binding, Tables
from crony.transport_etcd.remembered import Remembered

log = logging.getLogger("crony.transport")

KNOWN_FOR = 30.0
"""How long what was read of a queue that somebody else declared is believed, seconds."""
_TRIES = 20
_MANY_BINDINGS = 90

Standing = Literal["created", "found", "known"]
"""What a declaration met: nothing; the queue; what we have declared ourselves lately, so etcd was not asked."""


class Queues(Remembered):
    """The queues of a namespace, and what this process declared. Thread-safe."""

    def __init__(self, client: Client, keys: Keys, tables: Tables) -> None:
        """Parts of the link."""
        super().__init__(keys)
        self._client, self._tables = client, tables

    # -- declaring -----------------------------------------------------------------------------------

    def declare(self, queue: str, declared: Declared, session: Session | None) -> Standing:
        """Create the queue unless it is there; an exclusive one is leased to `session`.

        Raises `PreconditionFailed` for arguments that cannot be, `NotEquivalent`, `Locked`.
        """
        if is_run_queue(queue):
            return "found"
        declared.check(queue)
        with self._turn(queue):
            if self._declared.get(queue) == declared and self._lately(queue, declared, session):
                return "known"
            if declared.leased:
                created = self._lease(queue, declared, session)
            else:
                created = self._create(queue, declared)
            with self._lock:
                if created:
                    self._bound.pop(queue, None)
                self._declared[queue] = declared
                self._known.add(queue)
                self._renewed[queue] = time.monotonic()
        return "created" if created else "found"

    def _create(self, queue: str, declared: Declared) -> bool:
        key, value = self._keys.queue_record(queue), declared.encode()
        for _ in range(_TRIES):
            txn = Txn(idempotent=True).when(mod(key, 0)).put(key, value)
            txn.otherwise.get(key)
            result = self._client.txn(txn)
            if result.succeeded:
                return True
            if not result.responses[0]:
                continue
            found: KV = result.responses[0][0]
            stored = Declared.read(found.value)
            if stored.exclusive and found.lease:
                raise locked(queue)
            if not stored.implicit:
                difference = stored.difference(declared)
                if difference:
                    raise not_equivalent(f"queue {queue!r} exists and {difference}")
                if not declared.volatile:
                    return False
                value = found.value  # put again: it is in use
            if self._client.txn(Txn().when(mod(key, found.mod)).put(key, value)).succeeded:
                return False
        raise CronyError(f"the queue {queue!r} changes too fast", hint="try again")

    def _lease(self, queue: str, declared: Declared, session: Session | None) -> bool:
        key, value = self._keys.queue_record(queue), declared.encode()
        if session is not None and session.attach(key, value, guard=absent(key)):
            return True
        found = self._client.get(key) if session is not None else None
        if found is not None and session is not None:
            stored = Declared.read(found.value)
            if found.lease and found.lease != session.lease:
                if stored.difference(declared):
                    raise locked(queue)
                # A node that was killed comes back before its lease has ended, or two nodes have one name: the number
                # of consumers tells Celery, which warns. Refusing would keep the first kind from starting.
                log.warning("queue %s is exclusive to another process; if that is alive, both use it now", queue)
            elif not found.lease and not stored.implicit and not self._replaceable(queue, stored, found.mod):
                raise not_equivalent(f"queue {queue!r} exists and {stored.difference(declared)}")
        if session is None or not session.attach(key, value):
            raise BrokerUnavailable(f"the exclusive queue {queue!r} cannot be leased: the session is lost")
        return False

    def _replaceable(self, queue: str, stored: Declared, revision: int) -> bool:
        """Whether an old transient queue was empty and unused, and is gone now: nobody loses anything by a new one.

        RabbitMQ refuses here; Kombu's `SimpleBuffer` declares one name both ways.
        """
        return not stored.durable and self.delete(queue, None, if_unused=True, if_empty=True, seen=revision) is not None

    def exists(self, queue: str) -> bool:
        """Whether the queue is there."""
        return is_run_queue(queue) or self._client.get(self._keys.queue_record(queue)) is not None

    def learn(self, queue: str) -> Declared:
        """As `declared`, but asks etcd about a queue that this process did not declare, every now and then."""
        if is_run_queue(queue) or queue in self._declared:
            return self.declared(queue)
        now = time.monotonic()
        known = self._learned.get(queue)
        if known is None or now - known[1] > KNOWN_FOR:
            stored = self._client.get(self._keys.queue_record(queue))
            known = (Declared.read(stored.value) if stored is not None else Declared(), now)
            with self._lock:
                self._learned[queue] = known
        return known[0]

    def creation(self, queue: str) -> Txn:
        """What makes the record of a queue nobody has declared: a durable one."""
        key = self._keys.queue_record(queue)
        return Txn().when(absent(key)).put(key, Declared(implicit=True).encode())

    def use(self, queue: str, *, consume: bool = False) -> Declared:
        """Somebody uses a queue that would be deleted if nobody did: put its record again.

        A consumer's queue may have gone between its declaration and this, with another's last consumer: it is made
        again, with the bindings that this process had made. Returns what is declared of it.
        """
        if not consume:
            declared = self.learn(queue)
            if not declared.volatile or self._lately(queue, declared, None):
                return declared
        with self._turn(queue):
            declared, ghost = self.learn(queue), None
            if consume and queue not in self._declared:
                ghost = self._ghosts.get(queue)
            if ghost is not None:
                declared = ghost[0]
            if declared.volatile:
                self._renew(queue, declared, ghost[1] if ghost is not None else None, consume)
            return declared

    def _renew(self, queue: str, declared: Declared, ghost: set[tuple[str, str]] | None, consume: bool) -> None:
        key = self._keys.queue_record(queue)
        for _ in range(_TRIES):
            stored = self._client.get(key)
            value = Declared.read(stored.value) if stored is not None else declared
            txn = Txn().when(mod(key, stored.mod if stored else 0))
            if not self._client.txn(txn.put(key, (value.used() if consume else value).encode())).succeeded:
                continue
            with self._lock:
                self._renewed[queue] = time.monotonic()
                if ghost is not None:
                    self._declared[queue] = declared
                    self._bound.setdefault(queue, set()).update(ghost)
                bound = tuple(self._bound.get(queue, ()))
            for exchange, routing_key in bound if stored is None or ghost is not None else ():
                self._tables.bind(exchange, Binding(queue, routing_key, declared.exclusive, declared.ttl))
            break

    # -- bindings ------------------------------------------------------------------------------------

    def bind(self, queue: str, exchange: str, routing_key: str, session: Session | None) -> None:
        """Bind the queue; binding again does nothing."""
        with self._turn(queue):
            self._bind(queue, exchange, routing_key, session)

    def _bind(self, queue: str, exchange: str, routing_key: str, session: Session | None) -> None:
        pair = (exchange, routing_key)
        declared = self.learn(queue)
        binding = Binding(queue, routing_key, declared.exclusive, declared.ttl)
        if declared.leased and session is not None:
            key = self._keys.binding(exchange, queue, routing_key)
            if pair in self._bound.get(queue, ()) and session.holds(key):
                return
            if not session.attach(key, binding.encode()):
                raise BrokerUnavailable(f"queue {queue!r} cannot be bound: the session is lost")
            stored = self._client.get(key)
            if stored is None:  # listening from the beginning instead would tell what was said to others before
                raise BrokerUnavailable(f"queue {queue!r} cannot be bound: the session was lost meanwhile")
            self._since[(queue, exchange)] = stored.mod
            self._tables.touch(exchange)
        else:
            self._tables.bind(exchange, binding)
        with self._lock:
            self._bound.setdefault(queue, set()).add(pair)

    def unbind(self, queue: str, exchange: str, routing_key: str, session: Session | None) -> None:
        """Remove the binding; one that is not there is fine."""
        key = self._keys.binding(exchange, queue, routing_key)
        if session is not None and session.holds(key):
            session.detach(key)
        self._tables.unbind(exchange, queue, routing_key)
        with self._lock:
            self._bound.get(queue, set()).discard((exchange, routing_key))

    def broadcasts(self, queue: str) -> dict[str, int]:
        """Fan-out exchanges an exclusive queue of ours is bound to: the revision from which it listens."""
        if not self.declared(queue).exclusive:
            return {}
        found = {}
        for exchange, _ in self._bound.get(queue, ()):
            if self._tables.seen(exchange).type == "fanout":
                found[exchange] = self._since.get((queue, exchange), 0)
        return found

    # -- deleting ------------------------------------------------------------------------------------

    def consumers(self, queue: str) -> int:
        """How many consumers the queue has, in all processes."""
        return self._client.count(self._keys.consumer(queue))

    def delete(
        self,
        queue: str,
        session: Session | None,
        *,
        if_unused: bool = False,
        if_empty: bool = False,
        seen: int | None = None,
    ) -> int | None:
        """Remove the queue, its messages and its bindings; how many messages. A run queue is left alone (N10).

        None: it has a consumer (`if_unused`), or messages (`if_empty`), claimed ones included, or its record is not of
        the revision `seen` any more; it stays as it is.
        """
        if is_run_queue(queue):
            return 0
        with self._turn(queue):
            declared = self._declared.get(queue)
            if session is not None and declared is not None and declared.leased:
                return self._delete_leased(queue, session, if_unused, if_empty)
            return self._delete(queue, if_unused, if_empty, seen)

    def _delete(self, queue: str, if_unused: bool, if_empty: bool, seen: int | None) -> int | None:
        record, messages = self._keys.queue_record(queue), self._keys.messages(queue)
        for _ in range(_TRIES):
            stored = self._client.get(record)
            revision = stored.mod if stored else 0
            if seen is not None and seen != revision:
                return None
            txn = self._removal(queue, if_unused, if_empty).when(mod(record, revision))
            result = self._client.txn(txn.delete(record))
            if result.succeeded:
                break
            if (if_unused and self.consumers(queue)) or (if_empty and self._client.count(messages)):
                return None
        else:
            raise CronyError(f"the queue {queue!r} changes too fast", hint="try again")
        removed = int(result.responses[0])
        self._forget(queue)
        bound = [(exchange, key) for name, exchange, key in self._tables.everything() if name == queue]
        for exchange, routing_key in bound:
            self._tables.unbind(exchange, queue, routing_key, unless=record)
        if bound:  # what came by a binding until then; only if the queue was not made again
            left = self._client.txn(self._removal(queue, False, False).when(absent(record)))
            removed += int(left.responses[0]) if left.succeeded else 0
        return removed

    def _delete_leased(self, queue: str, session: Session, if_unused: bool, if_empty: bool) -> int | None:
        record = self._keys.queue_record(queue)
        bound = [self._keys.binding(exchange, queue, key) for exchange, key in tuple(self._bound.get(queue, ()))]
        txn = self._removal(queue, if_unused, if_empty).when(lease(record, session.lease))
        for key in (record, *bound[:_MANY_BINDINGS]):
            txn.delete(key)
        result = self._client.txn(txn)
        if result.succeeded:
            session.forget(record, *bound[:_MANY_BINDINGS])
        elif (if_unused and self.consumers(queue)) or (if_empty and self._client.count(self._keys.messages(queue))):
            return None
        for key in (record, *bound):  # somebody else's by now, or gone with our former lease
            if session.holds(key):
                session.detach(key)
        self._forget(queue)
        return int(result.responses[0]) if result.succeeded else 0

    def _removal(self, queue: str, if_unused: bool, if_empty: bool) -> Txn:
        messages, claims, consumers = (
            (prefix, prefix_end(prefix))
            for prefix in (self._keys.messages(queue), self._keys.claims(queue), self._keys.consumer(queue))
        )
        txn = Txn()
        if if_unused:
            txn.when(vacant(*consumers))
        if if_empty:
            txn.when(vacant(*messages))
        return txn.clear(*messages).clear(*claims)

    def refuse_delete(self, queue: str) -> Exception:
        """The channel error of a `delete` that was given None."""
        consumers, messages = self.consumers(queue), self._client.count(self._keys.messages(queue))
        return precondition(f"queue {queue!r} is in use: {consumers} consumers, {messages} messages")


__all__ = ["Declared", "Queues"]
