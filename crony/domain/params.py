"""Parameters: what a job gives its runs, and what may be changed for one of them."""

from __future__ import annotations

import json
from typing import Any

from crony.domain.check import join, plain, texts
from crony.errors import Invalid

PARAMS = 32 * 1024


def parse_params(value: Any, field: str = "params") -> dict[str, Any]:
    """Parameters of a run: a JSON object of at most 32 KiB. Raises `Invalid` naming `field`."""
    return params_of(plain(value, field), field)


def params_of(data: Any, field: str) -> dict[str, Any]:
    """The same of data that is plain already."""
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise Invalid(field, "must be a mapping", hint="write {name: value}")
    for name in data:
        texts(name, join(field, name), most=128)
    size = len(json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode())
    if size > PARAMS:
        raise Invalid(field, f"is {size} bytes long; at most {PARAMS}", hint="pass a reference instead of the data")
    return data
