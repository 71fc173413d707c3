"""Between the text of a form's field and a value; what is refused names the field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from crony.domain.check import load_json
from crony.errors import Invalid

COMMAS = "[,，\n]"
"""What stands between names in one field."""


def pairs(values: Mapping[str, str], field: str, mark: str, between: str, *, strip: bool = True) -> dict[str, str]:
    """Names and texts with `mark` between the two. Raises `Invalid`."""
    found: dict[str, str] = {}
    for line in re.split(between, values[field]):
        if not line.strip():
            continue
        key, marked, text = line.partition(mark)
        key = key.strip()
        if not marked or not key:
            raise Invalid(
                field, f"has no `{mark}` in `{line.strip()[:40]}`", hint=f"write name{mark}value, one per line"
            )
        if key in found:
            raise Invalid(field, f"gives {key[:40]} twice")
        found[key] = text.strip() if strip else text
    return found


def names(values: Mapping[str, str], field: str, between: str = COMMAS) -> list[str]:
    """Names, one after the other."""
    return [name.strip() for name in re.split(between, values[field]) if name.strip()]


def numbers(values: Mapping[str, str], field: str) -> list[int]:
    """Whole numbers with commas or blanks. Raises `Invalid`."""
    found = re.split(r"[,，\s]+", values[field].strip())
    if not all(re.fullmatch("[0-9]{1,3}", number, re.ASCII) for number in found):
        raise Invalid(field, "must be whole numbers with commas", hint="such as 3, 64")
    return [int(number) for number in found]


def parsed(values: Mapping[str, str], field: str, kind: type) -> Any:
    """JSON of this kind (`dict`, `list`; `object`: any). Raises `Invalid`."""
    try:
        value = load_json(values[field])
    except Invalid as error:
        raise Invalid(field, error.problem.replace("the document ", ""), hint=error.hint) from None
    if not isinstance(value, kind):
        raise Invalid(field, "must be an object: {…}" if kind is dict else "must be a list: […]")
    return value


def whole(values: Mapping[str, str], field: str) -> int:
    """A whole number. Raises `Invalid`."""
    text = values[field].strip()
    if not re.fullmatch("[0-9]{1,9}", text, re.ASCII):
        raise Invalid(field, "must be a whole number")
    return int(text)


def given(values: Mapping[str, str], wanted: Iterable[str], prefix: str = "") -> dict[str, str]:
    """Those of the wanted fields that say something, without the prefix of their names and blanks around them."""
    return {name: text for name in wanted if (text := values[prefix + name].strip())}


def flag(value: bool) -> str:
    """A check box."""
    return "1" if value else ""


def lines(found: Mapping[str, str], mark: str) -> str:
    """What `pairs` reads, one per line."""
    return "\n".join(f"{key}{mark}{value}" for key, value in found.items())


def written(value: Any, *, empty: str | None = None) -> str:
    """JSON as people read it. `empty`: what stands for an empty object or list."""
    return empty if empty is not None and not value else json.dumps(value, ensure_ascii=False, indent=2)
