"""Connections of HTTP jobs: to addresses that were checked, kept for the next call, broken off by anybody at any time.

Each process keeps its own. A kept connection goes only to a call with the same address, host name and TLS options.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import certifi
from urllib3.connection import HTTPConnection, HTTPSConnection

IDLE = 1.5
"""Seconds for which a connection is kept that the service says nothing about; less than any usual server keeps it."""
LONGEST_IDLE = 30.0
KEPT = 64
"""Most connections that a process keeps."""
CONNECT_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Tls:
    """What a connection is made with. Files are paths on this node."""

    verify: bool = True
    ca: str = ""
    cert: str = ""

    @property
    def stamp(self) -> tuple[Any, ...]:
        """Changes when a file does. Raises OSError when one is not there."""
        return (self, *(os.stat(path).st_mtime_ns for path in (self.ca, self.cert) if path))


class Broken(Exception):
    """The call was broken off by `Wire.abort`."""


class Wire:
    """What one call has on the network, as seen by who may have to break it off."""

    def __init__(self) -> None:
        self.sent = False
        """The service may have got a whole request."""
        self.stirred = threading.Event()
        self.aborted = False
        self._lock = threading.Lock()
        self._handle: socket.socket | None = None

    def hold(self, handle: socket.socket | None) -> None:
        """The call goes by this socket now. Raises `Broken`."""
        with self._lock:
            self._handle = handle
            if self.aborted:
                raise Broken

    def release(self) -> bool:
        """The call needs its socket no more: nobody breaks it off from here on. False when somebody has."""
        with self._lock:
            self._handle = None
            return not self.aborted

    def abort(self) -> None:
        """Break it off, from another thread: whoever connects, reads or writes gets an error."""
        with self._lock:
            self.aborted = True
            self.stirred.set()
            if self._handle is not None:
                with contextlib.suppress(OSError):
                    self._handle.shutdown(socket.SHUT_RDWR)

    def wait(self, event: threading.Event) -> None:
        """Wait for the event, or until broken off. Raises `Broken`."""
        while not event.wait(0.05):
            if self.stirred.is_set():
                raise Broken


class _Watched:
    """Makes a urllib3 connection tell its wire about its socket, and when the request goes out."""

    sock: socket.socket | None
    wire: Wire
    handle: socket.socket | None = None
    """A duplicate of the socket: can be shut down whatever TLS makes of the first one."""
    left = 0.0

    def _new_conn(self) -> socket.socket:
        made = cast(HTTPConnection, self)
        sock = socket.socket(socket.AF_INET6 if ":" in made.host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.handle = sock.dup()
            self.wire.hold(self.handle)
            sock.settimeout(cast(float, made.timeout))
            sock.connect((made.host, made.port))
            sock.settimeout(self.left)
        except BaseException:
            sock.close()
            raise
        return sock

    def send(self, data: Any) -> None:
        """As of http.client. A first piece that was not taken is no whole request."""
        if self.sock is None:
            cast(Any, self).connect()
        before, self.wire.sent = self.wire.sent, True
        try:
            super().send(data)  # type: ignore[misc]
        except OSError:
            self.wire.sent = before
            raise

    def scrap(self) -> None:
        """Close all of it."""
        with contextlib.suppress(OSError):
            cast(Any, self).close()
        if self.handle is not None:
            self.handle.close()


class Plain(_Watched, HTTPConnection):
    """http."""


class Secure(_Watched, HTTPSConnection):
    """https."""


Connection = Plain | Secure


@dataclass(slots=True)
class _Kept:
    connection: Connection
    until: float


@dataclass
class Connections:
    """The kept connections of a process."""

    _kept: OrderedDict[Any, list[_Kept]] = field(default_factory=OrderedDict)
    _contexts: dict[Any, ssl.SSLContext] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _count: int = 0
    _sweep_at: float = 0.0

    def take(self, key: Any, wire: Wire) -> Connection | None:
        """A kept connection that is still open, or None."""
        while True:
            with self._lock:
                found = self._kept.get(key)
                if not found:
                    return None
                kept = found.pop()
                self._count -= 1
                if not found:
                    del self._kept[key]
            if kept.until > time.monotonic() and kept.connection.is_connected:
                kept.connection.wire = wire
                try:
                    wire.hold(kept.connection.handle)
                except Broken:
                    kept.connection.scrap()
                    raise
                return kept.connection
            kept.connection.scrap()

    def keep(self, key: Any, connection: Connection, seconds: float) -> None:
        """Keep a connection whose answer was read to its end."""
        now, gone = time.monotonic(), []
        with self._lock:
            self._kept.setdefault(key, []).append(_Kept(connection, now + seconds))
            self._kept.move_to_end(key)
            self._count += 1
            if self._count > KEPT or now >= self._sweep_at:
                gone = self._sweep(now)
        for each in gone:
            each.connection.scrap()

    def close(self) -> None:
        """Close those that are kept."""
        with self._lock:
            kept, self._kept, self._count = self._kept, OrderedDict(), 0
        for each in (each for found in kept.values() for each in found):
            each.connection.scrap()

    def _sweep(self, now: float) -> list[_Kept]:
        """Those past their time, and the longest unused beyond the limit."""
        self._sweep_at = now + IDLE
        gone: list[_Kept] = []
        for key, found in list(self._kept.items()):
            gone += [each for each in found if each.until <= now]
            self._kept[key] = [each for each in found if each.until > now]
        while sum(map(len, self._kept.values())) > KEPT:
            key = next(key for key, found in self._kept.items() if found)
            gone.append(self._kept[key].pop(0))
        for key in [key for key, found in self._kept.items() if not found]:
            del self._kept[key]
        self._count = sum(map(len, self._kept.values()))
        return gone

    def open(
        self, wire: Wire, scheme: str, host: str, found: Sequence[str], port: int, tls: Tls, left: float
    ) -> Connection:
        """A new connection to the first of the addresses `found` that takes one. Raises OSError, `Broken`."""
        failure: Exception | None = None
        deadline = time.monotonic() + min(CONNECT_PATIENCE, left)
        for address in found:
            patience = deadline - time.monotonic()
            if patience <= 0:
                break
            connection = self._made(scheme, host, address, port, tls, patience)
            connection.wire, connection.left = wire, left + 0.1
            try:
                connection.connect()
            except OSError as error:
                connection.scrap()
                if wire.aborted:
                    raise Broken from None
                failure = error
            except BaseException:
                connection.scrap()
                raise
            else:
                return connection
        raise failure or TimeoutError("connecting took too long")

    def _made(self, scheme: str, host: str, address: str, port: int, tls: Tls, patience: float) -> Connection:
        if scheme == "http":
            return Plain(address, port, timeout=patience)
        return Secure(
            address,
            port,
            timeout=patience,
            ssl_context=self._context(tls),
            server_hostname=host,
        )

    def _context(self, tls: Tls) -> ssl.SSLContext:
        """One for all connections with these options: making one reads hundreds of certificates."""
        stamp = tls.stamp
        with self._lock:
            found = self._contexts.get(stamp)
            if found is None:
                found = self._contexts[stamp] = _context(tls)
                while len(self._contexts) > 32:
                    del self._contexts[next(iter(self._contexts))]
            return found


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca or certifi.where())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    if not tls.verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if tls.cert:
        context.load_cert_chain(tls.cert)
    return context


def tls_of(folder: str, verify: bool, ca: str, cert: str) -> Tls:
    """The TLS options of a job; files are looked up in `folder`. Raises OSError in words for people."""
    return Tls(verify, *(_path(folder, name) for name in (ca, cert)))


def _path(folder: str, name: str) -> str:
    if not name:
        return ""
    if not folder:
        raise FileNotFoundError(f"{name} is not on this node: it has no folder for such files (CRONY_TLS_DIR)")
    path = Path(folder) / name
    if path.parent != Path(folder) or not path.is_file():
        raise FileNotFoundError(f"{name} is not in this node's folder CRONY_TLS_DIR")
    return str(path)
