"""A TCP proxy that breaks the network on purpose: latency, cuts, held answers, one-way black holes, lost answers."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

Way = Literal["up", "down"]
_NATIVE = {
    b"/v3/kv/put": b"/etcdserverpb.KV/Put",
    b"/v3/kv/range": b"/etcdserverpb.KV/Range",
    b"/v3/kv/txn": b"/etcdserverpb.KV/Txn",
    b"/v3/kv/deleterange": b"/etcdserverpb.KV/DeleteRange",
    b"/v3/watch": b"/etcdserverpb.Watch/Watch",
}
"""The same requests in etcd's own protocol."""
_WATCH = b"/v3/watch"


_PREFACE = b"PRI * HTTP/2.0"


class _Frames:
    """Follows the frames of one direction of HTTP/2: settings, pings and windows are no answers (RFC 9113, 4.1)."""

    def __init__(self) -> None:
        self._head, self._skip = b"", 0

    def answer_in(self, data: bytes) -> bool:
        """Whether a frame of an answer (HEADERS or DATA) begins in this piece."""
        found = False
        while data:
            if self._skip:
                gone = min(self._skip, len(data))
                data, self._skip = data[gone:], self._skip - gone
                continue
            missing = 9 - len(self._head)
            self._head, data = self._head + data[:missing], data[missing:]
            if len(self._head) == 9:
                found |= self._head[3] in (0, 1)
                self._head, self._skip = b"", int.from_bytes(self._head[:3])
        return found


