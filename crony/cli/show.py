"""What the command line prints: tables for people, JSON for programs, times with their zone, nothing unescaped."""

from __future__ import annotations

import json
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])

_COLOURS = {
    "succeeded": "green",
    "failed": "red",
    "timed_out": "red",
    "lost": "red",
    "refused": "red",
    "unknown": "red",
    "cancelled": "yellow",
    "skipped": "yellow",
    "running": "cyan",
    "on": "green",
    "off": "yellow",
    "ok": "green",
    "look": "yellow",
    "bad": "red",
    "ready": "green",
    "draining": "yellow",
    "cordoned": "yellow",
}


def output_option(function: Function) -> Function:
    """`-o table|json`."""
    return click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="table for people, json (the API's objects) for programs",
    )(function)


def plain(value: object) -> str:
    """`value` as one line of text in which control and direction-changing characters are visible, not obeyed."""
    text = "" if value is None else str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp") else _escaped(character)
        for character in text
    )


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def coloured() -> bool:
    """Whether standard output may carry colours: a terminal, and nobody said no (NO_COLOR, TERM=dumb)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return sys.stdout.isatty()


def colour(word: str) -> str:
    """A state or outcome in its colour, where colours are wanted."""
    return click.style(word, fg=_COLOURS[word]) if word in _COLOURS and coloured() else word


def data(value: Any) -> None:
    """`value` as JSON on standard output."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "") -> None:
    """Rows under headings, columns aligned also where characters are two columns wide. No rows: `empty` on stderr."""
    cells = [[plain(value) or "-" for value in row] for row in rows]
    if not cells:
        if empty:
            click.echo(empty, err=True)
        return
    widths = [max(_width(heading), *(_width(row[i]) for row in cells)) for i, heading in enumerate(headings)]
    click.echo(_line(headings, widths, lambda text: click.style(text, bold=True) if coloured() else text))
    for row in cells:
        click.echo(_line(row, widths, colour))


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Name and value, one pair a line; pairs without a value are left out."""
    rows = [(name, plain(value)) for name, value in pairs if value not in (None, "", [], {})]
    width = max((_width(name) for name, _ in rows), default=0)
    for name, value in rows:
        click.echo(f"{name}{' ' * (width - _width(name))}  {colour(value)}")


def hint(text: str) -> None:
    """A remark for people, on standard error."""
    click.echo(text, err=True)


def moment(text: str | None, *, exact: bool = False) -> str:
    """An RFC 3339 time of the API as local time with its zone's offset; `exact`: to the millisecond."""
    if not text:
        return "-"
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return plain(text)
    local = at.astimezone()
    if exact:
        return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d}{local:%z}"
    return local.strftime("%Y-%m-%d %H:%M:%S%z")


def away(text: str | None) -> str:
    """How far a time of the API is from now: `in 3m`, `2h ago`."""
    if not text:
        return "-"
    try:
        seconds = (datetime.fromisoformat(text) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return plain(text)
    return f"in {span(seconds)}" if seconds >= 0 else f"{span(-seconds)} ago"


def span(seconds: float | None) -> str:
    """A duration for people: 0.24s, 12s, 3m 20s, 2h 5m, 3d 4h."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.2f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _line(cells: Sequence[str], widths: Sequence[int], style: Callable[[str], str]) -> str:
    return "  ".join(
        style(cell) + " " * (width - _width(cell)) for cell, width in zip(cells, widths, strict=True)
    ).rstrip()


_SGR = re.compile(r"\x1b\[[0-9;]*m")


def harmless(text: str) -> str:
    """Text of a job for a terminal: lines, tabs and colours stay, every other control sequence is shown instead."""
    kept, at = [], 0
    for match in _SGR.finditer(text):
        kept += [_visible(text[at : match.start()]), match.group()]
        at = match.end()
    return "".join([*kept, _visible(text[at:])])


def _visible(text: str) -> str:
    return "".join(plain(character) if character not in "\n\t" else character for character in text)
