"""The least HTTP/2 that a gRPC server needs, one call at a time on a plain socket: etcd's native protocol without gRPC.

No thread, no C core: it forks, blocks and fails as `http.Connection` does, and answers the same question of every
failure: had the request left whole (`Lost`) or not (`NotSent`)?
"""

from __future__ import annotations

import time
from struct import Struct
from typing import NamedTuple
from urllib.parse import unquote

from hpack import Decoder

from crony.etcd.address import Address
from crony.etcd.http import Connection, Lost, NotSent

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW, _MORE_HEADERS = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 1, 1, 4, 8, 32
_WIDE = 2**31 - 1
_TOP_UP = 2**29
_MAX_FRAME = 16384
_LAST_STREAM = 2**30
_MAX_MESSAGE = 1 << 30
_REFUSED_STREAM = 7
_FRAME = Struct(">HBBBI")
_SETTING = Struct(">HI")
_COUNT = Struct(">I")
_PREFIX = Struct(">BI")


class NoGrpc(Exception):
    """There is something at this address, but it does not speak HTTP/2: try the gateway."""


class HungUp(NotSent):
    """The connection was closed instead of settings: the member ends, or does not know HTTP/2."""


class Reply(NamedTuple):
    """gRPC status and message, and the answer's bytes (empty unless the status is 0)."""

    code: int
    message: str
    body: bytes


class Ended(Exception):
    """The server ended a stream, with this status and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One HTTP/2 frame."""
    size = len(payload)
    return _FRAME.pack(size >> 8, size & 255, kind, flags, stream) + payload


