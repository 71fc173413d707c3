"""Stamps: wherever bytes are cut, each keeps its stream and time, and no character is torn that need not be."""

from __future__ import annotations

import random

import pytest

from crony.domain.stamps import Piece, Source, Stamp, characters, cut, only, pack, parse, pieces, unpack
from crony.errors import Invalid


def test_cut_anywhere_nothing_changes() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    for _ in range(200):
        data = dice.randbytes(dice.randint(1, 60))
        places = sorted(dice.randrange(len(data)) for _ in range(dice.randint(0, 20)))
        stamps = [Stamp(at, dice.randint(1, 4), number) for number, at in enumerate(places)]
        stamps = unpack(pack(stamps) + dice.randbytes(dice.randint(0, 16)))
        of_each = [(piece.source, piece.time) for piece in pieces(data, stamps) for _ in piece.data]
        found, place = [], 0
        while place < len(data):
            end = min(len(data), place + dice.randint(1, 9))
            part = cut(stamps, place, end)
            assert all(0 <= stamp.at < end - place for stamp in part)
            found += [(piece.source, piece.time) for piece in pieces(data[place:end], part) for _ in piece.data]
            place = end
        assert found == of_each


def test_one_stream() -> None:
    stamps = [Stamp(2, Source.STDOUT, 1), Stamp(4, Source.STDERR, 2), Stamp(6, 99, 3)]
    assert only(b"aabbccdd", stamps, Source.STDERR) == b"cc"
    assert only(b"aabbccdd", stamps, Source.STDOUT) == b"aabbdd", "what is nobody's counts as standard output"
    assert only(b"aabbccdd", stamps, Source.ANY) == b"aabbccdd"
    assert only(b"aabb", [], Source.STDERR) == b""


def test_characters_stay_whole_within_a_stream() -> None:
    text = "aé名😀z".encode()
    for place in range(len(text)):
        found = list(characters([Piece(1, 1, text[:place]), Piece(1, 2, text[place:])]))
        assert b"".join(piece.data for piece in found) == text
        for piece in found:
            piece.data.decode()
    torn = [Piece(1, 1, b"\xe5\x90"), Piece(2, 2, b"x"), Piece(1, 3, b"\x8d")]
    assert list(characters(torn)) == torn, "bytes of another stream in between: as they came"
    bad = [Piece(1, 1, b"\xff\xc3"), Piece(1, 2, b"\xff")]
    assert b"".join(piece.data for piece in characters(bad)) == b"\xff\xc3\xff"


@pytest.mark.parametrize(
    "data", [b"x", pack([Stamp(5, 1, 1), Stamp(4, 1, 1)]), pack([Stamp(2**60, 1, 1)]), pack([Stamp(0, 1, 2**60)])]
)
def test_stamps_from_elsewhere_are_checked(data: bytes) -> None:
    with pytest.raises(Invalid):
        parse(data)
