"""What a job is called, and its tags."""

from __future__ import annotations

import re
import sys
import unicodedata
from typing import Any

from crony.domain.check import invisible, listing, texts
from crony.errors import Invalid

_ID = re.compile(r"[jt][0-9a-z]{20}")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")


def parse_name(value: Any, field: str = "name") -> str:
    """A job name, NFC-normalised: 1-200 characters, `/` makes folders. Raises `Invalid` naming `field`."""
    if not isinstance(value, str):
        raise Invalid(field, "must be text", hint="put it into quotes")
    if len(value) > 1000:
        raise Invalid(field, f"is {len(value)} characters long; at most 200", hint="shorten it")
    name = unicodedata.normalize("NFC", texts(value, field, most=8000))
    if len(name) > 200:
        raise Invalid(field, f"is {len(name)} characters long; at most 200", hint="shorten it")
    hidden = invisible(name)
    if hidden:
        raise Invalid(field, f"has an invisible character (U+{ord(hidden):04X})", hint="remove it")
    if name != name.strip():
        raise Invalid(field, "begins or ends with a blank", hint="remove it")
    for segment in name.split("/"):
        if segment in ("", ".", ".."):
            raise Invalid(field, "has an empty, `.` or `..` part between slashes", hint="write folder/name")
        if segment != segment.strip():
            raise Invalid(field, "has a blank beside a slash", hint="remove it")
    if name.startswith("task:"):
        raise Invalid(field, "begins with task:, which names Celery tasks", hint="choose another name")
    if _ESCAPE.search(name):
        raise Invalid(field, "has a percent escape", hint="write the character itself")
    if _ID.fullmatch(name):
        raise Invalid(field, "looks like an id of Crony", hint="choose another name")
    return name


def parse_tags(value: Any) -> tuple[str, ...]:
    """The `tags` of a job, shared between equal ones. Raises `Invalid`."""
    if value is None:
        return ()
    tags = []
    for index, item in enumerate(listing(value, "tags", 32)):
        tag = texts(item, f"tags[{index}]", most=64)
        if tag != tag.strip() or "," in tag:
            raise Invalid(f"tags[{index}]", "has a comma or blanks around it", hint="write one word or phrase per tag")
        if tag in tags:
            raise Invalid(f"tags[{index}]", "is given twice", hint="remove it")
        tags.append(sys.intern(tag))
    return tuple(tags)
