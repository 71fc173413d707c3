"""The thread of a node that brings spooled output to the web: in order, repeatable, while runs go on and after.

A chunk is named by run, attempt and offset, so sending it twice is harmless; the web answers with what it has. The web
being away costs nothing but room in the spool; beyond the limit the oldest output is dropped, with a marker.

Before its bytes a chunk carries its stamps (streams and times). A web of a version before them says that it does not
know such a body, and gets the bytes alone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
import zlib
from pathlib import Path

import requests

from crony.domain.stamps import Source, Stamp, cut, pack, unpack
from crony.settings import Settings
from crony.workers.spool import FULL, SHEDDABLE, Piece, Spool, parse
from crony.workers.tally import TALLY

log = logging.getLogger("crony.output")

CHUNK = 256 * 1024
"""Most bytes of output in one request, before compression."""
LIVE = 0.4
"""Seconds between two looks at what running attempts have written."""
LONGEST = 30.0
"""Most seconds between two tries while the web is away."""
MOST_FILES = 20_000
MOST_FAILED = 5
"""Files in a row that the web may fail on before it counts as away."""
STAMPED = "application/vnd.crony.output"
"""Content type of a chunk with its stamps."""
UNSTAMPED = 300.0
"""Seconds for which a web that does not know it is sent bytes alone."""
DROPPED = b"\n[crony: output dropped here, the spool of this node was full]\n"


class Away(Exception):
    """The web cannot take output now; try again later."""


class Failed(Away):
    """The web failed on this file; it may well take others."""


class Uploader:
    """Sends the files of one spool; needs `settings.api` and a token with the scope `node`."""

    def __init__(self, spool: Spool, settings: Settings, incarnation: str) -> None:
        self._spool, self._incarnation = spool, incarnation
        self._url = f"{settings.api.rstrip('/')}/api/v1/ingest/output"
        self._limit = settings.spool_limit
        self._have: dict[str, int] = {}
        self._later: dict[str, tuple[float, int]] = {}
        """Files that the web failed on: not before (monotonic seconds), and how often it did."""
        self._unstamped_until = 0.0
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._said = ""
        self.spooled = 0
        """Bytes that the web does not have yet, as of the last look."""
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.headers.update({"Authorization": f"Bearer {settings.token}", "User-Agent": "crony-node"})
        self._thread = threading.Thread(target=self._run, name="crony-uploader", daemon=True)

    def start(self) -> None:
        """Begin; files of former incarnations of this node are complete as they are and sent too."""
        self._thread.start()

    def states(self) -> dict[str, float]:
        """Bytes that the web does not have yet, and whether it takes none now; for the figures of the node."""
        return {"spool": self.spooled, "web_away": float(bool(self._said))}

    def nudge(self) -> None:
        """An attempt ended: look now."""
        self._wake.set()

    def stop(self, timeout: float) -> None:
        """Send what can be sent within `timeout` seconds; the rest stays for the next start."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        self._http.close()

    def _run(self) -> None:
        pause, failures = LIVE, 0
        while True:
            last = self._stopping.is_set()
            try:
                more = self._pass()
                pause, failures = 0.0 if more else LIVE, 0
                self._say("")
            except Away as away:
                pause, failures = min(0.5 * 2**failures, LONGEST), failures + 1
                self._say(str(away))
            except Exception:
                pause = LONGEST
                log.exception("sending output failed; it stays in the spool")
            if last and pause:
                return
            if not last:
                self._wake.wait(pause)
                self._wake.clear()

    def _say(self, trouble: str) -> None:
        if trouble and not self._said:
            log.warning("output stays on this node for now: %s", trouble)
        elif self._said and not trouble:
            log.info("output reaches the web again")
        self._said = trouble

    def _pass(self) -> bool:
        """One look at all files; True when one has more to send at once."""
        files = self._scan()
        more, failed = False, 0
        for _, _, piece in files:
            not_before, failures = self._later.get(piece.stem, (0.0, 0))
            if time.monotonic() < not_before:
                continue
            try:
                more |= self._shed(piece) if piece.stage == "shed" else self._send(piece)
                self._later.pop(piece.stem, None)
                failed = 0
            except FileNotFoundError:
                continue  # renamed since the look: next time
            except Failed as error:
                failed += 1
                if failed > MOST_FAILED:
                    raise
                self._later[piece.stem] = (time.monotonic() + min(0.5 * 2**failures, LONGEST), failures + 1)
                if not failures:
                    log.warning("output of %s attempt %d waits: %s", piece.run, piece.attempt, error)
        return more

    def _scan(self) -> list[tuple[float, int, Piece]]:
        files, total = [], 0
        paths = {path.name: path for path in Path(self._spool.path).iterdir()}
        for name, path in paths.items():
            piece = parse(name)
            if piece is None:
                continue
            with contextlib.suppress(FileNotFoundError):
                facts = path.stat()
                size = facts.st_size + (paths[piece.stamps].stat().st_size if piece.stamps in paths else 0)
                if piece.stage == "open" and piece.incarnation != self._incarnation:
                    piece = self._spool.rename(piece, "done")
                files.append((facts.st_mtime, size, piece))
                total += size
        files.sort(key=lambda file: file[0])
        kept = {piece.stem for _, _, piece in files}
        self._have = {stem: have for stem, have in self._have.items() if stem in kept}
        self._later = {stem: later for stem, later in self._later.items() if stem in kept}
        return self._make_room(files, total)

    def _make_room(self, files: list[tuple[float, int, Piece]], total: int) -> list[tuple[float, int, Piece]]:
        full, left = self._spool.path / FULL, []
        limit, dropped = min(self._limit, self._spool.room(total)), 0
        for index, (at, size, piece) in enumerate(files):
            if len(files) - index > MOST_FILES and piece.stage != "open":
                self._spool.remove(piece)
                total, dropped = total - size, dropped + 1
                TALLY.add("shed")
                continue
            if total > limit and piece.stage in SHEDDABLE:
                with contextlib.suppress(FileNotFoundError):
                    piece = self._spool.shed(piece)
                total, size, dropped = total - size, 0, dropped + 1
            left.append((at, size, piece))
        if dropped:
            log.warning("the spool is full: output of %d attempts was dropped, oldest first", dropped)
        self.spooled = total
        if total > limit:
            with contextlib.suppress(OSError):
                full.touch()
        else:
            full.unlink(missing_ok=True)
        return left

    def _send(self, piece: Piece) -> bool:
        path, have = self._spool.path / piece.filename, self._have.get(piece.stem, 0)
        with path.open("rb") as file:
            file.seek(have)
            data = file.read(CHUNK)
            ends = len(data) < CHUNK and piece.stage != "open"
        if not data and not ends:
            return False
        stamps = self._stamps(piece, have, have + len(data))
        path.stat()  # what has its name still was whole when it was read: it is renamed before it is emptied
        sent = data
        if ends and piece.stage == "lost":
            sent, stamps = data + DROPPED, [*stamps, Stamp(len(data), Source.CRONY, time.time_ns() // 1_000_000)]
        taken = self._post(piece, have, sent, stamps, final=ends, truncated=piece.stage in ("cut", "lost"))
        if taken is None or (ends and taken >= have + len(data)):
            self._spool.remove(piece)
            self._have.pop(piece.stem, None)
            return False
        self._have[piece.stem] = taken
        return taken != have and (len(data) == CHUNK or piece.stage != "open")

    def _stamps(self, piece: Piece, start: int, stop: int) -> list[Stamp]:
        """Those of the bytes between; none for what a version before them has written."""
        with contextlib.suppress(FileNotFoundError):
            return cut(unpack((self._spool.path / piece.stamps).read_bytes()), start, stop)
        return []

    def _shed(self, piece: Piece) -> bool:
        have = self._have.get(piece.stem)
        if have is None:
            have = self._post(piece, 0, b"", [], final=False, truncated=False)
        if have is not None:
            stamp = Stamp(0, Source.CRONY, time.time_ns() // 1_000_000)
            self._post(piece, have, DROPPED, [stamp], final=True, truncated=True)
        self._spool.remove(piece)
        return False

    def _post(
        self, piece: Piece, offset: int, data: bytes, stamps: list[Stamp], *, final: bool, truncated: bool
    ) -> int | None:
        """Send one chunk: the next offset wanted, None when the web will never take this file. Raises `Away`."""
        head = pack(stamps) if time.monotonic() >= self._unstamped_until else b""
        headers = {
            "Content-Type": "application/octet-stream",
            "X-Crony-Run": piece.run,
            "X-Crony-Attempt": str(piece.attempt),
            "X-Crony-Offset": str(offset),
            "X-Crony-Final": "1" if final else "0",
            "X-Crony-Truncated": "1" if truncated else "0",
        }
        if head:
            headers.update({"Content-Type": STAMPED, "X-Crony-Stamps": str(len(head))})
        try:
            answer = self._http.post(
                self._url, data=zlib.compress(head + data, 1), headers=headers, timeout=(4, 10), allow_redirects=False
            )
            if answer.status_code == 200:
                return max(0, int(answer.json()["have"]))
        except requests.RequestException as error:
            raise Away(f"{self._url} does not answer ({type(error).__name__})") from None
        except (ValueError, KeyError, TypeError):
            raise Away(f"{self._url} gives an answer that is not Crony's") from None
        if answer.status_code == 415 and head:
            self._unstamped_until = time.monotonic() + UNSTAMPED
            return self._post(piece, offset, data, [], final=final, truncated=truncated)
        if answer.status_code in (400, 413, 422):
            log.error("the web refuses output of %s attempt %d: %s", piece.run, piece.attempt, _title(answer))
            return None
        hint = "; give the node a token with scope node: CRONY_TOKEN" if answer.status_code in (401, 403) else ""
        trouble = Failed if answer.status_code == 500 else Away
        raise trouble(f"{self._url} answers {answer.status_code} {_title(answer)}{hint}")


def _title(answer: requests.Response) -> str:
    try:
        problem = json.loads(answer.content[:4096])
        return str(problem.get("detail") or problem.get("title") or "")[:200]
    except (ValueError, AttributeError):
        return ""
