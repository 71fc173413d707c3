"""Where alerts go, as etcd says, with the database away too: channels, rules, and the `alerts` of jobs.

Only what a web has signed counts. Asked anew for every look, kept while nothing changed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from crony.domain.alert import Alert
from crony.domain.alerting import JobAlert, LiveRule, Rule, destinations, parse_job_alerts
from crony.domain.channel import Channel, SealedChannel
from crony.domain.record import UnknownRecord
from crony.domain.sealing import CannotDecrypt, Cipher
from crony.domain.signing import BadSeal, Verifier
from crony.errors import Invalid
from crony.etcd.client import Client
from crony.etcd.keys import Keys

log = logging.getLogger("crony.beat")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unusable:
    """A channel that is there and cannot be used."""

    why: str


class Directory:
    """Reads them; one thread's."""

    def __init__(self, client: Client, keys: Keys, webs: Verifier, cipher: Cipher) -> None:
        """`webs`: whose signatures count; `cipher`: opens the secrets of channels."""
        self._client, self._keys, self._webs, self._cipher = client, keys, webs, cipher
        self._kept: dict[str, tuple[int, Any]] = {}

    def channels(self) -> dict[str, Channel | Unusable]:
        """By name. Raises as the client."""
        return {name: found for name, found in self._every("channel", self._channel).items() if found is not None}

    def rules(self) -> list[Rule]:
        """By name, those that can be read. Raises as the client."""
        return [rule for _, rule in sorted(self._every("alert-rule", self._rule).items()) if rule is not None]

    def destinations(self, alert: Alert, rules: list[Rule]) -> tuple[str, ...]:
        """Whom an alert goes to. Raises as the client."""
        return destinations(alert, self._own(alert.job) if alert.job else None, rules)

    def _own(self, job: str) -> tuple[JobAlert, ...] | None:
        """What a job says; one that cannot be read, or is deleted, says nothing."""
        found = self._client.get(self._keys.job(job))
        if found is None:
            return None
        try:
            live = self._webs.open(found.value)
            document = live.get("document") or {}
            return parse_job_alerts(document.get("alerts")) if live.get("id") == job else None
        except (BadSeal, Invalid, AttributeError) as error:
            log.warning("the alerts of job %s go by the rules, as its own cannot be read: %s", job, error)
            return None

    def _every(self, kind: str, read: Callable[[str, dict[str, Any]], T]) -> dict[str, T | None]:
        prefix, found = self._keys.obj(kind, ""), dict[str, T | None]()
        there = self._client.list(prefix).kvs
        for kv in there:
            name, kept = kv.key.removeprefix(prefix), self._kept.get(kv.key)
            if kept is None or kept[0] != kv.mod:
                try:
                    kept = kv.mod, read(name, self._webs.open(kv.value))
                except (BadSeal, UnknownRecord, Invalid, ValueError, TypeError, KeyError) as error:
                    log.warning("the %s %s is left out: %s", kind, name, error)
                    kept = kv.mod, None
                self._kept[kv.key] = kept
            found[name] = kept[1]
        gone = {key for key in self._kept if key.startswith(prefix)} - {kv.key for kv in there}
        for key in gone:
            del self._kept[key]
        return found

    def _channel(self, name: str, payload: dict[str, Any]) -> Channel | Unusable | None:
        sealed = SealedChannel.read(payload)
        if sealed.deleted or sealed.name != name:
            return None
        try:
            return sealed.opened(self._cipher)
        except (CannotDecrypt, Invalid) as error:
            return Unusable(str(error))

    @staticmethod
    def _rule(name: str, payload: dict[str, Any]) -> Rule | None:
        live = LiveRule.read(payload)
        return None if live.deleted or live.name != name else live.rule()
