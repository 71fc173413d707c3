"""Sentences for people, as templates with their values; what a value is decides how it is shown."""

from __future__ import annotations

from collections.abc import Mapping

Sentence = tuple[str, Mapping[str, object]]
"""A template of the catalogue, and its values."""


class At(float):
    """An instant in a sentence."""


class Word(str):
    """A stored word in a sentence, such as an outcome."""


class Reason(str):
    """What leader or node said, in a sentence."""
