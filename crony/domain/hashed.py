"""`H` in cron text: a value that is stable for a job and spread over jobs, so that not all of them start at 02:00.

`H` is any value of the field (days of the month: 1 to 28, which every month has), `H(0-29)` one of that range, `H/15`
every 15 from a hashed start, `H(9-17)/2` the same within the range. The value follows from the job's id and the field
alone: the same on every centre and after every restart, a rename keeps it, a new job of the same name gets its own.
"""

from __future__ import annotations

import re
from hashlib import sha256

from crony.domain.crontext import Rule
from crony.errors import Invalid

EXAMPLE = ""
"""Stands for the id of a job that has none yet: what it gives is an example."""
_HASH = re.compile(r"h(?:\(([0-9]{1,4})-([0-9]{1,4})\))?(?:/([0-9]{1,4}))?")


def is_hashed(part: str) -> bool:
    """Whether a field (in lower case) has an `H` of its own."""
    return any(_HASH.fullmatch(item) for item in part.split(","))


def resolve(part: str, rule: Rule, ident: str, field: str) -> str:
    """The field with numbers in place of each `H`. Raises `Invalid` for a range that the field does not have."""
    return ",".join(_item(item, rule, ident, field) for item in part.split(",")) if "h" in part else part


def _item(item: str, rule: Rule, ident: str, field: str) -> str:
    match = _HASH.fullmatch(item)
    if match is None:
        return item
    name, low, high, _ = rule
    if name == "year":
        raise Invalid(field, "year: H has no meaning for years", hint="write `*` or the years themselves")
    first, last = low, 28 if name == "day of month" else 6 if (name, high) == ("day of week", 7) and not low else high
    if match[1]:
        first, last = int(match[1]), int(match[2])
        if not low <= first <= last <= high:
            raise Invalid(field, f"{name}: `{item.upper()}` is no range of it", hint=f"write H({low}-{high}) or less")
    value = int.from_bytes(sha256(f"{ident}/{name}".encode()).digest()[:8])
    if match[3] is None:
        return str(first + value % (last - first + 1))
    step = int(match[3])
    if not 1 <= step <= last - first + 1:
        raise Invalid(
            field, f"{name}: a step of {step} does not fit into {first}-{last}", hint="write a smaller step, such as H"
        )
    start = first + value % step
    return f"{start}-{last}/{step}" if start < last else str(start)
