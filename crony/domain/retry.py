"""How long a failed run waits before its next attempt."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any


def delay(retry: Mapping[str, Any], finished: int, run: str, asked: float = 0.0) -> float:
    """Seconds until the next attempt after `finished` (>= 1) attempts ended.

    `asked`: for how long the callee asks to be left alone; never less than that, and never more than `max_delay`.

    `retry` is the section of an envelope (durations in seconds): exponential backoff doubles
    `delay` with each attempt up to `max_delay`, fixed keeps it. With jitter the result lies between
    half of that and all of it, chosen by run and attempt: every leader computes the same.
    """
    base, longest = float(retry.get("delay", 10.0)), float(retry.get("max_delay", 600.0))
    if retry.get("backoff", "exponential") == "exponential":
        base = min(base * 2.0 ** min(max(finished, 1) - 1, 60), longest)
    base = min(base, longest)
    if retry.get("jitter", True):
        digest = hashlib.sha256(f"{run}:{finished}".encode()).digest()
        base *= 0.5 + int.from_bytes(digest[:6]) / (1 << 49)
    return max(base, min(asked, longest))
