"""The web's output ingest, as far as nodes see it: a real HTTP service that keeps what it gets by run and attempt."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from crony.domain.stamps import NAMES, Stamp, parse, pieces
from tests.helpers.service import Asked, Service, service


@dataclass
class Kept:
    """Output as it arrived."""

    token: str = "node-token"
    data: dict[tuple[str, int], bytes] = field(default_factory=dict)
    final: dict[tuple[str, int], bool] = field(default_factory=dict)
    """(run, attempt) -> whether it was truncated, once final."""
    stamps: dict[tuple[str, int], list[Stamp]] = field(default_factory=dict)
    old: bool = False
    """It is of a version before stamps."""
    refuse: int = 0
    """Status to answer everything with; 0: take it."""
    broken: set[tuple[str, int]] = field(default_factory=set)
    """(run, attempt) whose output the web fails on: 500."""
    service: Service | None = None

    def answer(self, asked: Asked) -> tuple[int, dict[str, str], bytes]:
        """One request."""
        kind = {"Content-Type": "application/json"}
        if asked.headers.get("authorization") != f"Bearer {self.token}":
            return 401, kind, b'{"title": "Unauthorized", "detail": "no such token"}'
        if self.refuse:
            return self.refuse, kind, b'{"title": "refused", "detail": "by the test"}'
        assert asked.path == "/api/v1/ingest/output" and asked.method == "POST"
        where = (asked.headers["x-crony-run"], int(asked.headers["x-crony-attempt"]))
        if where in self.broken:
            return 500, kind, b'{"title": "Internal Server Error"}'
        have, offset = self.data.get(where, b""), int(asked.headers["x-crony-offset"])
        if self.old and asked.headers["content-type"] != "application/octet-stream":
            return 415, kind, b'{"title": "Unsupported Media Type"}'
        size, body = int(asked.headers.get("x-crony-stamps", 0)), zlib.decompress(asked.body)
        chunk = body[size:]
        if offset <= len(have):
            known = self.stamps.setdefault(where, [])
            told = [stamp._replace(at=stamp.at + offset) for stamp in parse(body[:size])]
            known[:] = [stamp for stamp in known if stamp.at < offset] + told
            have = self.data[where] = have + chunk[len(have) - offset :]
            if asked.headers["x-crony-final"] == "1" and offset + len(chunk) >= len(have):
                self.final[where] = asked.headers["x-crony-truncated"] == "1"
        return 200, kind, json.dumps({"have": len(have)}).encode()

    def streams(self, run: str, attempt: int = 1) -> list[tuple[str, bytes]]:
        """What came by which stream, in order, neighbours of one stream together."""
        found: list[tuple[str, bytes]] = []
        for piece in pieces(self.data[run, attempt], self.stamps[run, attempt]):
            name = NAMES.get(piece.source, "")
            if found and found[-1][0] == name:
                found[-1] = name, found[-1][1] + piece.data
            else:
                found.append((name, piece.data))
        return found


@contextmanager
def ingest(port: int = 0, kept: Kept | None = None) -> Iterator[Kept]:
    """A running ingest; hand `kept` in to go on with what a stopped one had."""
    kept = kept or Kept()
    with service(kept.answer, port) as made:
        kept.service = made
        yield kept
