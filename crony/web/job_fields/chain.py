"""Whose ends a job follows, and what it takes from them: one `name = fact of job` per line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from crony.domain.after import FACTS, WITHIN, After, Take
from crony.errors import Invalid
from crony.web.job_fields.reading import given, names, whole

DEFAULTS = {
    "after_jobs": "", "after_on": "success", "after_of": "all", "after_need": "", "after_within": WITHIN,
    "after_results": "",
}  # fmt: skip
PATHS = ((r"after\.(jobs|on|of|within|results)\b.*", r"after_\1"), (r"after.*", "after_jobs"))
_TAKE = re.compile(r"(?P<fact>[a-z]+)(?:\.(?P<path>.*?))?(?: of (?P<job>.+))?")


def field_of(name: str, values: Mapping[str, str]) -> str:
    """The number of parents has a field of its own."""
    return "after_need" if name == "after_of" and values.get("after_of") == "number" else name


def document(values: Mapping[str, str]) -> dict[str, Any] | None:
    """The `after` of a job; None: it follows nobody. Raises `Invalid`."""
    jobs = names(values, "after_jobs", "\n")
    if not jobs:
        return None
    of = whole(values, "after_need") if values["after_of"] == "number" else values["after_of"]
    made: dict[str, Any] = {"jobs": jobs, "on": values["after_on"], "of": of}
    made |= given(values, ("within",), "after_")
    results = _results(values)
    return {**made, "results": results} if results else made


def fields(after: After | None) -> dict[str, str]:
    """The fields of a job's `after`."""
    if after is None:
        return {}
    number = isinstance(after.of, int)
    return {
        "after_jobs": "\n".join(after.jobs), "after_on": after.on, "after_of": "number" if number else str(after.of),
        "after_need": str(after.of) if number else "", "after_within": after.document()["within"],
        "after_results": "\n".join(
            f"{name} = {_words(take, alone=len(after.jobs) == 1)}" for name, take in after.results
        ),
    }  # fmt: skip


def _words(take: Take, *, alone: bool) -> str:
    path = f".{take.path}" if take.path else ""
    return f"{take.fact}{path}" if alone else f"{take.fact}{path} of {take.job}"


def _results(values: Mapping[str, str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for line in names(values, "after_results", "\n"):
        name, marked, text = (part.strip() for part in line.partition("="))
        match = _TAKE.fullmatch(text)
        if not marked or not name or match is None or match["fact"] not in FACTS:
            hint = f"write name = result.total of folder/job; instead of result: {', '.join(FACTS[1:])}"
            raise Invalid("after_results", f"`{line[:40]}` cannot be read", hint=hint)
        if name in found:
            raise Invalid("after_results", f"gives {name[:40]} twice")
        found[name] = {part: told for part, told in match.groupdict().items() if told}
    return found
