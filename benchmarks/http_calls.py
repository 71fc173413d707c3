"""HTTP jobs a second of one node, and its CPU for each, beside bare `requests` on the same service in the same run.

A node (threads 4) is given its runs at once, the leader's part played by hand: claim, call, outcome, all through etcd.
Bare `requests` is 4 threads in one process, with a session each (connections kept) and without one.
`python -m benchmarks.http_calls [runs] [rounds]`
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from benchmarks.harness import median, report, until
from crony.domain import ids
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn
from crony.transport_etcd.message import task_message
from tests.helpers.etcd import EtcdServer, free_ports
from tests.helpers.node import Leader, running_node

THREADS = 4
BODY = b'{"ok": true}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


class Answers(asyncio.Protocol):
    """The same small answer to each POST; as little work as possible."""

    def connection_made(self, transport: Any) -> None:
        self.transport, self.seen = transport, b""

    def data_received(self, data: bytes) -> None:
        self.seen += data
        while (head := self.seen.find(b"\r\n\r\n")) >= 0:
            lines = self.seen[:head].lower().split(b"\r\n")
            length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
            if len(self.seen) < head + 4 + length:
                return
            self.seen = self.seen[head + 4 + length :]
            self.transport.write(ANSWER)


def serve(port: int) -> None:
    async def forever() -> None:
        server = await asyncio.get_running_loop().create_server(Answers, "127.0.0.1", port)
        await server.serve_forever()

    asyncio.run(forever())


def spent(pids: list[int]) -> float:
    """CPU seconds of processes and of their children that have ended."""
    ticks = 0
    for pid in pids:
        parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, parts[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def of_a_node(etcd: EtcdServer, url: str, runs: int) -> tuple[float, float]:
    """(runs a second, CPU microseconds a run)."""
    with Client([etcd.endpoint]) as client:
        leader = Leader(client, Keys(f"http-calls-{time.monotonic_ns()}"))
        with running_node(leader, etcd.endpoint, concurrency=THREADS) as node:
            facts = leader.node(node.name)
            assert facts is not None
            action = {"kind": "http", "method": "POST", "url": url, "json": {"day": 1}}
            leader.ended(leader.send(facts, action))
            puts = []
            for number in range(runs):
                told = leader.envelope(facts, action)
                place = ids.place(0, int(time.time() * 1e6) + number, told.run)
                sealed = leader.sealer.seal(told.payload()).decode()
                message = task_message("crony.run", f"{told.run}:1", [sealed], {})
                puts.append((leader.keys.message(told.queue, place), message))
            used, began = spent([node.popen.pid]), time.monotonic()
            for at in range(0, runs, 100):
                txn = Txn()
                for key, value in puts[at : at + 100]:
                    txn.put(key, value)
                client.txn(txn)
            until(lambda: client.count(leader.keys.outs) > runs, 600, "all to end", every=0.05)
            took = time.monotonic() - began
            return runs / took, 1e6 * (spent([node.popen.pid]) - used) / runs


def of_requests(url: str, runs: int, session: bool) -> tuple[float, float]:
    """(calls a second, CPU microseconds a call), in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_bare, (url, runs, session))


def _bare(url: str, runs: int, session: bool) -> tuple[float, float]:
    def call(many: int) -> None:
        with requests.Session() as kept:
            post: Callable[..., requests.Response] = kept.post if session else requests.post
            for _ in range(many):
                assert post(url, json={"day": 1}, timeout=30).json() == {"ok": True}

    call(1)
    threads = [threading.Thread(target=call, args=(runs // THREADS,)) for _ in range(THREADS)]
    used, began = time.process_time(), time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    return runs / took, 1e6 * (time.process_time() - used) / runs


def main(runs: int = 4000, rounds: int = 3) -> None:
    """Print the table and the figures."""
    (port,) = free_ports(1)
    service = multiprocessing.get_context("spawn").Process(target=serve, args=(port,), daemon=True)
    service.start()
    url = f"http://127.0.0.1:{port}/"
    with tempfile.TemporaryDirectory(prefix="crony-bench-") as name:
        etcd = EtcdServer(data_dir=Path(name) / "etcd")
        etcd.start()
        try:
            until(lambda: _answers(url), 20, "the service")
            measured: dict[str, list[tuple[float, float]]] = {}
            for _ in range(rounds):
                for what, measure in (
                    ("node", lambda: of_a_node(etcd, url, runs)),
                    ("requests, a session", lambda: of_requests(url, runs, True)),
                    ("requests", lambda: of_requests(url, runs, False)),
                ):
                    measured.setdefault(what, []).append(measure())
                    print(f"{what}: {measured[what][-1][0]:.0f}/s, {measured[what][-1][1]:.0f} us", flush=True)
        finally:
            etcd.stop()
            service.kill()
    rows, figures = [], {}
    for what, found in measured.items():
        rate, cost = median([each[0] for each in found]), median([each[1] for each in found])
        rows.append({"caller": what, "calls": runs, "calls/s": f"{rate:.0f}", "CPU us a call": f"{cost:.0f}"})
        figures[what] = {"per_s": round(rate), "cpu_us": round(cost)}
    ratio = round(figures["node"]["per_s"] / figures["requests, a session"]["per_s"], 2)
    report("HTTP calls of a node, beside bare requests", rows, {**figures, "ratio": ratio, "cores": os.cpu_count()})


def _answers(url: str) -> bool:
    try:
        return requests.post(url, json={}, timeout=1).ok
    except requests.RequestException:
        return False


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
