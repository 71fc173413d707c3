"""A channel: where alerts can be sent, with what it takes to get in there; and the destinations that name one.

What is secret of it (a password, a bot's address and signing secret) is kept apart from the rest: it is encrypted
wherever it rests, and shown nowhere.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from crony.domain.check import choice, fields, integer, listing, texts
from crony.domain.record import Record
from crony.domain.sealing import Cipher
from crony.errors import Invalid

KINDS = ("email", "feishu")
LANGUAGES = ("en", "zh")
SECURITY = ("starttls", "tls", "none")
MOST_RECIPIENTS = 50
MOST_DESTINATIONS = 10
"""Most destinations of one rule."""
MAIL = "mail"
"""The e-mail channel by which alerts reach addresses that are named instead of a channel."""
HIDDEN = "********"
"""Stands for a secret that is there, in whatever people are shown; given back, it leaves the secret as it is."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,188}[A-Za-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?|\[?[0-9a-fA-F:.]{2,45}\]?")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})
_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_COMMON = ("name", "kind", "description", "language")
_OWN = {
    "email": ("host", "port", "security", "user", "password", "from", "to", "ca"),
    "feishu": ("url", "secret"),
}
SECRETS = {"email": ("password",), "feishu": ("url", "secret")}
"""By kind: the fields that are secret. Of a bot its address is: who knows it can write."""
_BOUND = {"email": ("host", "port", "security", "user", "ca"), "feishu": ("url",)}
"""By kind: where a secret goes. Who changes that has to know the secret."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A checked channel. `settings` is what may be shown, `secrets` what may not."""

    name: str
    kind: str
    description: str
    language: str
    settings: dict[str, Any]
    secrets: dict[str, str] = field(repr=False)
    """Only those that are given."""

    def hide(self, text: str) -> str:
        """`text` without any secret of this channel: whatever a provider answers may repeat one."""
        for secret in sorted(self.secrets.values(), key=len, reverse=True):
            for part in (secret, urlsplit(secret).path if self.kind == "feishu" else "", secret.rpartition("/")[2]):
                if len(part) > 3:
                    text = text.replace(part, HIDDEN)
        return text


@dataclass(frozen=True, slots=True)
class SealedChannel(Record):
    """`obj/channel/<name>`, sealed by a web; `deleted` is a tombstone."""

    name: str
    kind: str
    description: str = ""
    language: str = "en"
    settings: dict[str, Any] = field(default_factory=dict)
    ciphertext: str = ""
    """Its secrets as JSON, encrypted for `place(name)`."""
    has: list[str] = field(default_factory=list)
    """Names of its secrets."""
    revision: int = 0
    deleted: bool = False

    def document(self) -> dict[str, Any]:
        """As stored."""
        told = {"name": self.name, "kind": self.kind, "description": self.description, "language": self.language}
        return {**told, "settings": self.settings, "ciphertext": self.ciphertext, "has": self.has}

    def shown(self) -> dict[str, Any]:
        """As people see it, and may give it back: the secrets are hidden."""
        told = {"name": self.name, "kind": self.kind, "description": self.description, "language": self.language}
        return {**told, **self.settings, **dict.fromkeys(self.has, HIDDEN)}

    def opened(self, cipher: Cipher) -> Channel:
        """With its secrets. Raises `CannotDecrypt`, or `Invalid` for what is no channel of this version."""
        secrets = json.loads(cipher.decrypt(self.ciphertext, place(self.name))) if self.ciphertext else {}
        given = {"name": self.name, "kind": self.kind, "description": self.description, "language": self.language}
        return parse_channel({**given, **self.settings, **secrets})


def place(name: str) -> str:
    """What the ciphertext of a channel is bound to."""
    return f"channel/{name}"


def sealed(channel: Channel, cipher: Cipher, *, revision: int = 0) -> SealedChannel:
    """The channel with its secrets encrypted. Raises `NoSecretKey`."""
    secrets = json.dumps(channel.secrets, ensure_ascii=False)
    ciphertext = cipher.encrypt(secrets, place(channel.name)) if channel.secrets else ""
    return SealedChannel(
        channel.name,
        channel.kind,
        channel.description,
        channel.language,
        channel.settings,
        ciphertext,
        sorted(channel.secrets),
        revision,
    )


def parse_channel(document: Any, old: Channel | None = None) -> Channel:
    """The channel behind a document. A secret that is left out or hidden is taken from `old`, the channel before.

    Raises `Invalid` naming the field.
    """
    known = {name for names in _OWN.values() for name in names}
    given = fields(document, "", (*_COMMON, *sorted(known)))
    for name in ("name", "kind"):
        if given.get(name) is None:
            raise Invalid(name, "is missing", hint="every channel has a name and a kind: email or feishu")
    kind = choice(given["kind"], "kind", KINDS)
    for name in given:
        if name in known and name not in _OWN[kind]:
            raise Invalid(name, f"is not a field of a channel of kind {kind}", hint=f"its own: {', '.join(_OWN[kind])}")
    if old is not None and old.kind != kind:
        raise Invalid("kind", "cannot be changed", hint="delete the channel and make it anew")
    settings = _email(given) if kind == "email" else {}
    secrets = _secrets(kind, given, settings, old)
    if kind == "feishu":
        _url(secrets.get("url"))
    elif secrets and settings["security"] == "none" and settings["host"] not in _LOOPBACK:
        raise Invalid("security", "would send the password for all to read", hint="write starttls or tls")
    return Channel(
        channel_name(given["name"]),
        kind,
        texts(given.get("description", ""), "description", least=0, most=2000, lines=True),
        choice(given.get("language", "en"), "language", LANGUAGES),
        settings,
        secrets,
    )


