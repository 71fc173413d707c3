"""A schedule explained, as the API and `crony schedule explain` answer: words, next fires, clock changes, mistakes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from crony.catalog import views
from crony.catalog.keeping import Lookup
from crony.clock import rfc3339
from crony.domain.hashed import EXAMPLE
from crony.domain.lint import Advice
from crony.web import reasons, refusals, words
from crony.web.formats import WEEKDAYS
from crony.web.i18n import translator


def fires(
    document: Mapping[str, Any],
    n: int,
    after: float | None,
    job: str = EXAMPLE,
    lang: str = "en",
    *,
    lookup: Lookup | None = None,
    standing: views.Standing | None = None,
) -> dict[str, Any]:
    """The next `n` fires of a document's schedule; marks and warnings in `lang`. `lookup` finds calendars.

    `known` false: the fires are not known beforehand, but for the next one that a saved job's `standing` may know.

    Raises `Invalid`.
    """
    found = views.preview(document, n, after, job, lookup=lookup, standing=standing)
    shown = [
        {
            "at": rfc3339(fire.at),
            "local": fire.local,
            "offset": fire.local[-6:],
            "weekday": WEEKDAYS[fire.weekday],
            "relative_seconds": fire.relative_seconds,
            "marks": [
                {"kind": mark.kind, "words": reasons.said(mark.words, translator(lang), lang)} for mark in fire.marks
            ],
        }
        for fire in found.fires
    ]
    return {
        "fires": shown,
        "known": found.known,
        "words": found.words,
        "timezone": found.timezone,
        "example": found.example,
        "warnings": warnings(found.warnings, lang),
    }


def explain(
    document: Mapping[str, Any],
    n: int,
    after: float | None,
    lang: str = "en",
    job: str = EXAMPLE,
    *,
    lookup: Lookup | None = None,
) -> dict[str, Any]:
    """The same with the schedule's words in both languages. Raises `Invalid`."""
    found = fires(document, n, after, job, lang, lookup=lookup)
    chinese = words.localized(found["words"], translator("zh"), "zh")
    return {**found, "words": {"en": found["words"], "zh": chinese}}


def warnings(found: Iterable[Advice], lang: str = "en") -> list[dict[str, str]]:
    """Likely mistakes as plain data; `code` is for programs."""
    return [
        {
            "code": one.code,
            "field": one.field,
            "problem": refusals.said(one.problem, lang),
            "hint": refusals.said(one.hint, lang),
        }
        for one in found
    ]
