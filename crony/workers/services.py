"""Which instance of a service a call goes to: in turn by weight, not to who is not well, past who is away."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from crony.domain.routing import Wheel
from crony.domain.service import Instance
from crony.errors import CronyError
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.lifecycle.enlist import instances
from crony.workers.process import Process

T = TypeVar("T")

FRESH = 1.0
"""Seconds for which a list of instances is used before etcd is asked again."""
SHUNNED = 10.0
"""Seconds for which an instance that was away gets no calls while another one does."""
_SPIN = 1000


class NoInstance(CronyError):
    """Nobody to call."""


@dataclass
class _Known:
    wheel: Wheel = field(default_factory=Wheel)
    there: list[Instance] = field(default_factory=list)
    asked: float = float("-inf")
    spun: bool = False


class Services:
    """What a process knows of the services that its jobs call."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._shunned: dict[str, float] = {}

    def choices(self, service: str, protocols: tuple[str, ...]) -> Iterator[Instance]:
        """Instances to try, the one whose turn it is first, each once. Raises `NoInstance`, and `Unavailable` of etcd
        where it has never answered.
        """
        candidates = {each.address: each for each in self._instances(service) if each.protocol in protocols}
        usable = {address: each.weight for address, each in candidates.items() if each.usable}
        if not usable:
            raise NoInstance(_nobody(service, list(candidates.values()), protocols))
        while usable:
            yield candidates[self._pick(service, usable)]

    def _pick(self, service: str, usable: dict[str, int]) -> str:
        now = time.monotonic()
        with self._lock:
            known = self._known[service]
            if not known.spun:  # many processes begin at once: not all of them with the same one
                known.spun = True
                for _ in range(random.randrange(min(_SPIN, sum(usable.values())))):
                    known.wheel.pick(usable)
            shunned = {address for address in usable if self._shunned.get(address, 0.0) > now}
            choice = known.wheel.pick(usable, avoid=shunned)
            assert choice is not None
        del usable[choice.node]
        return choice.node

    def shun(self, instance: Instance) -> None:
        """Nobody was there: others go first for a while."""
        now = time.monotonic()
        with self._lock:
            self._shunned = {address: until for address, until in self._shunned.items() if until > now}
            self._shunned[instance.address] = now + SHUNNED

    def _instances(self, service: str) -> list[Instance]:
        with self._lock:
            known = self._known.setdefault(service, _Known())
            if time.monotonic() - known.asked < FRESH:
                return known.there
        try:
            there = instances(self._client, self._keys, service)
        except CronyError:
            if not known.there:
                raise
            return known.there  # etcd is away: who was there last may be there still
        with self._lock:
            known.there, known.asked = there, time.monotonic()
            known.wheel.keep({each.address for each in there})
        return there


def services_of(process: Process) -> Services:
    """Those of a process."""
    return process.own("services", lambda: Services(process.client, process.keys))


def first_that_is_there(
    process: Process, service: str, protocols: tuple[str, ...], call: Callable[[Instance], T], away: type[Exception]
) -> T:
    """What `call` gives with the first instance with which it does not raise `away`: that the call did not begin.

    Raises the last `away` when that was so with all of them, `NoInstance`, `Unavailable`.
    """
    services, last = services_of(process), NoInstance(f"no instance of {service} is there")
    error: Exception = last
    for instance in services.choices(service, protocols):
        try:
            return call(instance)
        except away as trouble:
            services.shun(instance)
            error = trouble
    raise error


def _nobody(service: str, found: list[Instance], protocols: tuple[str, ...]) -> str:
    if not found:
        return f"no instance of {service} that speaks {' or '.join(protocols)} is registered"
    sick = sum(not each.healthy for each in found)
    return (
        f"none of the {len(found)} instances of {service} takes calls: {sick} not well, {len(found) - sick} of weight 0"
    )
