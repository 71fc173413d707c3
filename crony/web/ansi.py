"""What a job printed, made safe to show: HTML-escaped, colours as classes, every other control made visible.

Output is attacker input. Escape sequences other than colours are dropped; other control characters
and bidirectional overrides are shown as their Unicode pictures or code points, never obeyed.
"""

from __future__ import annotations

import re
from html import escape

from markupsafe import Markup

_SEQUENCE = re.compile(
    r"\x1b\[([0-9;:]{0,40})([A-Za-z@`~])"  # CSI … letter
    r"|\x1b\][^\x07\x1b\n]{0,4096}(?:\x07|\x1b\\)?"  # OSC (titles, links)
    r"|\x1b[PX^_][^\x1b\n]{0,4096}(?:\x1b\\)?"  # DCS, SOS, PM, APC
    r"|\x1b[()*+\-./][0-9A-Za-z]|\x1b[0-9=>A-Z\\]?"
)
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_NAMES = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")


def to_html(text: str, style: dict[str, str] | None = None) -> Markup:
    """`text` as HTML: only `<span class="ansi-…">` and escaped characters. `style`: how it begins; changed to how it
    ends, for what follows."""
    pieces: list[str] = []
    style = {} if style is None else style
    position = 0
    text = text.replace("\r\n", "\n")
    for match in _SEQUENCE.finditer(text):
        _append(pieces, text[position : match.start()], style)
        position = match.end()
        if match.group(2) == "m":
            _apply(style, match.group(1) or "0")
    _append(pieces, text[position:], style)
    return Markup("".join(pieces))


def plain(text: str) -> str:
    """`text` without escape sequences, controls made visible; for excerpts and terminals."""
    return _CONTROL.sub(_picture, _SEQUENCE.sub("", text.replace("\r\n", "\n")))


def _append(pieces: list[str], text: str, style: dict[str, str]) -> None:
    if not text:
        return
    safe = _CONTROL.sub(lambda match: f'<span class="ansi-control">{_picture(match)}</span>', escape(text))
    classes = " ".join(f"ansi-{value}" for value in style.values())
    pieces.append(f'<span class="{classes}">{safe}</span>' if classes else safe)


def _picture(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"⟨U+{code:04X}⟩"


def _apply(style: dict[str, str], parameters: str) -> None:
    codes = [int(part) if part.isdigit() and len(part) < 4 else 0 for part in re.split("[;:]", parameters)]
    position = 0
    while position < len(codes):
        code = codes[position]
        if code == 0:
            style.clear()
        elif code in (1, 2, 3, 4):
            style["weight" if code < 3 else f"s{code}"] = ("bold", "dim", "italic", "underline")[code - 1]
        elif code == 22:
            style.pop("weight", None)
        elif code in (23, 24):
            style.pop(f"s{code - 20}", None)
        elif 30 <= code <= 37 or 90 <= code <= 97:
            style["fg"] = _NAMES[code % 10]
        elif 40 <= code <= 47 or 100 <= code <= 107:
            style["bg"] = f"bg-{_NAMES[code % 10]}"
        elif code in (39, 49):
            style.pop("fg" if code == 39 else "bg", None)
        elif code == 49:
            style.pop("bg", None)
        elif code in (38, 48):  # 256 and true colours have no class here: skip their parameters
            position += 2 if codes[position + 1 : position + 2] == [5] else 4
        position += 1