class GrpcConnection(Connection):
    """One socket to one member that speaks gRPC; used by one thread at a time, for one call at a time."""

    __slots__ = (
        "_consumed",
        "_data",
        "_decoder",
        "_end",
        "_going",
        "_initial",
        "_known",
        "_stream",
        "_stream_window",
        "_window",
    )

    def __init__(self, to: Address, timeout: float) -> None:
        """Connects and exchanges settings within `timeout` seconds. Raises `NotSent`, `HungUp`, `NoGrpc`."""
        deadline = time.monotonic() + max(timeout, 0.01)
        super().__init__(to, timeout, alpn=True)
        self._decoder = Decoder()
        self._known: dict[bytes, dict[str, str]] = {}
        self._stream = -1
        self._initial = self._window = 65535
        self._stream_window = 0
        self._going = False
        self._consumed = 0
        self._data = bytearray()
        self._end: dict[str, str] | None = None
        # No header table, no push, room for any answer.
        settings = b"".join([_SETTING.pack(1, 0), _SETTING.pack(2, 0), _SETTING.pack(4, _WIDE)])
        grow = frame(_WINDOW, 0, 0, _COUNT.pack(_WIDE - 65535))
        try:
            if self.protocol not in (None, "h2"):
                raise NoGrpc(f"{to.text} speaks {self.protocol or 'something else'}")
            self._send(_PREFACE + frame(_SETTINGS, 0, 0, settings) + grow, deadline)
            while len(self._buffer) < 9:
                self._fill(deadline)
            if self._buffer[3] != _SETTINGS or self._buffer[5:9] != b"\0\0\0\0":
                raise NoGrpc(f"{to.text} speaks something else")
            while not self._next_frame():
                self._fill(deadline)
        except ConnectionError as error:
            self.close()
            raise HungUp(f"{to.text}: {error or type(error).__name__}") from None
        except (OSError, ValueError) as error:
            self.close()
            raise NotSent(f"{to.text}: {error or type(error).__name__}") from None
        except BaseException:
            self.close()
            raise

    @property
    def usable(self) -> bool:
        """Whether the idle socket may carry a further call."""
        if self._sock is None or self._going or self._stream > _LAST_STREAM:
            return False
        try:
            while self._poll.poll(0):  # a ping, or the end
                self._fill(time.monotonic() + 0.01)
                while self._next_frame():
                    pass
        except (OSError, ValueError, NotSent):
            self.close()
            return False
        return not self._going

    def call(self, head: bytes, message: bytes, deadline: float) -> Reply:
        """One call and its answer by `deadline` (time.monotonic). Raises `NotSent` or `Lost`."""
        try:
            self._begin(head, message, deadline, _END_STREAM)
            try:
                while self._end is None:
                    if not self._next_frame():
                        self._fill(deadline)
            except (OSError, ValueError) as error:
                raise Lost(str(error) or type(error).__name__) from None
            return self._reply(self._end)
        except BaseException:
            # Also a soft time limit or a killed greenlet: a half-read socket must never be used again.
            self.close()
            raise

    def start_stream(self, head: bytes, message: bytes, deadline: float) -> None:
        """Begin a call whose answers are read with `next_message`. Raises `NotSent` or `Lost`."""
        try:
            self._begin(head, message, deadline, 0)
        except BaseException:
            self.close()
            raise

    def next_message(self, idle: float) -> bytes | None:
        """The next answer of a stream, or None after `idle` seconds of silence. Raises `Ended`, `Lost`."""
        deadline = time.monotonic() + idle
        body = self._data
        try:
            while True:
                if len(body) >= 5:
                    size = _PREFIX.unpack_from(body)[1]
                    if len(body) >= size + 5:
                        message = bytes(body[5 : size + 5])
                        del body[: size + 5]
                        return message
                if self._end is not None:
                    reply = self._reply(self._end)
                    raise Ended(reply.code, reply.message or "the stream ended")
                if not self._next_frame():
                    self._fill(deadline)
        except TimeoutError:
            return None
        except (OSError, ValueError, NotSent) as error:
            self.close()
            raise Lost(str(error) or type(error).__name__) from None

    # -- parts -----------------------------------------------------------------------------------

    def _begin(self, head: bytes, message: bytes, deadline: float, flags: int) -> None:
        self._stream += 2
        self._stream_window = self._initial
        self._data.clear()
        self._end = None
        opening = frame(_HEADERS, _END_HEADERS, self._stream, head)
        size = len(message) + 5
        data = _PREFIX.pack(0, size - 5) + message
        if size <= _MAX_FRAME and size <= self._window and size <= self._stream_window:
            self._window -= size
            self._send(opening + frame(_DATA, flags, self._stream, data), deadline)
            return
        self._send(opening, deadline)
        at = 0
        while at < size:
            room = min(_MAX_FRAME, self._window, self._stream_window, size - at)
            if room <= 0:
                try:
                    if not self._next_frame():
                        self._fill(deadline)
                except (OSError, ValueError) as error:
                    raise NotSent(str(error) or type(error).__name__) from None
                if self._end is not None:  # refused before it was whole
                    self._going = True
                    return
                continue
            last = flags if at + room == size else 0
            self._send(frame(_DATA, last, self._stream, data[at : at + room]), deadline)
            self._window -= room
            self._stream_window -= room
            at += room

    def _next_frame(self) -> bool:
        """Handle the next frame in the buffer; False if there is no whole one. Raises `Lost`, `NotSent`, ValueError."""
        buffer = self._buffer
        if len(buffer) < 9:
            return False
        high, low, kind, flags, stream = _FRAME.unpack_from(buffer)
        size = high << 8 | low
        end = 9 + size
        if len(buffer) < end:
            return False
        payload = bytes(buffer[9:end])
        if kind == _HEADERS and not flags & _END_HEADERS:
            found = self._whole_block(payload, flags, end)
            if found is None:
                return False
            payload, end = found
            flags &= ~(_PADDED | _PRIORITY)
        del buffer[:end]
        if kind == _DATA:
            self._take_data(payload, flags, stream)
        elif kind == _HEADERS:
            headers = self._headers(_unpadded(payload, flags, 5 if flags & _PRIORITY else 0))
            if stream == self._stream and flags & _END_STREAM:
                self._end = headers
            elif stream == self._stream and headers.get(":status") != "200":
                self._end, self._going = headers, True
        elif kind == _SETTINGS:
            if not flags & _ACK:
                self._settings(payload)
        elif kind == _PING:
            if not flags & _ACK:
                self._send(frame(_PING, _ACK, 0, payload), time.monotonic() + 1)
        elif kind == _WINDOW:
            grown = _COUNT.unpack(payload)[0] & _WIDE
            if stream == 0:
                self._window += grown
            elif stream == self._stream:
                self._stream_window += grown
        elif kind == _GOAWAY:
            self._going = True
            if _COUNT.unpack_from(payload)[0] & _WIDE < self._stream:
                raise NotSent("the member is going away")
        elif kind == _RESET and stream == self._stream:
            code = _COUNT.unpack(payload)[0]
            self._going = True
            if code == _REFUSED_STREAM:
                raise NotSent("the member refused the call")
            raise Lost(f"the member ended the call (code {code})")
        return True

    def _whole_block(self, payload: bytes, flags: int, end: int) -> tuple[bytes, int] | None:
        """A header block that goes on in further frames: joined, and where it ends; None if it has not come yet."""
        buffer = self._buffer
        block = [_unpadded(payload, flags, 5 if flags & _PRIORITY else 0)]
        while True:
            if len(buffer) < end + 9:
                return None
            high, low, kind, more, _ = _FRAME.unpack_from(buffer, end)
            size = high << 8 | low
            if kind != _MORE_HEADERS:
                raise ValueError("a header block is cut off")
            if len(buffer) < end + 9 + size:
                return None
            block.append(bytes(buffer[end + 9 : end + 9 + size]))
            end += 9 + size
            if more & _END_HEADERS:
                return b"".join(block), end

    def _take_data(self, payload: bytes, flags: int, stream: int) -> None:
        self._consumed += len(payload)
        if self._consumed > _TOP_UP:
            grow = _COUNT.pack(self._consumed)
            self._consumed = 0
            update = frame(_WINDOW, 0, 0, grow) + frame(_WINDOW, 0, self._stream, grow)
            self._send(update, time.monotonic() + 1)
        if stream != self._stream:
            return
        self._data += _unpadded(payload, flags, 0)
        if len(self._data) > _MAX_MESSAGE:
            raise ValueError("the answer is too long")
        if flags & _END_STREAM:
            raise ValueError("the answer has no status")

    def _settings(self, payload: bytes) -> None:
        for at in range(0, len(payload), 6):
            name, value = _SETTING.unpack_from(payload, at)
            if name == 4:
                self._stream_window += value - self._initial
                self._initial = value
        self._send(frame(_SETTINGS, _ACK, 0, b""), time.monotonic() + 1)

    def _headers(self, block: bytes) -> dict[str, str]:
        """A header block. While the server uses no table a block says the same each time: then it is read once."""
        plain = not self._decoder.header_table.dynamic_entries
        found = self._known.get(block) if plain else None
        if found is None:
            try:
                found = {_str(name): _str(value) for name, value in self._decoder.decode(block)}
            except Exception as error:
                raise ValueError(f"unreadable headers: {error}") from None
            if plain and not self._decoder.header_table.dynamic_entries and len(self._known) < 64:
                self._known[block] = found
        return found

    def _reply(self, end: dict[str, str]) -> Reply:
        body = self._data
        status = end.get("grpc-status")
        if status is None:
            return Reply(14, f"HTTP {end.get(':status', '?')} without a gRPC status", b"")
        code = int(status)
        if code:
            return Reply(code, unquote(end.get("grpc-message", "")), b"")
        if len(body) < 5 or body[0] or _PREFIX.unpack_from(body)[1] != len(body) - 5:
            return Reply(0, "", b"") if not body else Reply(13, "the answer is not one whole message", b"")
        return Reply(0, "", bytes(body[5:]))


def _unpadded(payload: bytes, flags: int, skip: int) -> bytes:
    if flags & _PADDED:
        return payload[1 + skip : len(payload) - payload[0]]
    return payload[skip:] if skip else payload


def _str(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
