"""JSON the fast way says what the standard library says, also where orjson alone would say something else."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from enum import StrEnum

import pytest

from crony.domain.jsontext import dumps, loads
from crony.domain.run import Done, Envelope


class _Word(StrEnum):
    ONE = "one"


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, True, None, "ä\u2028"], "b": {"c": []}},
        {"big": 2**70, "small": -(2**70), "edge": 2**64},
        {"floats": [1e16, 1e-7, 0.1 + 0.2, -0.0, 5e-324]},
        {1: "a key that is a number", "word": _Word.ONE, _Word.ONE: 1},
        {"none": None, "deep": [{"x": (math.inf, "y")}]},
        [math.nan, None],
        "\N{LATIN SMALL LETTER A WITH DIAERESIS}" * 50,
    ],
)
def test_says_what_the_standard_library_says(value: object) -> None:
    slow = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert repr(loads(dumps(value))) == repr(json.loads(slow))
    assert repr(loads(slow.encode())) == repr(json.loads(slow))


def test_half_a_surrogate_pair() -> None:
    with pytest.raises(UnicodeEncodeError):
        dumps({"name": "\udc80"})
    assert dumps({"name": "\udc80"}, "replace") == b'{"name":"?"}'
    assert loads(b'{"a":"\\ud800"}') == {"a": "\ud800"}


def test_what_is_no_plain_data_is_refused() -> None:
    with pytest.raises(TypeError):
        dumps({"a": object()})
    with pytest.raises(ValueError, match="Expecting"):
        loads(b"{")


def test_a_record_leaves_out_what_is_as_always_and_reads_it_back() -> None:
    envelope = Envelope("r", "j", "n", 1, 2, 1, "run.a", "i", "schedule", {"kind": "shell"}, why="so", priority=3)
    kept = set(json.loads(envelope.encode()))
    assert {"priority", "why", "attempt"} <= kept and not {"labels", "node", "timeout", "delivery"} & kept
    assert Envelope.read(envelope.encode()) == envelope
    changed = envelope.but(timeout=7.0, labels={"zone": "a"})
    assert Envelope.read(changed.encode()) == changed != envelope
    assert Done.read(Done(5).encode()) == Done(5)


def test_every_field_survives() -> None:
    """Whatever its value is, also one that is false where the default is true, or the other way round."""
    for field in fields(Envelope)[10:]:
        for value in (0, 1, "", "x", [], ["x"], {}, {"a": 1}, None, False, True):
            envelope = Envelope("r", "j", "n", 1, 2, 1, "q", "i", "schedule", {}).but(**{field.name: value})
            assert getattr(Envelope.read(envelope.encode()), field.name) == value, field.name
