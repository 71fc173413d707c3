"""Secrets as people set them: encrypted before they are stored, never shown, published to nodes as ciphertext."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from crony.catalog.objects import Objects, ObjectView
from crony.catalog.publishing import Publisher
from crony.domain.sealing import CannotDecrypt, Cipher, key_id_of
from crony.domain.secret import Secret, parse_secret, place_of
from crony.errors import Invalid
from crony.store.objects import Newest


@dataclass(frozen=True, slots=True)
class SecretView(ObjectView):
    """A secret as saved: everything but its value."""

    @property
    def key_id(self) -> str:
        """Id of the key that it is encrypted with."""
        return key_id_of(str(self.document["ciphertext"]))


class Rotated(NamedTuple):
    """What became of the objects when the key was changed: names with their kinds."""

    renewed: list[str]
    kept: int
    """So many had the newest key already."""
    failed: dict[str, str]
    """Why they could not be decrypted."""


@dataclass(frozen=True, slots=True)
class _Given:
    """A secret on its way into the store; what is None was left out."""

    name: str
    ciphertext: str | None
    description: str | None

    def document(self) -> dict[str, Any]:
        """As stored."""
        return Secret(self.name, self.ciphertext or "", self.description or "").document()


class Secrets(Objects[_Given, SecretView]):
    """The secrets of one namespace."""

    kind = "secret"
    shape = SecretView

    def __init__(self, publisher: Publisher, cipher: Cipher) -> None:
        super().__init__(publisher)
        self._cipher = cipher

    def parse(self, document: Mapping[str, Any]) -> _Given:
        """As `parse_secret`; the value is encrypted here and now. Raises `NoSecretKey`, too."""
        name, value, about = parse_secret(document)
        sealed = self._cipher.encrypt(value, place_of(name)) if value is not None else None
        return _Given(name, sealed, about)

    def merged(self, made: _Given, before: Mapping[str, Any] | None) -> _Given:
        """What is left out stays; a new secret needs a value."""
        if before is None:
            if made.ciphertext is None:
                raise Invalid("value", "is missing", hint="a new secret needs one")
            return made
        kept = made.ciphertext if made.ciphertext is not None else str(before["ciphertext"])
        about = made.description if made.description is not None else str(before["description"])
        return replace(made, ciphertext=kept, description=about)

    def kept(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Versions keep no ciphertext: a key that is given up must open nothing old."""
        return {"name": document["name"], "description": document["description"]}

    def told(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The key."""
        return {"key": key_id_of(str(document["ciphertext"]))}

    def record(self, found: Newest) -> Secret:
        """The secret as nodes read it."""
        about = str(found.document.get("description") or "")
        if found.deleted:
            return Secret(found.name, "", about, found.revision, True)
        return Secret(found.name, str(found.document["ciphertext"]), about, found.revision)

    def stored(self, payload: Mapping[str, Any]) -> Newest:
        """The published one as it was stored."""
        made = Secret.read(payload)
        return Newest(made.name, made.revision, made.document(), made.deleted)

    def renewed(self, name: str, document: Mapping[str, Any]) -> dict[str, Any] | None:
        """The document under the newest key; None: it is already. Raises `CannotDecrypt`."""
        before = str(document["ciphertext"])
        after = self._cipher.again(before, place_of(name))
        return None if after == before else {**document, "ciphertext": after}


def rotate(kinds: tuple[Objects[Any, Any], ...], cipher: Cipher, actor: str, *, address: str = "") -> Rotated:
    """Encrypt everything with the newest key that is not yet; can be repeated. Raises `NoSecretKey`."""
    cipher.encrypt("", "")  # refuses at once, where there is no key
    done = Rotated([], 0, {})
    kept = 0
    for objects in kinds:
        for view in objects.every():
            told = f"{objects.kind} {view.name}"
            try:
                changed = objects.renew(view.name, actor, address=address)
            except CannotDecrypt as error:
                done.failed[told] = error.why
                continue
            if changed:
                done.renewed.append(told)
            else:
                kept += 1
    return done._replace(kept=kept)
