"""Ed25519 seals (D9): the web seals job documents, centres seal envelopes, nodes hold public keys only.

A sealed record is JSON: {"p": "<payload, JSON text>", "k": "<key id>", "s": "<signature, base64>"}.
The payload is signed as the exact text that travels, so no canonical form is needed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from crony.domain.jsontext import dumps, loads
from crony.errors import CronyError, Invalid


class BadSeal(CronyError):
    """A record is not signed by a key this process trusts; it must not be acted on."""


def new_key() -> tuple[str, str]:
    """A new (private, public) key pair, each 32 bytes as base64."""
    private = Ed25519PrivateKey.generate()
    return (
        base64.b64encode(private.private_bytes_raw()).decode(),
        base64.b64encode(private.public_key().public_bytes_raw()).decode(),
    )


def public_key(private: str) -> str:
    """The public key (base64) of a private one."""
    key = Ed25519PrivateKey.from_private_bytes(_raw(private, "CRONY_SIGNING_KEY"))
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


class Sealer:
    """Signs with one private key. Raises `Invalid` when the key is missing or not one."""

    def __init__(self, private: str) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(_raw(private, "CRONY_SIGNING_KEY"))
        self.key_id = _key_id(self._key.public_key().public_bytes_raw())

    def seal(self, payload: Mapping[str, Any]) -> bytes:
        """`payload` as a sealed record."""
        text = dumps(payload)
        signature = base64.b64encode(self._key.sign(text)).decode()
        return dumps({"p": text.decode(), "k": self.key_id, "s": signature})


class Verifier:
    """Opens sealed records made with one of the trusted public keys (base64)."""

    def __init__(self, public: Iterable[str]) -> None:
        self._keys = {}
        for text in public:
            raw = _raw(text, "public key")
            self._keys[_key_id(raw)] = Ed25519PublicKey.from_public_bytes(raw)

    def open(self, record: bytes | str) -> dict[str, Any]:
        """The payload of a sealed record. Raises `BadSeal` for anything else, whatever is wrong with it."""
        try:
            outer = loads(record if isinstance(record, bytes) else record.encode())
            text, key = outer["p"].encode(), self._keys[outer["k"]]
            key.verify(base64.b64decode(outer["s"], validate=True), text)
            payload = loads(text)
        except (ValueError, KeyError, TypeError, AttributeError, InvalidSignature, RecursionError) as error:
            raise BadSeal("the record is not signed by a trusted key", why=type(error).__name__) from None
        if not isinstance(payload, dict):
            raise BadSeal("the record is not signed by a trusted key", why="payload is not an object")
        return payload


def peek(record: bytes | str) -> dict[str, Any]:
    """The payload of a sealed record without checking the seal: for showing only, never for acting."""
    text = loads(record if isinstance(record, bytes) else record.encode())["p"]
    payload = loads(str(text).encode())
    if not isinstance(payload, dict):
        raise ValueError("payload is not an object")
    return payload


def _raw(text: str, name: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raw = b""
    if not text:
        raise Invalid(name, "is not set", hint="`crony keys new` makes a pair")
    if len(raw) != 32:
        raise Invalid(name, "must be 32 bytes in base64", hint="`crony keys new` makes a pair")
    return raw


def _key_id(public: bytes) -> str:
    return hashlib.sha256(public).hexdigest()[:16]
