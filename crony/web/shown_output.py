"""What a run printed as a page shows it: in order, each stream told apart by a word and a colour, with times."""

from __future__ import annotations

import re
from collections.abc import Sequence

from markupsafe import Markup, escape

from crony.domain.stamps import NAMES, Source, Stamp, characters, pieces
from crony.web import ansi
from crony.web.formats import local, offset

MARKS = {Source.STDERR: "err", Source.LOG: "log", Source.CRONY: "crony"}
"""What stands before a line of such a stream. Standard output, the most of all output, has none."""
_LINES = re.compile(r"[^\n]*\n|[^\n]+")


def to_html(data: bytes, stamps: Sequence[Stamp] = (), *, times: str = "") -> Markup:
    """`data` as HTML, safe to show whatever it is. `times`: the zone in which the time of each line is shown; empty:
    none are.

    Where another stream goes on in the middle of a line, a line is begun. What is not UTF-8 is replaced.
    """
    found: list[str] = []
    styles: dict[int, dict[str, str]] = {}
    under_way: int | None = None
    for source, time, part in characters(pieces(data, stamps)):
        text, style = part.decode("utf-8", "replace"), styles.setdefault(source, {})
        mark = MARKS.get(Source(source)) if source in NAMES else None
        stream = source if mark else Source.ANY
        if under_way not in (None, stream):
            found.append("\n")
            under_way = None
        if not mark and not times:
            found.append(ansi.to_html(text, style))
            under_way = None if text.endswith("\n") else stream
            continue
        for line in _LINES.findall(text):
            head = _head(mark, time, times) if under_way is None else ""
            shown = ansi.to_html(line, style)
            found.append(f'{head}<span class="from-{mark}">{shown}</span>' if mark else f"{head}{shown}")
            under_way = None if line.endswith("\n") else stream
    return Markup("".join(found))


def _head(mark: str | None, time: int, zone: str) -> str:
    """What stands before a line: its time, and the mark of its stream, which is shown and never copied."""
    head = ""
    if zone and time:
        moment = local(time / 1000, zone)
        clock = f"{moment:%H:%M:%S}.{time % 1000:03d}{offset(moment)}"
        exact = escape(moment.isoformat(timespec="milliseconds"))
        head = f'<time datetime="{exact}" title="{exact}">{clock}</time> '
    return f'{head}<span class="stream" data-stream="{mark}"></span>' if mark else head
