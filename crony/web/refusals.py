"""Why input was refused, in the reader's language: the templates of the domain's messages, filled in anew.

The domain speaks English only, to programs as well; here its sentence is taken apart by the template it was made from.
A sentence without a template stays English. A test reads the templates from the code, so that none is forgotten.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from importlib import resources

from crony.errors import CronyError, Invalid

_PLACE = re.compile(r"%\((\w)\)s")
_ABOUT = "the document %(a)s"
LONGEST = 300
"""Characters of a sentence that is taken apart; longer ones stay as they are."""


@lru_cache
def templates(language: str) -> dict[str, str]:
    """English template -> its text in `language`; `%(a)s` are what is filled in."""
    return _catalogue(language)["texts"]


def said(text: str, language: str) -> str:
    """A problem or hint of an `Invalid` or `Conflict` in `language`."""
    if language == "en" or not text or len(text) > LONGEST:
        return text
    texts, words = templates(language), _catalogue(language)["words"]
    for pattern, translated in _patterns(language):
        found = pattern.fullmatch(text)
        if found is not None:
            return translated % {
                name: words.get(value) or texts.get(value, value) for name, value in found.groupdict().items()
            }
    return text


def sentence(error: CronyError, language: str) -> str:
    """What happened and why, as above a page; a field's path stays as it is written in the document."""
    if isinstance(error, Invalid):
        problem = said(error.problem, language)
        return f"{error.field}: {problem}" if error.field else problem
    parts = [said(part, language).rstrip(".。") for part in (error.what, error.why) if part]
    return ("。" if language == "zh" else ". ").join(parts)


@lru_cache
def _catalogue(language: str) -> dict[str, dict[str, str]]:
    file = resources.files("crony.web.i18n").joinpath(f"refusals.{language}.json")
    loaded: dict[str, dict[str, str]] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {"texts": loaded.get("texts", {}), "words": loaded.get("words", {})}


@lru_cache
def _patterns(language: str) -> list[tuple[re.Pattern[str], str]]:
    """The most specific first: those with the most text of their own."""
    known = templates(language)
    about = known.get(_ABOUT, "").partition("%")[0]  # a form field leaves out the document: `is not JSON: …`
    short = {
        text.removeprefix("the document "): known[text].removeprefix(about)
        for text in known
        if text.startswith("the document ") and text != _ABOUT
    }
    known = short | known
    order = sorted(known, key=lambda template: (-len(_PLACE.sub("", template)), template))
    return [(_pattern(template), known[template]) for template in order]


def _pattern(template: str) -> re.Pattern[str]:
    pieces = _PLACE.split(template)  # text, name, text, name, …
    made = [
        re.escape(piece.replace("%%", "%")) if at % 2 == 0 else f"(?P<{piece}>.*?)" for at, piece in enumerate(pieces)
    ]
    return re.compile("".join(made), re.DOTALL)
