"""Masking: no secret comes through, in no form programs usually print, wherever the stream is cut."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crony.domain.masking import MASK, Mask

SECRET = "s3cr3t/pa ss+wörd"
KEY = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEG\nCCqGSM49AwEHBG0wawIBAQQg\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    "shown",
    [
        SECRET,
        json.dumps({"password": SECRET}),
        json.dumps({"password": SECRET}, ensure_ascii=False),
        f"https://host/?p={quote(SECRET, safe='')}",
        f"https://host/{quote(SECRET)}",
        repr({"password": SECRET}),
        base64.b64encode(SECRET.encode()).decode(),
        *(base64.b64encode(f"{'u' * n}:{SECRET}".encode()).decode() for n in range(1, 5)),
        base64.urlsafe_b64encode(f"{SECRET}:end".encode()).decode(),
    ],
)
def test_the_usual_forms_are_masked(shown: str) -> None:
    masked = Mask([SECRET]).text(f"before {shown} after")
    assert "***" in masked and masked.startswith("before ") and masked.endswith(" after")
    core = base64.b64encode(SECRET.encode()).decode()[4:-4]
    assert "s3cr3t" not in masked and core not in masked


def test_lines_of_a_long_secret_are_masked_for_themselves_and_its_frame_is_not() -> None:
    masked = Mask([KEY]).text("".join(f"  | {line}\n" for line in KEY.splitlines()))
    assert "MIGHA" not in masked and "CCqGSM" not in masked and "BEGIN PRIVATE KEY" in masked


def test_results_are_masked_whatever_holds_the_secret() -> None:
    mask = Mask(["12345678", "hunter22"])
    found = mask.value({"a": ["x hunter22", 12345678, 1.5, None, True], "hunter22": {"b": "12345678"}})
    assert found == {"a": ["x ***", "***", 1.5, None, True], "***": {"b": "***"}}


def test_without_secrets_everything_comes_through_at_once() -> None:
    stream = Mask([]).stream()
    assert stream.feed(b"abc") == b"abc" and stream.end() == b"" and not Mask([])


def test_what_cannot_be_a_secret_is_not_kept_back() -> None:
    stream = Mask(["hunter22"]).stream()
    assert stream.feed(b"progress 10%\r") == b"progress 10%\r"
    assert stream.feed(b"h") == b"" and stream.feed(b"i") == b"hi"
    assert stream.feed(b"hunter2") == b"" and stream.feed(b"2!") == b"***!"
    assert stream.feed(b"hun") == b"" and stream.end() == b"hun"


def test_a_text_that_was_cut_inside_a_secret_shows_nothing_of_it() -> None:
    """Reasons are cut to a length, answers to a size: before anybody masks them."""
    assert Mask([SECRET]).text(f"ValueError: no luck with {SECRET}"[:-3]) == "ValueError: no luck with ***"
    assert Mask([SECRET, "hunter22"]).text("hunter22 or hunter2") == "*** or ***"


def _expected(secrets: list[str], data: bytes) -> bytes:
    """By the definition: every byte of an occurrence, or of a beginning at the end; each run of them one mask."""
    hidden = [False] * len(data)
    for secret in secrets:
        raw = secret.encode()
        for at in range(len(data) - len(raw) + 1):
            if data[at : at + len(raw)] == raw:
                hidden[at : at + len(raw)] = [True] * len(raw)
        for size in range(4, min(len(raw), len(data) + 1)):
            if data.endswith(raw[:size]):
                hidden[-size:] = [True] * size
    out = bytearray()
    for at, byte in enumerate(data):
        if not hidden[at]:
            out.append(byte)
        elif not at or not hidden[at - 1]:
            out += MASK
    return bytes(out)


@given(
    st.lists(st.text("ab", min_size=4, max_size=7), min_size=1, max_size=3),
    st.lists(st.text("abc", max_size=9), max_size=12),
)
@settings(max_examples=600, deadline=None)
def test_a_stream_is_masked_the_same_however_it_is_cut(secrets: list[str], pieces: list[str]) -> None:
    """Over an alphabet of three letters: secrets overlap themselves and each other all the time."""
    stream = Mask(secrets).stream()
    given_out = b"".join(stream.feed(piece.encode()) for piece in pieces) + stream.end()
    assert given_out == _expected(secrets, "".join(pieces).encode())