def channel_name(value: Any, field: str = "name") -> str:
    """A channel's name. Raises `Invalid`."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise Invalid(field, "is not the name of a channel", hint="use a-z, 0-9 and . _ -, at most 63 characters")
    return value


def is_address(text: str) -> bool:
    """Whether a destination is an e-mail address, not the name of a channel."""
    return "@" in text


def channel_of(destination: str) -> str:
    """The channel by which a destination is reached."""
    return MAIL if is_address(destination) else destination


def parse_destinations(value: Any, field: str) -> tuple[str, ...]:
    """Channels and addresses, each once. Raises `Invalid` naming the item."""
    found: list[str] = []
    for index, item in enumerate(listing(value, field, MOST_DESTINATIONS)):
        at = f"{field}[{index}]"
        name = address(item, at) if isinstance(item, str) and is_address(item) else channel_name(item, at)
        if name in found:
            raise Invalid(at, "is given twice", hint="remove it")
        found.append(name)
    return tuple(found)


def check_destinations(names: tuple[str, ...], kinds: Mapping[str, str], field: str) -> None:
    """Refuse destinations by channels that are not among `kinds` (name -> kind). Raises `Invalid` naming the item."""
    for index, name in enumerate(names):
        channel = channel_of(name)
        if channel not in kinds:
            why = f"names the channel {channel}, which there is not" if channel == name else (
                f"is an address, and there is no channel {MAIL} to reach it by"
            )  # fmt: skip
            raise Invalid(f"{field}[{index}]", why, hint="save that channel first")
        if channel != name and kinds[channel] != "email":
            raise Invalid(f"{field}[{index}]", f"is an address, but the channel {MAIL} sends no e-mail",
                          hint="name a channel instead")  # fmt: skip


def address(value: Any, field: str) -> str:
    """An e-mail address. Raises `Invalid`."""
    if not isinstance(value, str) or not _ADDRESS.fullmatch(value):
        raise Invalid(field, "is not an e-mail address", hint="write name@example.org, in ASCII")
    return value


def _email(given: Mapping[str, Any]) -> dict[str, Any]:
    for name in ("host", "from"):
        if given.get(name) is None:
            raise Invalid(name, "is missing", hint="an e-mail channel has host and from")
    host = texts(given["host"], "host", most=253)
    if not _HOST.fullmatch(host):
        raise Invalid(
            "host", "is not the name of a host", hint="write smtp.example.org; the port has a field of its own"
        )
    security = choice(given.get("security", "starttls"), "security", SECURITY)
    recipients = [
        address(each, f"to[{i}]") for i, each in enumerate(listing(given.get("to", []), "to", MOST_RECIPIENTS))
    ]
    return {
        "host": host,
        "port": integer(given.get("port", _PORTS[security]), "port", 1, 65535),
        "security": security,
        "user": texts(given.get("user", ""), "user", least=0, most=320),
        "from": address(given["from"], "from"),
        "to": list(dict.fromkeys(recipients)),
        "ca": _ca(given.get("ca", "")),
    }


def _ca(value: Any) -> str:
    text = texts(value, "ca", least=0, most=32_000, lines=True)
    if text:
        try:
            ssl.create_default_context(cadata=text)
        except (ssl.SSLError, ValueError):
            raise Invalid("ca", "is not a certificate", hint="give the CA's certificate as PEM text") from None
    return text


def _secrets(kind: str, given: Mapping[str, Any], settings: Mapping[str, Any], old: Channel | None) -> dict[str, str]:
    kept = dict(old.secrets) if old is not None else {}
    found: dict[str, str] = {}
    taken: list[str] = []
    for name in SECRETS[kind]:
        value = given.get(name)
        if value == HIDDEN or (value is None and old is not None):
            taken.append(name)
            value = kept.get(name, "")
            if given.get(name) == HIDDEN and not value:
                raise Invalid(name, "is hidden here, not known", hint="write the secret itself")
        text = texts(value if value is not None else "", name, least=0, most=2000)
        if text:
            found[name] = text
    now = {**settings, **found}
    before = {**(old.settings if old else {}), **kept}
    moved = [name for name in _BOUND[kind] if old is not None and now.get(name) != before.get(name)]
    kept_secret = [name for name in taken if found.get(name) and name not in moved]
    if moved and kept_secret:
        raise Invalid(kept_secret[0], f"must be given again when {moved[0]} changes", hint="write the secret itself")
    if kind == "email" and bool(settings["user"]) != ("password" in found):
        raise Invalid("password", "and user go together", hint="give both, or neither")
    return found


def _url(value: str | None) -> None:
    if not value:
        raise Invalid("url", "is missing", hint="copy the webhook address that Feishu shows for the bot")
    try:
        parts = urlsplit(value)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    if not host or parts.username or parts.fragment or not value.isascii():
        raise Invalid("url", "is not the address of a bot", hint="https://open.feishu.cn/open-apis/bot/v2/hook/…")
    if parts.scheme != "https" and not (parts.scheme == "http" and host in _LOOPBACK):
        raise Invalid("url", "must begin with https://", hint="copy the webhook address that Feishu shows for the bot")
