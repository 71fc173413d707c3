"""What people type after options: times and pairs."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from crony.errors import Invalid


def moment(text: str) -> str:
    """RFC 3339 of what was written; what is no time is left to the server to refuse."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return text
    return (found if found.tzinfo else found.astimezone()).isoformat()


def pairs(texts: tuple[str, ...], option: str, *, typed: bool = False, separator: str = "=") -> dict[str, Any]:
    """KEY=VALUE texts of an option; `typed`: KEY:=JSON too. Raises `Invalid` naming the option."""
    found: dict[str, Any] = {}
    for text in texts:
        key, marked, value = text.partition(separator)
        key = key.strip()
        parsed: Any = value.strip() if separator == ":" else value
        if typed and key.endswith(":"):
            key = key[:-1]
            try:
                parsed = json.loads(value)
            except (ValueError, RecursionError):
                raise Invalid(option, f"{value!r} is not JSON", hint="text needs no colon: -p key=value") from None
        if not marked or not key:
            raise Invalid(option, f"{text!r} is not KEY{separator}VALUE")
        if key in found:
            raise Invalid(option, f"{key!r} is given twice")
        found[key] = parsed
    return found
