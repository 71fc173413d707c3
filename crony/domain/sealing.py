"""The cipher of what people entrust to Crony: secrets of jobs and of alert channels, encrypted wherever they rest.

AES-256 in GCM. A ciphertext is bound to its place (such as `secret/reports-db`): moved to another one it does not
open. It is text, `crony1:<key id>:<base64>`, and names its key, so that keys can be changed one after the other: the
first of `CRONY_SECRET_KEY` encrypts, all of them decrypt.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from crony.errors import Conflict, CronyError, Invalid

KEY = "CRONY_SECRET_KEY"
_FORMAT = "crony1"
_NONCE = 12


class NoSecretKey(Conflict):
    """Something is to be encrypted where no key is."""


class CannotDecrypt(CronyError):
    """A ciphertext that this process cannot open: it has not the key, or what it holds was changed or moved."""


def new_secret_key() -> str:
    """A new key, 32 bytes as base64."""
    return base64.b64encode(os.urandom(32)).decode()


class Cipher:
    """Encrypts and decrypts with the keys of this process, the newest first. Without keys it can do neither.

    Raises `Invalid` for what is no key.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys: dict[str, AESGCM] = {}
        for text in keys:
            raw = _raw(text)
            self._keys.setdefault(_key_id(raw), AESGCM(raw))
        self.key_ids = tuple(self._keys)
        """Ids of the keys, the newest first; an id says nothing about its key."""

    def __bool__(self) -> bool:
        """Whether it has a key."""
        return bool(self._keys)

    def encrypt(self, plain: str, place: str) -> str:
        """The ciphertext of `plain`, to rest at `place` only. Raises `NoSecretKey`."""
        if not self._keys:
            raise NoSecretKey(
                "There is no key to encrypt secrets with",
                why=f"{KEY} is not set",
                hint="make one with: crony keys secret",
            )
        ident, nonce = self.key_ids[0], os.urandom(_NONCE)
        made = self._keys[ident].encrypt(nonce, plain.encode("utf-8", "surrogatepass"), _bound(ident, place))
        return f"{_FORMAT}:{ident}:{base64.b64encode(nonce + made).decode()}"

    def decrypt(self, ciphertext: str, place: str) -> str:
        """What was encrypted for `place`. Raises `CannotDecrypt`, which says why and nothing of the contents."""
        ident = key_id_of(ciphertext)
        key = self._keys.get(ident)
        if key is None:
            why = f"it is encrypted with the key {ident or '?'}, which {KEY} does not have here"
            raise CannotDecrypt(f"{place} cannot be decrypted", why=why)
        try:
            text = ciphertext.split(":")[2]
            raw = base64.b64decode(text, validate=True)
            if base64.b64encode(raw).decode() != text:  # bits behind the end, which a decoder does not look at
                raise ValueError
            return key.decrypt(raw[:_NONCE], raw[_NONCE:], _bound(ident, place)).decode("utf-8", "surrogatepass")
        except (ValueError, IndexError, InvalidTag):
            why = "it was changed, or moved from another place"
            raise CannotDecrypt(f"{place} cannot be decrypted", why=why) from None

    def is_newest(self, ciphertext: str) -> bool:
        """Whether it is encrypted with the key that encrypts now."""
        return bool(self._keys) and key_id_of(ciphertext) == self.key_ids[0]

    def again(self, ciphertext: str, place: str) -> str:
        """The same contents under the newest key. Raises `CannotDecrypt`, `NoSecretKey`."""
        return ciphertext if self.is_newest(ciphertext) else self.encrypt(self.decrypt(ciphertext, place), place)


def key_id_of(ciphertext: str) -> str:
    """Id of the key that a ciphertext names; empty: it is none of ours."""
    form, _, rest = ciphertext.partition(":")
    return rest.partition(":")[0] if form == _FORMAT else ""


def _bound(ident: str, place: str) -> bytes:
    return f"{_FORMAT}:{ident}:{place}".encode()


def _key_id(raw: bytes) -> str:
    return hashlib.sha256(b"crony secret key\0" + raw).hexdigest()[:16]


def _raw(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise Invalid(KEY, "must be 32 bytes in base64", hint="`crony keys secret` makes one")
    return raw
