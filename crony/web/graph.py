"""A graph drawn on the server, from left to right: no script, themable, every box a link with its words."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

WIDE, TALL = 176, 44
ACROSS, DOWN = 56, 14
EDGE = 6
LONGEST = 22
"""Columns of a label, of which a Chinese character takes two."""


@dataclass(frozen=True, slots=True)
class Box:
    """Something that follows others."""

    id: str
    label: str
    below: str
    """What is said below the label."""
    kind: str
    """An outcome or a state, for its colour; empty: none."""
    href: str
    after: tuple[str, ...] = ()
    """Ids of the boxes that it follows; those that are not there are left out."""
    dashed: bool = False
    """It follows their failure."""
    here: bool = False
    """It is what the page is about."""


def drawing(boxes: Sequence[Box], label: str) -> Markup:
    """The boxes in columns, each to the right of all that it follows."""
    places = _places(boxes)
    columns = max((column for column, _ in places.values()), default=0) + 1
    rows = max((row for _, row in places.values()), default=0) + 1
    width = columns * WIDE + (columns - 1) * ACROSS + 2 * EDGE
    height = rows * TALL + (rows - 1) * DOWN + 2 * EDGE
    parts = [
        f'<svg class="graph" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="group" '
        f'aria-label="{escape(label)}">'
    ]
    for box in boxes:
        x, y = _at(places[box.id])
        for parent in box.after:
            if parent in places and parent != box.id:
                from_x, from_y = _at(places[parent])
                parts.append(_edge(from_x + WIDE, from_y + TALL // 2, x, y + TALL // 2, dashed=box.dashed))
    parts += [_box(box, *_at(places[box.id])) for box in boxes]
    parts.append("</svg>")
    return Markup("".join(parts))


def _places(boxes: Sequence[Box]) -> dict[str, tuple[int, int]]:
    """Column and row of each: as far left as what it follows allows, in a column beside what it follows."""
    above = {box.id: tuple(each for each in box.after if each != box.id) for box in boxes}
    depth = {box.id: 0 for box in boxes}
    for _ in boxes:  # a circle, which somebody may have written, ends after so many rounds
        changed = False
        for box in boxes:
            needed = max((depth[each] + 1 for each in above[box.id] if each in depth), default=0)
            if needed > depth[box.id] and needed < len(boxes):
                depth[box.id], changed = needed, True
        if not changed:
            break
    places: dict[str, tuple[int, int]] = {}
    for column in sorted(set(depth.values())):
        mine = [box for box in boxes if depth[box.id] == column]
        mine.sort(key=lambda box: (_middle(above[box.id], places), box.label))
        places |= {box.id: (column, row) for row, box in enumerate(mine)}
    return places


def _middle(parents: Iterable[str], places: Mapping[str, tuple[int, int]]) -> float:
    rows = [places[parent][1] for parent in parents if parent in places]
    return sum(rows) / len(rows) if rows else 0.0


def _at(place: tuple[int, int]) -> tuple[int, int]:
    column, row = place
    return EDGE + column * (WIDE + ACROSS), EDGE + row * (TALL + DOWN)


def _edge(x: int, y: int, to_x: int, to_y: int, *, dashed: bool) -> str:
    middle = (x + to_x) // 2
    kind = " graph-dashed" if dashed else ""
    path = f"M{x} {y}C{middle} {y} {middle} {to_y} {to_x - 7} {to_y}"
    tip = f"M{to_x - 8} {to_y - 4}L{to_x - 1} {to_y}L{to_x - 8} {to_y + 4}z"
    return f'<path class="graph-edge{kind}" d="{path}"/><path class="graph-tip" d="{tip}"/>'


def _box(box: Box, x: int, y: int) -> str:
    words = f"{box.label}: {box.below}" if box.below else box.label
    kind = f" graph-{escape(box.kind)}" if box.kind else ""
    here = ' aria-current="true"' if box.here else ""
    return (
        f'<a href="{escape(box.href)}" class="graph-box{kind}{" graph-here" if box.here else ""}"{here}>'
        f"<title>{escape(words)}</title>"
        f'<rect x="{x}" y="{y}" width="{WIDE}" height="{TALL}" rx="7"/>'
        f'<rect class="graph-bar" x="{x}" y="{y + 8}" width="3" height="{TALL - 16}"/>'
        f'<text x="{x + 12}" y="{y + 19}" class="graph-label">{escape(_short(box.label))}</text>'
        f'<text x="{x + 12}" y="{y + 34}" class="graph-below">{escape(_cut(box.below))}</text></a>'
    )


def _short(text: str, most: int = LONGEST) -> str:
    """The end of a name tells more than its folder: long ones lose their beginning."""
    taken, kept = 0, ""
    for char in reversed(text):
        taken += 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if taken > most:
            return "…" + kept
        kept = char + kept
    return kept


def _cut(text: str) -> str:
    """Of a sentence the beginning tells more."""
    return _short(text[::-1], LONGEST + 4)[::-1]
