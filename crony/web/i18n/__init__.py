"""A small gettext: English text is the key, `zh.json` holds the Chinese; a test keeps the two complete."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from importlib import resources

LANGUAGES = {"en": "English", "zh": "中文"}
"""Language code and its own name."""

Gettext = Callable[..., str]


def N_(text: str) -> str:
    """Marks `text` for translation where it is written; it is translated where it is shown."""
    return text


@lru_cache
def catalogue(language: str) -> dict[str, str]:
    """English text → text in `language`; empty for English."""
    if language == "en" or language not in LANGUAGES:
        return {}
    text = resources.files(__name__).joinpath(f"{language}.json").read_text(encoding="utf-8")
    loaded: dict[str, str] = json.loads(text)
    return loaded


@lru_cache
def translator(language: str) -> Gettext:
    """`_(text, **values)`: `text` in `language`, with `%(name)s` filled in; a text unknown there stays English."""
    known = catalogue(language)

    def translate(message: str, **values: object) -> str:
        text = known.get(message, message)
        return text % values if values else text

    return translate


def choose(cookie: str | None, accept: str | None) -> str:
    """The language to answer in: the cookie's, else the best of `Accept-Language`, else English."""
    if cookie in LANGUAGES:
        return cookie
    wanted: list[tuple[float, int, str]] = []
    for place, item in enumerate((accept or "")[:500].split(",")):
        tag, _, quality = item.strip().partition(";q=")
        try:
            weight = float(quality) if quality else 1.0
        except ValueError:
            continue
        wanted.append((-weight, place, tag.split("-")[0].lower()))
    return next((tag for weight, _, tag in sorted(wanted) if tag in LANGUAGES and weight < 0), "en")
