"""A service that answers 202 to everything, and then speaks for all that it accepted: for `benchmarks.waiting`.

One process, asyncio and bare HTTP over connections that are kept, so that it costs little beside what is measured.
Heartbeats are sent at fixed instants, each attempt at a moment of its own within the interval; completions at a fixed
rate. How long a call took is counted from when it was due: a service that waits for a slow web waits on the clock.

It prints its port. Each line it reads is an order (`reset`, `tell`, `complete <rate>`), answered by a line of JSON.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import sys
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

PAIR = tuple[asyncio.StreamReader, asyncio.StreamWriter]
GOLDEN = 0.6180339887
"""Multiples of it, whole part left away, are spread evenly."""


class Calls:
    """HTTP calls over connections that are kept; a new one when all are busy."""

    def __init__(self) -> None:
        self._free: list[PAIR] = []
        self.opened = 0

    async def post(self, url: str, token: str, body: bytes) -> str:
        """One call: the status and the state that was told, nothing without an answer."""
        parts = urlsplit(url)
        head = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        while True:
            kept = self._free.pop() if self._free else None
            try:
                reader, writer = pair = kept or await self._open(parts.hostname or "", parts.port or 80)
                writer.write(head.encode() + body)
                answer = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = answer.partition(b"content-length:")[2].split(b"\r\n")[0]
                told = json.loads(await reader.readexactly(int(length)))
            except (OSError, asyncio.IncompleteReadError, ValueError):
                if kept is None:
                    return ""
                continue  # a web closes connections that were idle
            self._free.append(pair)
            return f"{int(answer.split(b' ', 2)[1])} {told.get('state')}"

    async def _open(self, host: str, port: int) -> PAIR:
        self.opened += 1
        return await asyncio.open_connection(host, port)


class Service:
    """Takes calls, keeps what it was told, and speaks when it is due."""

    def __init__(self) -> None:
        self.calls, self.waiting = Calls(), dict[str, dict[str, str]]()
        self.due: list[tuple[float, str]] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.loop = asyncio.get_running_loop()
        self.reset()

    def reset(self) -> dict[str, Any]:
        """What was measured so far is forgotten."""
        self.took: dict[str, list[float]] = {"heartbeat": [], "complete": []}
        self.codes: Counter[str] = Counter()
        return {}

    def tell(self) -> dict[str, Any]:
        """What was measured since."""
        return {"waiting": len(self.waiting), "took": self.took, "codes": self.codes, "connections": self.calls.opened}

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a node."""
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()
                return
            pairs = (line.partition(":") for line in head.split("\r\n")[1:] if line)
            headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
            await reader.readexactly(int(headers.get("content-length", 0)))
            run, interval = headers["x-crony-run"], float(headers["x-crony-heartbeat"]) / 3
            self.waiting[run] = headers
            heapq.heappush(self.due, (self.loop.time() + interval * (len(self.waiting) * GOLDEN % 1), run))
            writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")

    async def beat(self) -> None:
        """A heartbeat of each accepted attempt every third of what its job allows."""
        while True:
            now = self.loop.time()
            while self.due and self.due[0][0] <= now:
                at, run = heapq.heappop(self.due)
                if (headers := self.waiting.get(run)) is not None:
                    self.begin(self.say("heartbeat", headers, b"{}", at))
                    heapq.heappush(self.due, (at + float(headers["x-crony-heartbeat"]) / 3, run))
            await asyncio.sleep(max(0.0005, min(0.05, self.due[0][0] - self.loop.time())) if self.due else 0.05)

    async def complete(self, rate: float) -> dict[str, Any]:
        """Complete all of them, so many a second; those that wait go on beating meanwhile."""
        begun, ended = self.loop.time(), list[asyncio.Task[None]]()
        for number, run in enumerate(list(self.waiting)):
            at = begun + number / rate
            await asyncio.sleep(max(0.0, at - self.loop.time()))
            body = json.dumps({"result": {"number": number}}).encode()
            ended.append(self.begin(self.say("complete", self.waiting.pop(run), body, at)))
        await asyncio.gather(*ended)
        return {}

    async def say(self, verb: str, headers: dict[str, str], body: bytes, at: float) -> None:
        """One call, and how long it took since it was due."""
        answer = await self.calls.post(f"{headers['x-crony-callback']}:{verb}", headers["x-crony-token"], body)
        self.took[verb].append(self.loop.time() - at)
        self.codes[f"{verb} {answer}"] += 1

    def begin(self, work: Any) -> asyncio.Task[None]:
        """Start it, and hold on to it."""
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task


async def serve() -> None:
    """Until there are no more orders."""
    service = Service()
    server = await asyncio.start_server(service.take, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    beating = service.begin(service.beat())
    for _ in itertools.count():
        order = (await service.loop.run_in_executor(None, sys.stdin.readline)).split()
        if not order:
            beating.cancel()
            return
        found = await service.complete(float(order[1])) if order[0] == "complete" else getattr(service, order[0])()
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    asyncio.run(serve())
