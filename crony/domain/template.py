"""Facts of a run in the texts of an action: `{{run.id}}`, `{{params.region}}`. Names of a fixed set, no evaluation.

`{{{{` stands for two braces. What a name is replaced by is escaped by whoever knows where it stands.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from crony.domain.check import join
from crony.errors import Invalid

NAMES = ("run.id", "run.attempt", "run.fire_time", "run.part", "run.parts", "job.id", "job.name")
"""What there is beside `params.<name>`."""
_PIECE = re.compile(r"\{\{\{\{|\{\{\s*([^{}]*?)\s*\}\}|\{\{")


class Unfilled(Exception):
    """A text cannot be filled in; says why."""


def check(value: Any, field: str, params: Collection[str], *, also: Callable[[str], bool] = lambda name: False) -> None:
    """Every name in the texts of `value` (nested) is known. `also` knows further names. Raises `Invalid`."""
    if isinstance(value, str):
        for match in _PIECE.finditer(value):
            if match[0] != "{{{{":
                _check_name(match[1], field, params, also)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            check(item, join(field, str(key)), params, also=also)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            check(item, f"{field}[{index}]", params, also=also)


def _check_name(name: str | None, field: str, params: Collection[str], also: Callable[[str], bool]) -> None:
    known = [*NAMES, *(f"params.{each}" for each in params)]
    if name is None:
        raise Invalid(field, "has {{ without a name and }}", hint="write {{run.id}}, or {{{{ for two braces")
    if name in known or also(name):
        return
    if name.startswith("params."):
        raise Invalid(field, f"names {{{{{name}}}}}, which is no parameter of this job", hint="add it to `params`")
    near = difflib.get_close_matches(name[:60], known, n=1)
    hint = f"did you mean {{{{{near[0]}}}}}?" if near else f"known are {', '.join(NAMES)} and params.<name>"
    raise Invalid(field, f"names {{{{{name[:60]}}}}}, which is not known", hint=hint)


def is_secret(name: str) -> bool:
    """A secret of the job; which there are, and where they may stand, is checked where the job's secrets are known."""
    return name.startswith("secret.")


def names(value: Any) -> set[str]:
    """The names in the texts of `value` (nested)."""
    if isinstance(value, str):
        return {match[1] for match in _PIECE.finditer(value) if match[1]} if "{{" in value else set()
    if isinstance(value, Mapping):
        return set().union(*map(names, value.values()))
    if isinstance(value, list | tuple):
        return set().union(*map(names, value))
    return set()


def fill(text: str, facts: Callable[[str], Any], escape: Callable[[str], str] = lambda told: told) -> str:
    """The text with its names replaced: by what `facts` says of each, as text, escaped. Raises `Unfilled`."""
    if "{{" not in text:
        return text

    def piece(match: re.Match[str]) -> str:
        if match[0] == "{{{{":
            return "{{"
        return escape(as_text(_value(match[1], facts)))

    return _PIECE.sub(piece, text)


def fill_json(value: Any, facts: Callable[[str], Any]) -> Any:
    """A JSON value with the texts in it filled; a text that is one name alone becomes the value itself."""
    if isinstance(value, str):
        alone = _PIECE.fullmatch(value)
        return _value(alone[1], facts) if alone and alone[0] != "{{{{" else fill(value, facts)
    if isinstance(value, Mapping):
        return {key: fill_json(item, facts) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [fill_json(item, facts) for item in value]
    return value


def as_text(value: Any) -> str:
    """Text as it is, nothing for null, else JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _value(name: str | None, facts: Callable[[str], Any]) -> Any:
    if name is None:
        raise Unfilled("there is {{ without a name and }}")
    try:
        return facts(name)
    except KeyError:
        raise Unfilled(f"there is no {{{{{name}}}}} in this run") from None
