"""The least HTTP/1.1 that etcd's gateway needs, on a bare keep-alive socket (twice as fast as http.client here).

The one question every failure answers: had the request left before it went wrong? `NotSent` means etcd cannot
have seen all of it, so repeating is safe; `Lost` means it may have been carried out.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import time
import weakref
from typing import NamedTuple

from crony.etcd.address import Address

_RECEIVE = 256 * 1024
_MAX_HEAD = 64 * 1024
_MAX_BODY = 1 << 30


class NotSent(Exception):
    """The request did not reach etcd whole: it was not carried out."""


class Lost(Exception):
    """The request was sent, the answer did not come: it may have been carried out."""


class Answer(NamedTuple):
    """Status, `Date` header and body of an answer."""

    status: int
    date: str
    body: bytes


class Connection:
    """One socket to one member; used by one thread at a time."""

    __slots__ = ("__weakref__", "_buffer", "_chunk", "_poll", "_scanned", "_sock", "_text", "_wait", "used_at")

    def __init__(self, to: Address, timeout: float, *, alpn: bool = False) -> None:
        """Connects (and shakes hands, with `alpn` offering HTTP/2) within `timeout` seconds. Raises `NotSent`."""
        self._sock: socket.socket | None = None
        self._wait = -1.0
        # Known before it connects: a fork in another thread must find every socket that leads to etcd.
        _OPEN.add(self)
        try:
            self._connect(to, time.monotonic() + max(timeout, 0.01), alpn)
        except (OSError, UnicodeError, ValueError) as error:
            self.close()
            raise NotSent(f"{to.text}: {error or type(error).__name__}") from None
        except BaseException:
            self.close()
            raise
        self._poll = select.poll()
        self._poll.register(self._sock.fileno() if self._sock else -1, select.POLLIN)
        self._buffer = bytearray()
        self._text = bytearray()
        self._scanned = 0
        self._chunk = 0
        self.used_at = time.monotonic()

    def _connect(self, to: Address, deadline: float, alpn: bool) -> None:
        problem: OSError | None = None
        for family, kind, protocol, _, where in socket.getaddrinfo(to.host, to.port, type=socket.SOCK_STREAM):
            try:
                self._sock = sock = socket.socket(family, kind, protocol)
                sock.settimeout(max(deadline - time.monotonic(), 0.01))
                sock.connect(where)
                break
            except OSError as error:
                problem = error
                self.close()
        else:
            raise problem or OSError("the name has no address")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        context = to.context(http2=alpn)
        if context is not None:
            name = to.tls.server_name if to.tls and to.tls.server_name else to.host
            secure = context.wrap_socket(sock, server_hostname=name, do_handshake_on_connect=False)
            self._sock = secure
            secure.settimeout(max(deadline - time.monotonic(), 0.01))
            secure.do_handshake()

    @property
    def protocol(self) -> str | None:
        """What TLS agreed on; None without TLS, "" if it agreed on nothing."""
        sock = self._sock
        return sock.selected_alpn_protocol() or "" if isinstance(sock, ssl.SSLSocket) else None

    @property
    def usable(self) -> bool:
        """Whether the idle socket is still open: a member that went away would have made it readable."""
        return self._sock is not None and not self._buffer and not self._poll.poll(0)

    def exchange(self, request: bytes, deadline: float) -> Answer:
        """Sends `request` and reads its answer by `deadline` (time.monotonic). Raises `NotSent` or `Lost`."""
        try:
            self._send(request, deadline)
            try:
                status, headers = self._head(deadline)
                return Answer(status, headers.get("date", ""), self._body(headers, deadline))
            except (OSError, ValueError) as error:
                if _refused_handshake(error):
                    raise NotSent(str(error)) from None
                raise Lost(str(error) or type(error).__name__) from None
        except BaseException:
            # Also a soft time limit or a killed greenlet: a half-read socket must never be used again.
            self.close()
            raise

    def open(self, request: bytes, deadline: float) -> Answer:
        """Starts a stream; its answer's body is empty unless it was refused (status other than 200)."""
        try:
            self._send(request, deadline)
            try:
                status, headers = self._head(deadline)
                if status != 200:
                    return Answer(status, headers.get("date", ""), self._body(headers, deadline))
                if headers.get("transfer-encoding", "").lower() != "chunked":
                    raise ValueError("the stream is not chunked")
            except (OSError, ValueError) as error:
                raise Lost(str(error) or type(error).__name__) from None
        except BaseException:
            self.close()
            raise
        return Answer(status, headers.get("date", ""), b"")

    def read_line(self, idle: float) -> bytes | None:
        """The next line of a stream, or None after `idle` seconds of silence. Raises `Lost` when the stream ended."""
        deadline = time.monotonic() + idle
        try:
            while True:
                end = self._text.find(b"\n", self._scanned)
                if end >= 0:
                    line = bytes(self._text[:end])
                    del self._text[: end + 1]
                    self._scanned = 0
                    if line:
                        return line
                    continue
                self._scanned = len(self._text)
                if not self._next_chunk(deadline):
                    raise Lost("the stream ended")
        except TimeoutError:
            return None
        except (OSError, ValueError) as error:
            self.close()
            raise Lost(str(error) or type(error).__name__) from None

    def interrupt(self) -> None:
        """Makes a read in another thread end at once."""
        sock = self._sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes the socket; safe to repeat."""
        sock, self._sock = self._sock, None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()

    def abandon(self) -> None:
        """In a forked child: lets go of the parent's socket without a word on it.

        The descriptor is replaced, not closed: closing would reach into event loops that the parent still uses.
        """
        sock = self._sock
        if sock is not None and sock.fileno() >= 0:
            with contextlib.suppress(OSError):
                null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                os.dup2(null, sock.fileno(), inheritable=False)
                os.close(null)

    # -- parts ---------------------------------------------------------------------------------

    def _send(self, request: bytes, deadline: float) -> None:
        sock = self._sock
        if sock is None:
            raise NotSent("the connection is closed")
        try:
            self._patience(sock, max(deadline - time.monotonic(), 0.001))
            # An error here means that the last byte, without which the JSON is incomplete, did not leave.
            sock.sendall(request)
        except OSError as error:
            raise NotSent(str(error) or type(error).__name__) from None

    def _patience(self, sock: socket.socket, left: float) -> None:
        """How long to wait for the socket. Setting it is a system call: within a twentieth it stays as it is."""
        if not left <= self._wait <= left * 1.05:
            sock.settimeout(left)
            self._wait = left

    def _fill(self, deadline: float) -> None:
        sock = self._sock
        if sock is None:
            raise ConnectionError("the connection is closed")
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no answer in time")
        self._patience(sock, left)
        data = sock.recv(_RECEIVE)
        if not data:
            raise ConnectionError("the connection was closed before the answer was complete")
        self._buffer += data

    def _head(self, deadline: float) -> tuple[int, dict[str, str]]:
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if end >= 0:
                lines = self._buffer[:end].decode("latin-1").split("\r\n")
                del self._buffer[: end + 4]
                status = int(lines[0].split(" ", 2)[1]) if lines[0].startswith("HTTP/1.") else 0
                if not 100 <= status < 600:
                    raise ValueError("this is not HTTP")
                if status < 200:
                    continue
                headers = {}
                for line in lines[1:]:
                    name, _, value = line.partition(":")
                    headers[name.lower()] = value.strip()
                return status, headers
            if len(self._buffer) > _MAX_HEAD:
                raise ValueError("the answer's head is too long")
            self._fill(deadline)

    def _body(self, headers: dict[str, str], deadline: float) -> bytes:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while self._next_chunk(deadline):
                if len(self._text) > _MAX_BODY:
                    raise ValueError("the answer is too long")
            body = bytes(self._text)
            self._text.clear()
        else:
            length = int(headers.get("content-length", -1))
            if not 0 <= length <= _MAX_BODY:
                raise ValueError("the answer has no usable length")
            buffer = self._buffer
            while len(buffer) < length:
                self._fill(deadline)
            body = bytes(buffer[:length])
            del buffer[:length]
        if headers.get("connection", "").lower() == "close":
            self.close()
        return body

    def _next_chunk(self, deadline: float) -> bool:
        """Moves what has come of the next chunk to the text; False at the end of the body.

        Keeps its place when it times out, so that a stream may be read again afterwards.
        """
        buffer = self._buffer
        while self._chunk == 0:
            end = buffer.find(b"\r\n")
            if end == 0:  # the line end after a chunk's data
                del buffer[:2]
                continue
            if end > 0:
                size = int(buffer[:end].split(b";")[0], 16)
                if size == 0:
                    while b"\r\n\r\n" not in buffer:
                        self._fill(deadline)
                    del buffer[: buffer.find(b"\r\n\r\n") + 4]
                    return False
                del buffer[: end + 2]
                self._chunk = size
                break
            if len(buffer) > _MAX_HEAD:
                raise ValueError("a chunk's size line is too long")
            self._fill(deadline)
        if not buffer:
            self._fill(deadline)
        part = buffer[: self._chunk]
        del buffer[: len(part)]
        self._text += part
        self._chunk -= len(part)
        return True


def _refused_handshake(error: Exception) -> bool:
    """Whether the server did not take our certificate: with TLS 1.3 that shows only in the first read."""
    reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    return "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason)


_OPEN: weakref.WeakSet[Connection] = weakref.WeakSet()


def _after_fork() -> None:
    for connection in list(_OPEN):
        connection.abandon()
    _OPEN.clear()


os.register_at_fork(after_in_child=_after_fork)
