"""The cipher: what was encrypted opens at its place, under its key, and nowhere else."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crony.domain.sealing import CannotDecrypt, Cipher, NoSecretKey, key_id_of, new_secret_key
from crony.errors import Invalid

OLD, NEW = new_secret_key(), new_secret_key()
PLACE = "secret/reports-db"


@pytest.mark.parametrize("plain", ["", "s3cr3t", "每日 \u2028 \x00 \ud800", "x" * 70_000])
def test_what_was_encrypted_opens_and_shows_nothing(plain: str) -> None:
    cipher = Cipher([NEW])
    text = cipher.encrypt(plain, PLACE)
    assert cipher.decrypt(text, PLACE) == plain and Cipher([OLD, NEW]).decrypt(text, PLACE) == plain
    assert cipher.encrypt(plain, PLACE) != text, "equal secrets do not look equal"
    assert len(plain) < 4 or plain.encode("utf-8", "surrogatepass") not in base64.b64decode(text.split(":")[2])


def test_another_place_or_key_opens_nothing() -> None:
    text = Cipher([NEW]).encrypt("s3cr3t", PLACE)
    for keys, place in (([NEW], "secret/other"), ([NEW], "channel/reports-db"), ([OLD], PLACE), ([], PLACE)):
        with pytest.raises(CannotDecrypt) as refused:
            Cipher(keys).decrypt(text, place)
        assert "s3cr3t" not in str(refused.value)
    relabelled = text.replace(key_id_of(text), Cipher([OLD]).key_ids[0])
    with pytest.raises(CannotDecrypt):
        Cipher([OLD, NEW]).decrypt(relabelled, PLACE)


@given(st.integers(0, 10_000), st.integers(1, 127))
@settings(max_examples=200, deadline=None)
def test_any_changed_character_is_noticed(position: int, change: int) -> None:
    text = Cipher([NEW]).encrypt("s3cr3t", PLACE)
    at = position % len(text)
    with pytest.raises(CannotDecrypt):
        Cipher([NEW]).decrypt(text[:at] + chr(ord(text[at]) ^ change) + text[at + 1 :], PLACE)


def test_bits_behind_the_end_are_noticed_too() -> None:
    for length in range(3):
        text = Cipher([NEW]).encrypt("s" * length, PLACE)
        last = len(text.rstrip("=")) - 1
        for change in range(1, 4):
            with pytest.raises(CannotDecrypt):
                Cipher([NEW]).decrypt(text[:last] + chr(ord(text[last]) ^ change) + text[last + 1 :], PLACE)


@pytest.mark.parametrize("text", ["", "x", "crony1", "crony1:", "crony1:a:b", "crony2:a:b", "crony1:%s", "crony1:%s:"])
def test_what_is_no_ciphertext_is_refused(text: str) -> None:
    cipher = Cipher([NEW])
    with pytest.raises(CannotDecrypt):
        cipher.decrypt(text.replace("%s", cipher.key_ids[0]), PLACE)


def test_keys_are_changed_one_after_the_other() -> None:
    text = Cipher([OLD]).encrypt("s3cr3t", PLACE)
    both = Cipher([NEW, OLD])
    assert not both.is_newest(text)
    again = both.again(text, PLACE)
    assert both.is_newest(again) and both.again(again, PLACE) == again
    assert Cipher([NEW]).decrypt(again, PLACE) == "s3cr3t"


def test_without_a_key_nothing_is_encrypted_and_bad_keys_are_named() -> None:
    assert not Cipher([]) and Cipher([NEW])
    with pytest.raises(NoSecretKey, match="CRONY_SECRET_KEY is not set"):
        Cipher([]).encrypt("x", PLACE)
    for bad in ("x", "", base64.b64encode(b"x" * 31).decode(), NEW + "="):
        with pytest.raises(Invalid, match="CRONY_SECRET_KEY") as refused:
            Cipher([bad])
        assert not bad or bad == "x" or bad not in str(refused.value)
