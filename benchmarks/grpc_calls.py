"""gRPC jobs a second of one node, and its CPU for each, beside bare `grpcio` on the same service in the same run.

A node (threads 4) is given its runs at once, the leader's part played by hand: claim, call, outcome, all through etcd.
Bare `grpcio` is 4 threads in one process that share a channel, as the node's threads do.
`python -m benchmarks.grpc_calls [runs] [rounds]`
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import median, report, until
from benchmarks.http_calls import THREADS, spent
from crony.domain import ids
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn
from crony.transport_etcd.message import task_message
from tests.helpers.etcd import EtcdServer
from tests.helpers.grpc_server import grpc_server
from tests.helpers.node import Leader, running_node

CLOSE = "ledger.v1.Ledger/Close"


def of_a_node(etcd: EtcdServer, address: str, runs: int) -> tuple[float, float]:
    """(runs a second, CPU microseconds a run)."""
    with Client([etcd.endpoint]) as client:
        leader = Leader(client, Keys(f"grpc-calls-{time.monotonic_ns()}"))
        with running_node(leader, etcd.endpoint, concurrency=THREADS) as node:
            facts = leader.node(node.name)
            assert facts is not None
            action = {"kind": "grpc", "address": address, "method": CLOSE, "request": {"name": "x"}}
            leader.ended(leader.send(facts, action))
            puts = []
            for number in range(runs):
                told = leader.envelope(facts, action)
                place = ids.place(0, int(time.time() * 1e6) + number, told.run)
                sealed = leader.sealer.seal(told.payload()).decode()
                puts.append(
                    (leader.keys.message(told.queue, place), task_message("crony.run", f"{told.run}:1", [sealed], {}))
                )
            used, began = spent([node.popen.pid]), time.monotonic()
            for at in range(0, runs, 100):
                txn = Txn()
                for key, value in puts[at : at + 100]:
                    txn.put(key, value)
                client.txn(txn)
            until(lambda: client.count(leader.keys.outs) > runs, 600, "all to end", every=0.05)
            took = time.monotonic() - began
            return runs / took, 1e6 * (spent([node.popen.pid]) - used) / runs


def of_grpcio(address: str, runs: int) -> tuple[float, float]:
    """(calls a second, CPU microseconds a call), in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_bare, (address, runs))


def _bare(address: str, runs: int) -> tuple[float, float]:
    import grpc

    channel = grpc.insecure_channel(address)
    close: Any = channel.unary_unary(f"/{CLOSE}", request_serializer=None, response_deserializer=None)

    def call(many: int) -> None:
        for _ in range(many):
            assert close(b"\n\x01x", timeout=30)

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
    with tempfile.TemporaryDirectory(prefix="crony-bench-") as name, grpc_server(Path(name) / "service") as service:
        etcd = EtcdServer(data_dir=Path(name) / "etcd")
        etcd.start()
        try:
            measured: dict[str, list[tuple[float, float]]] = {}
            for _ in range(rounds):
                for what, measure in (
                    ("node", lambda: of_a_node(etcd, service.address, runs)),
                    ("grpcio", lambda: of_grpcio(service.address, runs)),
                ):
                    measured.setdefault(what, []).append(measure())
                    print(f"{what}: {measured[what][-1][0]:.0f}/s, {measured[what][-1][1]:.0f} us", flush=True)
        finally:
            etcd.stop()
    rows, figures = [], {}
    for what, found in measured.items():
        rate, cost = median([each[0] for each in found]), median([each[1] for each in found])
        rows.append({"caller": what, "calls": runs, "calls/s": f"{rate:.0f}", "CPU us a call": f"{cost:.0f}"})
        figures[what] = {"per_s": round(rate), "cpu_us": round(cost)}
    ratio = round(figures["node"]["per_s"] / figures["grpcio"]["per_s"], 2)
    report("gRPC calls of a node, beside bare grpcio", rows, {**figures, "ratio": ratio, "cores": os.cpu_count()})


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
