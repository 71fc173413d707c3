"""Channels and alert rules as people edit them: the secrets of channels encrypted before they are stored, never shown.

The centre reads what is published, with the database away too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from crony.catalog.objects import Change, Objects, ObjectView
from crony.catalog.publishing import Publisher
from crony.domain import alert as alerts
from crony.domain import ids
from crony.domain.alerting import LiveRule, Rule, parse_rule
from crony.domain.channel import (
    Channel,
    SealedChannel,
    address,
    channel_name,
    channel_of,
    check_destinations,
    parse_channel,
    place,
    sealed,
)
from crony.domain.job import Job
from crony.domain.sealing import CannotDecrypt, Cipher, key_id_of
from crony.errors import Conflict, Invalid
from crony.notifications.message import message_of
from crony.notifications.posting import deliver
from crony.store import audit
from crony.store import objects as store
from crony.store.models import ObjectRow
from crony.store.objects import Newest


@dataclass(frozen=True, slots=True)
class ChannelView(ObjectView):
    """A channel as saved; `document` is as stored, `shown` what people may see."""

    @property
    def shown(self) -> dict[str, Any]:
        """The document with its secrets hidden."""
        return SealedChannel.read(self.document).shown()

    @property
    def channel_kind(self) -> str:
        """How it sends: email or feishu."""
        return str(self.document["kind"])

    @property
    def key_id(self) -> str:
        """Id of the key that its secrets are encrypted with."""
        return key_id_of(str(self.document["ciphertext"]))


@dataclass(frozen=True, slots=True)
class _Given:
    """A channel on its way into the store: what was written, then what is stored."""

    name: str
    raw: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        """As stored."""
        return dict(self.raw)


class Channels(Objects[_Given, ChannelView]):
    """The channels of one namespace."""

    kind = "channel"
    shape = ChannelView

    def __init__(self, publisher: Publisher, cipher: Cipher) -> None:
        super().__init__(publisher)
        self._cipher = cipher

    def parse(self, document: Mapping[str, Any]) -> _Given:
        """Its name; the rest depends on the channel before."""
        return _Given(channel_name(document.get("name")), document)

    def merged(self, made: _Given, before: Mapping[str, Any] | None) -> _Given:
        """A secret that is left out or hidden stays. Raises `Invalid`, `NoSecretKey`."""
        old = self._opened(before)
        channel = parse_channel(made.raw, old)
        if before is not None and before["kind"] != channel.kind:
            raise Invalid("kind", "cannot be changed", hint="delete the channel and make it anew")
        stored = sealed(channel, self._cipher).document()
        if before is not None and old is not None and old.secrets == channel.secrets:
            stored["ciphertext"] = before["ciphertext"]  # the same under another nonce is no change
        return _Given(channel.name, stored)

    def kept(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Versions keep no ciphertext: a key that is given up must open nothing old."""
        return {**document, "ciphertext": ""}

    def told(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Its kind, and the key."""
        return {"kind": document["kind"], "key": key_id_of(str(document["ciphertext"]))}

    def record(self, found: Newest) -> SealedChannel:
        """The channel as the centre reads it."""
        made = SealedChannel.read(found.document)
        if found.deleted:
            return SealedChannel(found.name, made.kind, revision=found.revision, deleted=True)
        return SealedChannel.read({**found.document, "revision": found.revision})

    def stored(self, payload: Mapping[str, Any]) -> Newest:
        """The published one as it was stored."""
        made = SealedChannel.read(payload)
        return Newest(made.name, made.revision, made.document(), made.deleted)

    def renewed(self, name: str, document: Mapping[str, Any]) -> dict[str, Any] | None:
        """The document under the newest key; None: it is already, or has no secret. Raises `CannotDecrypt`."""
        before = str(document["ciphertext"])
        after = self._cipher.again(before, place(name)) if before else before
        return None if after == before else {**document, "ciphertext": after}

    def delete(self, name: str, actor: str, *, revision: int | None = None, address: str = "") -> None:
        """Delete one that neither a job nor a rule names. Raises `NotFound`, `Conflict` naming them."""
        if rules := self._db.read(lambda session: self._rules(session, name)):
            why = f"alert rules name it: {', '.join(rules[:5])}"
            raise Conflict(f"The channel {name} is in use", why=why, hint="take it out of them first")
        super().delete(name, actor, revision=revision, address=address)

    def check_job(self, session: Session, job: Job) -> None:
        """Refuse destinations of a job's alerts that are not there. Raises `Invalid` naming the field."""
        for index, entry in enumerate(job.alerts or ()):
            self.check_to(session, entry.to, f"alerts[{index}].to")

    def check_to(self, session: Session, to: Sequence[str], field: str) -> None:
        """Refuse destinations that are not there; nobody deletes the others before the commit. Raises `Invalid`."""
        rows = store.rows(session, self.kind, {channel_of(each) for each in to}, hold=True)
        check_destinations(tuple(to), {row.name: str(row.document["kind"]) for row in rows}, field)

    def test(self, name: str, actor: str, *, to: str | None = None, address_of: str = "") -> str:
        """Send a test alert by a channel at once, and give the provider's own answer. `to`: an address, for e-mail.

        Raises `NotFound`, `NotSent` with the provider's words, `CannotDecrypt`, `Invalid`.
        """
        view = self.get(name)
        channel = SealedChannel.read(view.document).opened(self._cipher)
        recipients: Sequence[str] = channel.settings.get("to", ())
        if to is not None:
            if channel.kind != "email":
                raise Invalid("to", "is for e-mail channels", hint="leave it out")
            recipients = (address(to, "to"),)
        now, entry = self._publisher.client.now(), audit.entry_id()
        alert = alerts.test(ids.fresh("a"), actor, now)
        self._db.transaction(
            lambda session: audit.add(session, entry, actor, "channel.test", "channel", name, {}, address_of)
        )
        return deliver(channel, message_of(alert, language=channel.language), recipients, now)

    def _opened(self, before: Mapping[str, Any] | None) -> Channel | None:
        """The channel before; None: there was none, or its key is gone, so that all has to be given anew."""
        try:
            return SealedChannel.read(before).opened(self._cipher) if before is not None else None
        except CannotDecrypt:
            return None

    def _rules(self, session: Session, name: str) -> list[str]:
        rows = session.scalars(select(ObjectRow).where(ObjectRow.kind == AlertRules.kind).order_by(ObjectRow.name))
        return [row.name for row in rows if name in {channel_of(str(each)) for each in row.document.get("to", ())}]


class AlertRules(Objects[Rule, ObjectView]):
    """The alert rules of one namespace."""

    kind = "alert-rule"
    shape = ObjectView

    def __init__(self, publisher: Publisher, channels: Channels) -> None:
        super().__init__(publisher)
        self._channels = channels

    def parse(self, document: Mapping[str, Any]) -> Rule:
        """As `parse_rule`."""
        return parse_rule(document)

    def saved(self, session: Session, row: ObjectRow, before: Mapping[str, Any] | None, change: Change) -> ObjectView:
        """Refuse channels that are not there."""
        self._channels.check_to(session, row.document["to"], "to")
        return self.view(session, row)

    def record(self, found: Newest) -> LiveRule:
        """The rule as the centre reads it."""
        return LiveRule(found.name, dict(found.document), found.revision, found.deleted)

    def stored(self, payload: Mapping[str, Any]) -> Newest:
        """The published one as it was stored."""
        made = LiveRule.read(payload)
        return Newest(made.name, made.revision, made.document, made.deleted)
