"""Seals: only what a trusted key signed is opened, whatever else arrives."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crony.domain.signing import BadSeal, Sealer, Verifier, new_key, peek, public_key
from crony.errors import Invalid

PRIVATE, PUBLIC = new_key()
OTHER_PRIVATE, OTHER_PUBLIC = new_key()
PAYLOAD = {"v": 1, "run": "j1.1.60", "text": "每日 \u2028 \x00", "n": [1, 2.5, None, True]}


def test_what_was_sealed_opens() -> None:
    sealed = Sealer(PRIVATE).seal(PAYLOAD)
    assert Verifier([PUBLIC]).open(sealed) == PAYLOAD
    assert Verifier([OTHER_PUBLIC, PUBLIC]).open(sealed.decode()) == PAYLOAD
    assert peek(sealed) == PAYLOAD
    assert public_key(PRIVATE) == PUBLIC


def test_another_key_is_refused() -> None:
    sealed = Sealer(OTHER_PRIVATE).seal(PAYLOAD)
    for trusted in ([PUBLIC], []):
        with pytest.raises(BadSeal):
            Verifier(trusted).open(sealed)


def test_a_key_id_is_no_proof() -> None:
    """Signed by a stranger, labelled with a trusted key's id."""
    sealed = json.loads(Sealer(OTHER_PRIVATE).seal(PAYLOAD))
    sealed["k"] = Sealer(PRIVATE).key_id
    with pytest.raises(BadSeal):
        Verifier([PUBLIC, OTHER_PUBLIC]).open(json.dumps(sealed))


@given(st.integers(0, 10_000), st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_any_changed_byte_is_noticed(position: int, change: int) -> None:
    sealed = bytearray(Sealer(PRIVATE).seal(PAYLOAD))
    sealed[position % len(sealed)] ^= change
    try:
        opened = Verifier([PUBLIC]).open(bytes(sealed))
    except BadSeal:
        return
    assert opened == PAYLOAD, "blanks outside the payload may change, what was signed may not"


@given(st.binary(max_size=80) | st.text('{}[]"pks:,1\ud800', max_size=40))
@settings(max_examples=200, deadline=None)
def test_anything_else_is_a_bad_seal(data: bytes | str) -> None:
    with pytest.raises(BadSeal):
        Verifier([PUBLIC]).open(data)


@pytest.mark.parametrize(
    "record", ["null", "5", '""', "[]", "{}", '{"p": 1, "k": 2, "s": 3}', "[" * 100_000, '{"k": []}']
)
def test_other_json_is_a_bad_seal(record: str) -> None:
    with pytest.raises(BadSeal):
        Verifier([PUBLIC]).open(record)


@pytest.mark.parametrize("payload", ["[]", "5", "null", "not json"])
def test_a_sealed_payload_must_be_an_object(payload: str) -> None:
    sealer = Sealer(PRIVATE)
    sealed = json.loads(sealer.seal({}))
    sealed["p"] = payload
    sealed["s"] = base64.b64encode(sealer._key.sign(payload.encode())).decode()
    with pytest.raises(BadSeal):
        Verifier([PUBLIC]).open(json.dumps(sealed))


@pytest.mark.parametrize(
    "key", ["", "x", "AAAA", base64.b64encode(b"x" * 31).decode(), base64.b64encode(b"x" * 33).decode(), "é"]
)
def test_keys_are_checked(key: str) -> None:
    with pytest.raises(Invalid):
        Sealer(key)
    with pytest.raises(Invalid):
        Verifier([key])


def test_a_key_that_is_not_set_is_told_so() -> None:
    with pytest.raises(Invalid, match=r"CRONY_SIGNING_KEY: is not set.*crony keys new"):
        Sealer("")