class _Link:
    """One connection through the proxy. `up` is towards the server."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self.proxy, self.client, self.server = proxy, client, server
        self.lossy = False
        self.lose_answer = False
        self.frames: _Frames | None = None
        """What comes down, where the connection speaks HTTP/2."""
        self.watch = False
        """It carries a watch."""
        self.deaf = False
        """What comes down is dropped, and the connection stays open."""

    def start(self) -> None:
        for way, source, sink in (("up", self.client, self.server), ("down", self.server, self.client)):
            threading.Thread(target=self._pump, args=(way, source, sink), daemon=True).start()

    def close(self) -> None:
        for sock in (self.client, self.server):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _pump(self, way: Way, source: socket.socket, sink: socket.socket) -> None:
        proxy = self.proxy
        try:
            while data := source.recv(65536):
                if way == "up" and any(path in data for path in (_WATCH, _NATIVE[_WATCH])):
                    self.watch = True
                if way == "up" and (late := proxy._wants_late(data)):
                    self._send_late(data, late)
                    break
                proxy._pass(way, watch=self.watch)
                if way == "down" and self.deaf:
                    continue
                if way in proxy._blackholes:
                    self.lossy = True
                    continue
                if way == "up" and data.startswith(_PREFACE):
                    self.frames = _Frames()
                answered = self.frames is None or (way == "down" and self.frames.answer_in(data))
                if way == "up" and any(form in data for forms in proxy._swallow for form in forms):
                    proxy.swallowed += 1
                    break
                if way == "up" and proxy._wants_lost(data):
                    self.lose_answer = True
                if way == "down" and self.lose_answer and answered:
                    proxy.lost += 1
                    break
                if way == "down" and proxy.slice:
                    for start in range(0, len(data), proxy.slice):
                        sink.sendall(data[start : start + proxy.slice])
                else:
                    sink.sendall(data)
        except OSError:
            pass
        finally:
            self.close()
            proxy._links.discard(self)

    def _send_late(self, data: bytes, late: float) -> None:
        """Whatever becomes of the sender meanwhile; what it sends after that does not matter any more."""
        self.proxy.delayed += 1
        time.sleep(late)
        self.server.sendall(data)
        time.sleep(0.2)


class Proxy:
    """Listens on a free port and passes everything to one server, until told otherwise. A context manager."""

    def __init__(self, target: str) -> None:
        """`target`: address of the server, such as `http://127.0.0.1:2379`."""
        parts = urlsplit(target)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 2379)
        self._scheme = parts.scheme
        self._links: set[_Link] = set()
        self._held: set[Way] = set()
        self._blackholes: set[Way] = set()
        self._change = threading.Condition()
        self._lose: list[tuple[bytes, ...]] = []
        self._swallow: list[tuple[bytes, ...]] = []
        self._late: list[tuple[tuple[tuple[bytes, ...], ...], float]] = []
        self._watches_held = False
        self._cut = False
        self._closed = False
        self.latency = 0.0
        """Seconds added to each piece, each way."""
        self.slice = 0
        """Answers reach the client in pieces of so many bytes; 0: as they come."""
        self.lost = 0
        """How many answers were lost by `lose_answer`."""
        self.swallowed = 0
        """How many requests never arrived because of `swallow`."""
        self.delayed = 0
        """How many requests were held by `delay_about`."""
        self.accepted = 0
        """How many connections were made."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._listening = self._listen()

    @property
    def endpoint(self) -> str:
        """Address for the client."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Breaks every connection and refuses new ones."""
        self._cut = True
        self._deafen()
        self.break_links()

    def break_links(self) -> None:
        """Breaks every connection; new ones are welcome."""
        for link in list(self._links):
            link.close()

    def blackhole(self, *ways: Way) -> None:
        """From now on bytes going that way vanish in silence (connections stay open)."""
        self._blackholes |= set(ways)

    def hold(self, *ways: Way) -> None:
        """From now on bytes going that way wait until `heal`."""
        self._held |= set(ways)

    def lose_answer(self, request: bytes) -> None:
        """The next request that contains `request` reaches the server; its answer does not come back."""
        self._lose.append((request, _NATIVE.get(request, request)))

    def lose_answer_about(self, key: str) -> None:
        """The next request that names the key, or holds that text, reaches the server; its answer does not come."""
        self._lose.append(_forms(key))

    def swallow(self, text: str) -> None:
        """Requests that hold this text break their connection and never reach the server, until `heal`."""
        self._swallow.append(_forms(text))

    def delay_about(self, key: str, seconds: float, *, also: str = "") -> None:
        """The next request that names the key (and a key or value that begins with `also`) reaches the server so much
        later, whether its sender still waits for it or not; its answer does not come."""
        self._late.append((tuple(_forms(text) for text in (key, also)), seconds))

    def hold_watches(self) -> None:
        """From now on what watches tell waits until `heal`; other answers pass."""
        self._watches_held = True

    def deafen_watches(self) -> None:
        """What the watches that are open now tell vanishes in silence; watches opened later work."""
        for link in list(self._links):
            link.deaf |= link.watch

    def heal(self) -> None:
        """Everything passes again; held bytes go on, connections that lost bytes break."""
        with self._change:
            self._held, self._blackholes, self._watches_held = set(), set(), False
            self._swallow = []
            self._change.notify_all()
        for link in list(self._links):
            if link.lossy or link.deaf:
                link.close()
        if self._cut:
            self._cut = False
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self._listening = self._listen()

    def close(self) -> None:
        """Ends the proxy and all its connections."""
        self._closed = True
        self.heal()
        self._deafen()
        self.break_links()

    def __enter__(self) -> Self:
        """The proxy, open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes it."""
        self.close()

    def _listen(self) -> threading.Thread:
        thread = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        thread.start()
        return thread

    def _deafen(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # else the thread inside accept keeps the port open
        self._listener.close()
        self._listening.join(5)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=5)
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            self.accepted += 1
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = _Link(self, client, server)
            self._links.add(link)
            link.start()
            if self._cut or self._closed:
                link.close()

    def _pass(self, way: Way, *, watch: bool) -> None:
        if self.latency:
            time.sleep(self.latency)
        with self._change:
            while (way in self._held or (watch and way == "down" and self._watches_held)) and not self._closed:
                self._change.wait(1)

    def _wants_late(self, data: bytes) -> float:
        for wanted in self._late:
            if all(any(form in data for form in forms) for forms in wanted[0]):
                self._late.remove(wanted)
                return wanted[1]
        return 0.0

    def _wants_lost(self, data: bytes) -> bool:
        for wanted in self._lose:
            if any(form in data for form in wanted):
                self._lose.remove(wanted)
                return True
        return False


def _forms(text: str) -> tuple[bytes, ...]:
    """A text as it travels: plain, and inside base64 at each of the three places where it may begin."""
    raw = text.encode()
    coded = []
    for before in range(3):
        whole = base64.b64encode(bytes(before) + raw)
        end = (before + len(raw)) // 3 * 4
        coded.append(whole[(0, 2, 3)[before] : end])
    return raw, *coded
