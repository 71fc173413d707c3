"""A centre by itself: etcd, jobs put there directly (as a web would publish them), nodes as nothing but their keys.

For what the centre alone costs: no web, no database, no worker beside it on the two cores.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from crony.domain import afterend, ids
from crony.domain.livejob import LiveJob
from crony.domain.node import NodeFacts
from crony.domain.run import Done
from crony.domain.signing import Sealer, new_key
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn
from tests.helpers.etcd import EtcdServer
from tests.helpers.server import die_with_parent
from tests.helpers.wait import until

WEB, CENTRE = new_key(), new_key()
TICKS = os.sysconf("SC_CLK_TCK")
JOBS_AT_ONCE = 30


class Bare:
    """One namespace on an etcd of its own, and the centres that lead it."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.folder, self.endpoint = folder, endpoint
        self.keys, self.client = Keys("bench"), Client([endpoint])
        self.sealer = Sealer(WEB[0])
        self.centres: list[subprocess.Popen[bytes]] = []
        self.leases: dict[str, int] = {}

    def centre(self, name: str, **more: str) -> subprocess.Popen[bytes]:
        """Start a centre without a database; its log lies in the folder."""
        environ = {key: value for key, value in os.environ.items() if not key.startswith("CRONY_")}
        environ |= {
            "CRONY_NAMESPACE": self.keys.namespace,
            "CRONY_ETCD_ENDPOINTS": self.endpoint,
            "CRONY_CENTRE": name,
            "CRONY_SIGNING_KEY": CENTRE[0],
            "CRONY_WEB_KEYS": WEB[1],
            "CRONY_CENTRE_KEYS": CENTRE[1],
            "CRONY_LOG_FORMAT": "text",
            **more,
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "crony", "beat"],
                env=environ, stdout=log, stderr=log, start_new_session=True, preexec_fn=die_with_parent,
            )  # fmt: skip
        self.centres.append(process)
        return process

    def jobs(self, documents: Iterable[dict[str, object]], *, since: float | None = None) -> list[str]:
        """Publish jobs, many in a transaction; their ids. Due from `since` (epoch seconds; default: now) on."""
        found: list[str] = []
        txn, now = Txn(), time.time() if since is None else since
        for document in documents:
            live = LiveJob.created(ids.job_id(), document, now=now)
            found.append(live.id)
            txn.put(self.keys.job(live.id), self.sealer.seal(live.payload()))
            txn.put(self.keys.name(live.name), live.id.encode())
            txn.put(self.keys.done(live.id), afterend.begun(live, Done(upto_at=int(now))).encode())
            if txn.ops >= 3 * JOBS_AT_ONCE:
                self.client.txn(txn)
                txn = Txn()
        if txn.ops:
            self.client.txn(txn)
        return found

    def node(self, name: str, *, capacity: int = 4) -> None:
        """A node's session and facts under a lease of ten minutes: messages are put into its queue and stay there."""
        lease, incarnation = self.client.grant(600), ids.incarnation()
        facts = NodeFacts(
            name=name, incarnation=incarnation, queue=f"run.{name}", hostname="bench", pid=1, boot_id="b", version="0",
            capacity=capacity, kinds=["shell", "http", "python"],
        )  # fmt: skip
        self.client.put(self.keys.session(incarnation), b"{}", lease=lease)
        self.client.put(self.keys.node(name), facts.encode(), lease=lease)

    def queued(self) -> int:
        """How many messages lie in run queues."""
        prefix = f"{self.keys.run}q/"
        return self.client.count(prefix)

    def log(self, name: str) -> str:
        """What a centre has said."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def leads(self, name: str, timeout: float = 120) -> float:
        """Until that centre knows all jobs and leads; seconds waited."""
        began = time.monotonic()
        until(lambda: "leading" in self.log(name), timeout / 5, f"{name} to lead", every=0.05)
        return time.monotonic() - began

    def close(self) -> None:
        """Kill the centres."""
        for process in self.centres:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.client.close()


@contextmanager
def bare(*, quota: int = 0) -> Iterator[Bare]:
    """An etcd, and nothing else yet, in a folder that goes away. `quota`: bytes; 0: etcd's default."""
    with tempfile.TemporaryDirectory(prefix="crony-bench-") as name:
        etcd = EtcdServer(data_dir=Path(name) / "etcd", quota=quota)
        etcd.start()
        made = Bare(Path(name), etcd.endpoint)
        try:
            yield made
        finally:
            made.close()
            etcd.stop()


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has used, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss(pid: int) -> float:
    """Resident memory of a process, MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


__all__ = ["Bare", "bare", "cpu", "rss"]
