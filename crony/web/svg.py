"""Small drawings made on the server: no script, themable, readable by screen readers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup


@dataclass(frozen=True, slots=True)
class Bar:
    """One run in a sparkline."""

    outcome: str
    seconds: float
    href: str
    title: str


def sparkline(bars: Sequence[Bar], label: str, *, slots: int = 20, height: int = 26) -> Markup:
    """The latest runs, oldest left: height by duration (logarithmic), colour and a foot mark by outcome."""
    step, width = 6, slots * 6
    shown = list(bars)[-slots:]
    longest = max((bar.seconds for bar in shown), default=0.0)
    parts = [
        f'<svg class="spark" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(label)}">'
    ]
    first = slots - len(shown)
    for place in range(first):
        parts.append(f'<rect class="spark-none" x="{place * step}" y="{height - 3}" width="4" height="1"/>')
    for place, bar in enumerate(shown, start=first):
        share = math.log1p(bar.seconds * 20) / math.log1p(longest * 20) if longest > 0 else 0.0
        tall = round(5 + share * (height - 7), 1)
        kind = escape(bar.outcome)
        body = f'<rect class="spark-{kind}" x="{place * step}" y="{height - tall}" width="4" height="{tall}" rx="1"/>'
        if bar.outcome not in ("succeeded", "running", "queued", "waiting", "requested", "accepted", "skipped"):
            # A notch, so that a bad run is told from a good one without colour.
            body += f'<rect class="spark-notch" x="{place * step}" y="{height - 4}" width="4" height="2"/>'
        parts.append(f'<a href="{escape(bar.href)}" tabindex="-1"><title>{escape(bar.title)}</title>{body}</a>')
    parts.append("</svg>")
    return Markup("".join(parts))
