"""Flower's broker page and `/api/queues/length` for `etcd3://`, which Flower itself does not know.

Flower picks a class by the scheme of the broker's URL and has no place to add one, so its factory is wrapped. The
transport does that when it is used in a process that has Flower loaded; Flower is never imported from here.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from kombu.connection import Connection

from crony.transport_etcd import SCHEME, options
from crony.transport_etcd.census import Census, QueueFacts
from crony.transport_etcd.link import link_to

log = logging.getLogger("crony.transport")

KNOWN = ("2.",)
"""Versions of Flower whose factory of brokers is known to fit."""

_census = Census()


class EtcdBroker:
    """What Flower asks of a broker: `queues(names)`."""

    def __init__(
        self, broker_url: str, *_: Any, broker_options: Any = None, broker_use_ssl: Any = None, **__: Any
    ) -> None:
        """`broker_url`: with the password; Flower gives the first one of `;` alternates."""
        self._connection = Connection(  # type: ignore[no-untyped-call]
            broker_url, transport_options=dict(broker_options or {}), ssl=broker_use_ssl or False
        )

    async def queues(self, names: Any) -> list[dict[str, Any]]:
        """The six columns of each queue. Raises `BrokerUnavailable` or a `CronyError`: Flower logs that."""
        return await asyncio.get_running_loop().run_in_executor(None, self.read, list(names))

    def read(self, names: list[str]) -> list[dict[str, Any]]:
        """As `queues`, in this thread."""
        link = link_to(options.of(self._connection))
        return [row(_census.look(link, name)) for name in names]


def row(facts: QueueFacts) -> dict[str, Any]:
    """A queue as Flower shows it; `idle_since` in UTC, None while the queue is busy."""
    idle = facts.idle_since
    return {
        "name": facts.name,
        "messages": facts.ready + facts.held,
        "messages_ready": facts.ready,
        "messages_unacknowledged": facts.held,
        "consumers": facts.consumers,
        "idle_since": None if idle is None else datetime.fromtimestamp(idle, UTC).isoformat(" ", "seconds"),
    }


def introduce() -> None:
    """Make a Flower that is loaded in this process know `etcd3://`. Safe to repeat; never raises."""
    module = sys.modules.get("flower.utils.broker")
    if module is None:
        return
    factory = getattr(module, "Broker", None)
    original = getattr(factory, "__new__", None)
    if getattr(original, "knows_etcd3", False):
        return
    version = str(getattr(sys.modules.get("flower"), "__version__", "?"))
    if factory is None or "__new__" not in vars(factory) or not version.startswith(KNOWN):
        _say_once(f"Flower {version} is not known to Crony (known: 2.x): its broker page will not show {SCHEME} queues")
        return

    def new(cls: Any, broker_url: str, *args: Any, **kwargs: Any) -> Any:
        if urlsplit(broker_url).scheme == SCHEME:
            return EtcdBroker(broker_url, *args, **kwargs)
        return original(cls, broker_url, *args, **kwargs)  # type: ignore[misc]

    new.knows_etcd3 = True  # type: ignore[attr-defined]
    factory.__new__ = new


_said: set[str] = set()


def _say_once(sentence: str) -> None:
    if sentence not in _said:
        _said.add(sentence)
        log.warning("%s", sentence)


__all__ = ["EtcdBroker", "introduce", "row"]
