"""The witness: every change of a whole etcd in revision order, and what everybody else did, line by line in a file.

It speaks to etcd's JSON gateway by itself, over connections that no proxy touches, and shares no code with Crony: a
fault in Crony's own watch must not blind who looks for it. Revisions of an etcd have no gaps, so a missing one shows.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.helpers.wait import until

TICK = "/soak/tick"
"""A key of our own, put every now and then with the time: it dates the revisions around it."""
TICK_EVERY = 0.25
SILENT = 2.0
"""Seconds after which a watch that says nothing is opened anew; there are ticks."""


class Journal:
    """Lines of JSON in a file, from any thread, whole even when the process is killed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def note(self, kind: str, **facts: Any) -> None:
        """Write one line down, stamped with the wall clock unless it says when."""
        line = json.dumps({"kind": kind, "at": time.time(), **facts}, separators=(",", ":"))
        with self._lock:
            self._file.write(line + "\n")

    def close(self) -> None:
        """Write no more."""
        with self._lock:
            self._file.close()


class Gateway:
    """The few requests that a witness makes, at whichever member answers."""

    def __init__(self, endpoints: Sequence[str]) -> None:
        self._at = [(parts.hostname or "", parts.port or 0) for parts in map(urlsplit, endpoints)]
        self._next = 0

    def call(self, path: str, body: dict[str, Any], timeout: float = 1.0) -> dict[str, Any]:
        """One request; the next member is tried after a failure. Raises OSError when none answers."""
        error: Exception = OSError("no member")
        for _ in self._at:
            try:
                connection = self.connect(timeout)
                with contextlib.closing(connection):
                    connection.request("POST", path, json.dumps(body))
                    answer = json.loads(connection.getresponse().read())
                if "error" not in answer:
                    return dict(answer)
                error = OSError(str(answer["error"]))
            except (OSError, ValueError, http.client.HTTPException) as failed:
                error = failed
            self._next += 1
        raise OSError(str(error)) from error

    def connect(self, timeout: float) -> http.client.HTTPConnection:
        """A connection to the member whose turn it is."""
        host, port = self._at[self._next % len(self._at)]
        return http.client.HTTPConnection(host, port, timeout=timeout)

    def skip(self) -> None:
        """The next member's turn."""
        self._next += 1

    def everything(self) -> tuple[int, list[dict[str, Any]]]:
        """(revision, all pairs)."""
        answer = self.call("/v3/kv/range", {"key": text64("\0"), "range_end": text64("\0")}, timeout=10)
        return int(answer["header"]["revision"]), list(answer.get("kvs", ()))

    def revision(self) -> int:
        """The revision now."""
        body = {"key": text64("\0"), "range_end": text64("\0"), "count_only": True}
        return int(self.call("/v3/kv/range", body, timeout=5)["header"]["revision"])


class Recorder:
    """Follows one etcd from a revision on, and writes every change into the journal; ticks meanwhile."""

    def __init__(self, endpoints: Sequence[str], journal: Journal) -> None:
        self._gateway, self._ticks = Gateway(endpoints), Gateway(endpoints)
        self._journal = journal
        self._stopping = threading.Event()
        self.start_revision = self.revision = self._gateway.revision()
        self._connection: http.client.HTTPConnection | None = None
        self._threads = [
            threading.Thread(target=each, name=f"recorder{each.__name__}", daemon=True)
            for each in (self._follow, self._tick)
        ]
        journal.note("recorder", revision=self.revision)
        for thread in self._threads:
            thread.start()

    def catch_up(self, timeout: float = 10.0) -> int:
        """Wait until everything until now was seen; the revision."""
        now = until(self._now, timeout, "etcd to tell its revision")
        until(lambda: self.revision >= now, timeout, "the recorder to have seen everything")
        return now

    def stop(self) -> None:
        """See no more."""
        self._stopping.set()
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(2)
        for thread in self._threads:
            thread.join(5)

    def _now(self) -> int:
        try:
            return self._gateway.revision()
        except OSError:
            return 0

    def _tick(self) -> None:
        while not self._stopping.wait(TICK_EVERY):
            with contextlib.suppress(OSError):
                value = base64.b64encode(repr(time.time()).encode()).decode()
                self._ticks.call("/v3/kv/put", {"key": text64(TICK), "value": value})

    def _follow(self) -> None:
        watching = Gateway([f"http://{host}:{port}" for host, port in self._gateway._at])
        while not self._stopping.is_set():
            try:
                self._stream(watching)
            except (OSError, ValueError, http.client.HTTPException):
                watching.skip()
                self._stopping.wait(0.05)

    def _stream(self, watching: Gateway) -> None:
        wanted = {"key": text64("\0"), "range_end": text64("\0"), "start_revision": str(self.revision + 1)}
        connection = self._connection = watching.connect(SILENT)
        with contextlib.closing(connection):
            connection.request("POST", "/v3/watch", json.dumps({"create_request": wanted}))
            answer = connection.getresponse()
            while not self._stopping.is_set() and (line := answer.readline()):
                told = json.loads(line)
                if "error" in told or told.get("result", {}).get("canceled"):
                    if told.get("result", {}).get("compact_revision"):
                        self._journal.note("blind", after=self.revision, why=str(told["result"]))
                        self.revision = int(told["result"]["compact_revision"]) - 1
                    raise OSError(str(told))
                self._write(told["result"].get("events", ()))

    def _write(self, events: Sequence[dict[str, Any]]) -> None:
        at, last = time.time(), self.revision
        for event in events:
            pair = event["kv"]
            revision = int(pair["mod_revision"])
            if revision <= last:
                continue
            put = event.get("type") != "DELETE"
            facts: dict[str, Any] = {"rev": revision, "key": text(pair["key"])}
            if put:
                facts |= {"value": text(pair.get("value", "")), "create": int(pair["create_revision"])}
                if pair.get("lease"):
                    facts["lease"] = int(pair["lease"])
            self._journal.note("put" if put else "delete", at=at, **facts)
        if events:
            self.revision = max(last, int(events[-1]["kv"]["mod_revision"]))


def text64(plain: str) -> str:
    """As the gateway wants keys."""
    return base64.b64encode(plain.encode()).decode()


def text(encoded: str) -> str:
    """A key or value as text; bytes that are none stay, escaped."""
    return base64.b64decode(encoded).decode("utf-8", "surrogateescape")


__all__ = ["TICK", "Gateway", "Journal", "Recorder"]
