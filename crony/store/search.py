"""What a search for jobs looks at: name, tags, owner, description and action, folded so that case does not matter."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any


def folded(text: str) -> str:
    """`text` without its case, in one Unicode spelling: what is stored and what is looked for alike."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def searchable(document: Mapping[str, Any]) -> str:
    """The folded words of a job document, one part a line. Names of fields are not among them."""
    parts = [str(document.get("name") or ""), str(document.get("owner") or "")]
    tags = document.get("tags")
    parts += [str(tag) for tag in tags] if isinstance(tags, list) else []
    parts.append(str(document.get("description") or ""))
    action = document.get("action")
    if isinstance(action, Mapping):
        for value in action.values():
            parts += _words(value)
    return folded("\n".join(part for part in parts if part))


def _words(value: Any) -> Iterator[str]:
    """Texts and numbers of a value, and the names that people gave inside it (headers, variables)."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield str(name)
            yield from _words(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _words(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)
