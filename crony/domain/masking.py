"""Masking: secrets are taken out of whatever a job prints, answers or dies of, wherever a text is cut into pieces.

A secret is found as it is, and in the forms in which programs usually show it: as a JSON text, percent-encoded, in
Base64 (also inside a longer text, as in basic authentication), and each longer line of a secret of several lines. At
the end of a text its beginning is one, too (four bytes or more): the text may have been cut there.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, quote_plus

MASK = b"***"
LINE = 8
"""Fewest bytes of a line, or of a Base64 form, that is masked for itself."""
_HEAD = 4


class Mask:
    """Knows the secrets of one attempt. Immutable; safe in several threads."""

    def __init__(self, values: Iterable[str]) -> None:
        forms = {form for value in values for form in _forms(value)}
        self._forms = tuple(sorted(forms, key=lambda form: (-len(form), form)))
        self._heads = tuple({form[:_HEAD] for form in self._forms})
        self._starts = frozenset(head[:size] for head in self._heads for size in range(1, _HEAD))
        self._longest = max(map(len, self._forms), default=0)

    def __bool__(self) -> bool:
        """Whether there is anything to mask."""
        return bool(self._forms)

    def stream(self) -> Stream:
        """For one stream of bytes, masked as it comes."""
        return Stream(self)

    def data(self, data: bytes) -> bytes:
        """`data` with the secrets masked."""
        if not self._likely(data):
            return data
        stream = Stream(self)
        return stream.feed(data) + stream.end()

    def blotted(self, data: bytes) -> bytes:
        """As many bytes as `data`, a `*` for each of a secret; the beginning of one at the end is one, too."""
        made, end = bytearray(data), self.undecided(data)
        spans = self.covered(data) + ([(end, len(data))] if len(data) - end >= _HEAD else [])
        for start, stop in spans:
            made[start:stop] = b"*" * (stop - start)
        return bytes(made)

    def text(self, text: str) -> str:
        """`text` with the secrets masked."""
        if not self._forms or not text:
            return text
        return self.data(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def value(self, value: Any) -> Any:
        """A JSON value with the secrets masked in every text, key and number of it."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        if isinstance(value, int | float) and not isinstance(value, bool) and self.text(str(value)) != str(value):
            return MASK.decode()
        return value

    def _likely(self, data: bytes, start: int = 0) -> bool:
        """Whether a form may begin in `data`: in most there is none."""
        return any(data.find(head, start) >= 0 for head in self._heads)

    def covered(self, data: bytes) -> list[tuple[int, int]]:
        """Where forms stand in `data`, overlapping or not, in the order of their beginnings."""
        found: list[tuple[int, int]] = []
        if not self._likely(data):
            return found
        for form in self._forms:
            at = data.find(form)
            while at >= 0:
                found.append((at, at + len(form)))
                at = data.find(form, at + 1)
        return sorted(found)

    def undecided(self, data: bytes) -> int:
        """From where on the end of `data` may be the beginning of a form; its length: from nowhere."""
        first = max(0, len(data) - self._longest + 1)
        best = len(data)
        for short in range(min(_HEAD - 1, len(data) - first), 0, -1):
            if data[len(data) - short :] in self._starts:
                best = len(data) - short
                break
        if not self._likely(data, first):
            return best
        for head in self._heads:
            at = data.find(head, first)
            while 0 <= at < best:
                rest = data[at:]
                if any(len(form) > len(rest) and form.startswith(rest) for form in self._forms):
                    best = at
                    break
                at = data.find(head, at + 1)
        return best


class Stream:
    """One stream on its way: `feed` gives what is certain, `end` the rest. The same however the stream is cut."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._rest = b""
        self._known = 0
        """So many bytes of the rest are covered already, by a form that began before it."""
        self._open = False
        """The last byte given out was covered."""

    def feed(self, data: bytes) -> bytes:
        """The next bytes, as far as they are decided."""
        whole = self._rest + data
        return self._upto(whole, self._mask.undecided(whole))

    def end(self) -> bytes:
        """What was kept back: nothing follows. The beginning of a secret is masked, too: the text was cut in it."""
        if len(self._rest) >= _HEAD:
            self._known = len(self._rest)
        return self._upto(self._rest, len(self._rest))

    def _upto(self, whole: bytes, end: int) -> bytes:
        if not end:
            self._rest = whole
            return b""
        spans = self._mask.covered(whole)
        given, at, known = bytearray(), 0, 0
        for start, stop in _merged([(0, self._known), *spans] if self._known else spans):
            if start >= end:
                break
            if start > at:
                given += whole[at:start]
                self._open = False
            if not self._open:
                given += MASK
            self._open = True
            at, known = min(stop, end), max(0, stop - end)
        if at < end:
            given += whole[at:end]
            self._open = False
        self._rest, self._known = whole[end:], known
        return bytes(given)


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Their union: apart from each other, in order."""
    union: list[tuple[int, int]] = []
    for start, stop in spans:
        if union and start <= union[-1][1]:
            union[-1] = union[-1][0], max(stop, union[-1][1])
        else:
            union.append((start, stop))
    return union


def _forms(value: str) -> Iterable[bytes]:
    raw = value.encode()
    texts = {value, value.strip(), json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    texts |= {quote(value), quote(value, safe=""), quote_plus(value), repr(value)[1:-1]}
    texts |= {line.strip() for line in value.splitlines() if len(line.strip()) >= LINE and not _is_frame(line)}
    yield from (text.encode() for text in texts if len(text.encode()) >= _HEAD)
    if len(raw) >= LINE:
        for variant in (base64.b64encode, base64.urlsafe_b64encode):
            for shift in range(3):
                made = variant(b"\0" * shift + raw)
                # Only the digits that no neighbour of the secret has a share in.
                head, tail = (shift * 8 + 5) // 6, (shift + len(raw)) * 8 // 6
                yield made[head:tail]


def _is_frame(line: str) -> bool:
    return re.fullmatch(r"-----(BEGIN|END) [A-Z0-9 ]+-----", line.strip()) is not None
