"""What a run costs its node: sealed no-op runs in its queue, as a centre puts them, until all have ended.

CPU (user and system) of the worker and its children for each run, beside that of etcd; and how many a second.
`python -m benchmarks.one_node [runs] [pool] [concurrency]`
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from benchmarks.bare import cpu
from benchmarks.harness import NOOP, report, until
from benchmarks.sustained import children
from crony.domain import ids
from crony.domain.node import NodeFacts
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn
from crony.transport_etcd.message import task_message
from tests.helpers.etcd import EtcdServer
from tests.helpers.node import Leader, running_node

TOGETHER = 50


def fill(leader: Leader, node: NodeFacts, runs: int) -> None:
    """Put `runs` messages into the node's queue."""
    txn = Txn()
    for number in range(runs):
        told = leader.envelope(node, NOOP, run=ids.fire_run_id("j1", 1, 1_700_000_000 + number))
        place = ids.place(0, int(time.time() * 1e6) + number, told.run)
        sealed = leader.sealer.seal(told.brief()).decode()
        value = task_message("crony.run", f"{told.run}:1", [sealed], {}, soft_limit=30.0, hard_limit=7000.0)
        txn.put(leader.keys.message(node.queue, place), value)
        if txn.ops == TOGETHER or number == runs - 1:
            leader.client.txn(txn)
            txn = Txn()


def main(runs: int = 5000, pool: str = "threads", concurrency: int = 4) -> None:
    """Print the table and the figures."""
    with tempfile.TemporaryDirectory(prefix="crony-bench-") as name:
        etcd = EtcdServer(data_dir=Path(name) / "etcd")
        etcd.start()
        try:
            leader = Leader(Client([etcd.endpoint]), Keys("bench"))
            told = {"pool": pool, "concurrency": concurrency, "imports": "benchmarks.noop"}
            with running_node(leader, etcd.endpoint, name="n1", **told) as worker:  # type: ignore[arg-type]
                node = leader.node("n1")
                assert node is not None
                fill(leader, node, 50)
                until(lambda: leader.client.count(leader.keys.outs) >= 50, 60, "the first runs")
                processes = children(worker.popen.pid)
                used, etcd_used, began = sum(map(cpu, processes)), cpu(etcd.pid), time.time()
                fill(leader, node, runs)
                until(lambda: leader.client.count(leader.keys.outs) >= runs, 120, "the runs to end", every=0.1)
                took = time.time() - began
                used, etcd_used = sum(map(cpu, processes)) - used, cpu(etcd.pid) - etcd_used
        finally:
            etcd.stop()
    row = {"pool": pool, "places": concurrency, "runs": runs, "runs/s": f"{runs / took:.0f}",
           "node CPU us a run": f"{1e6 * used / runs:.0f}",
           "etcd CPU us a run": f"{1e6 * etcd_used / runs:.0f}"}  # fmt: skip
    report("runs on one node", [row], {"pool": pool, "runs": runs, "runs_per_s": round(runs / took),
           "node_cpu_us": round(1e6 * used / runs), "etcd_cpu_us": round(1e6 * etcd_used / runs)})  # fmt: skip


if __name__ == "__main__":
    main(*(int(each) if each.isdigit() else each for each in sys.argv[1:]))  # type: ignore[arg-type]
