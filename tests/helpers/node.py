"""A real node (`celery -A crony worker`) for tests, and the leader's part played by hand: sealed messages, orders."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crony.domain import ids
from crony.domain.node import NodeFacts
from crony.domain.outcome import Outcome
from crony.domain.run import Claim, Envelope
from crony.domain.signing import Sealer, new_key
from crony.etcd.client import KV, Client
from crony.etcd.keys import Keys
from crony.transport_etcd.message import task_message
from tests.helpers import zygote
from tests.helpers.wait import until

PRIVATE, PUBLIC = new_key()
JOBS = "tests.helpers.jobs"
ROOT = Path(__file__).parents[2]


@dataclass
class Leader:
    """Puts run messages and orders into etcd, as the leading centre does, and looks at what nodes make of them."""

    client: Client
    keys: Keys
    sealer: Sealer = field(default_factory=lambda: Sealer(PRIVATE))
    sequence: int = 0

    def node(self, name: str) -> NodeFacts | None:
        """The node's record."""
        found = self.client.get(self.keys.node(name))
        return NodeFacts.read(found.value) if found else None

    def envelope(self, node: NodeFacts, action: dict[str, Any], **changes: Any) -> Envelope:
        """An envelope for that node, of a run of its own."""
        facts: dict[str, Any] = {
            "run": ids.fresh_run_id("j1", 1),
            "job": "j1",
            "name": "tests/job",
            "generation": 1,
            "revision": 1,
            "attempt": 1,
            "queue": node.queue,
            "incarnation": node.incarnation,
            "trigger": "manual",
            "action": action,
            "requested_at": time.time(),
            "timeout": 30.0,
            "retry": {"max": 0},
            "expires_at": time.time() + 3600,
        }
        return Envelope(**{**facts, **changes})

    def put(self, envelope: Envelope, *, sealer: Sealer | None = None, task_id: str = "", **options: Any) -> str:
        """Put the attempt into its queue; its place."""
        self.sequence += 1
        place = ids.place(envelope.priority, int(time.time() * 1e6) + self.sequence, envelope.run)
        sealed = (sealer or self.sealer).seal(envelope.payload()).decode()
        if envelope.action.get("kind") == "python":
            options = {"soft_limit": envelope.timeout, "hard_limit": envelope.timeout + 10, **options}
        value = task_message("crony.run", task_id or f"{envelope.run}:{envelope.attempt}", [sealed], {}, **options)
        self.client.put(self.keys.message(envelope.queue, place), value)
        return place

    def send(self, node: NodeFacts, action: dict[str, Any], **changes: Any) -> str:
        """A run of one attempt on that node; its run id."""
        envelope = self.envelope(node, action, **changes)
        self.put(envelope)
        return envelope.run

    def outcome(self, run: str, attempt: int = 1) -> Outcome | None:
        """The attempt's outcome, if it is there."""
        found = self.client.get(self.keys.out(run, attempt))
        return Outcome.read(found.value) if found else None

    def ended(self, run: str, attempt: int = 1, timeout: float = 20.0) -> Outcome:
        """The attempt's outcome, waited for."""
        return until(lambda: self.outcome(run, attempt), timeout, f"run {run} attempt {attempt} ends")

    def claim(self, queue: str, place: str) -> tuple[Claim, KV] | None:
        """The claim at a place."""
        found = self.client.get(self.keys.claim(queue, place))
        return (Claim.read(found.value), found) if found else None

    def claimed(self, queue: str, place: str, timeout: float = 15.0) -> tuple[Claim, KV]:
        """The claim at a place, waited for until somebody holds it."""

        def held() -> tuple[Claim, KV] | None:
            found = self.claim(queue, place)
            return found if found and found[0].incarnation else None

        return until(held, timeout, f"{place} is claimed")

    def cancel(self, node: NodeFacts, run: str) -> None:
        """Order the node to stop a run."""
        self.client.put(self.keys.cmd(node.name, run), json.dumps({"v": 1, "kind": "cancel"}).encode())

    def left(self) -> list[str]:
        """Every key of runs but outcomes: nothing should stay when all has ended."""
        found = self.client.list(self.keys.run, keys_only=True).kvs
        return [kv.key for kv in found if not kv.key.startswith(self.keys.outs)]


@dataclass
class NodeProcess:
    """A worker process."""

    name: str
    popen: zygote.Forked | subprocess.Popen[bytes]
    log: Path
    folder: Path
    kept: str = ""

    def text(self) -> str:
        """Its log so far, also when its folder is gone."""
        if self.log.exists():
            self.kept = self.log.read_text(errors="replace")
        return self.kept

    def kill(self) -> None:
        """SIGKILL to the worker alone."""
        self.popen.kill()
        self.popen.wait()

    def stop(self, timeout: float = 60.0) -> int:
        """SIGTERM; its exit code."""
        self.popen.terminate()
        return self.popen.wait(timeout)

    def children(self) -> list[int]:
        """Process ids of its pool."""
        return [
            int(pid)
            for task in Path(f"/proc/{self.popen.pid}/task").iterdir()
            for pid in (task / "children").read_text().split()
            if b"python" in Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0]
        ]


@contextmanager
def running_node(
    leader: Leader,
    endpoint: str,
    *,
    name: str = "",
    pool: str = "threads",
    concurrency: int = 2,
    registered: bool = True,
    level: str = "info",
    max_tasks: int = 0,
    **settings: Any,
) -> Iterator[NodeProcess]:
    """A started node, registered unless told otherwise; killed with everything below it at the end.

    At `level` debug Celery logs each run."""
    folder = Path(tempfile.mkdtemp(prefix="crony-node-"))
    name = name or f"n{os.getpid()}-{time.monotonic_ns() % 100_000}"
    environ = {key: value for key, value in os.environ.items() if not key.startswith("CRONY_")}
    told = {
        "namespace": leader.keys.namespace,
        "etcd_endpoints": endpoint,
        "centre_keys": PUBLIC,
        "node": name,
        "node_ttl": 10,
        "grace": 1,
        "shell": "on",
        "http_allow": "loopback",
        "imports": JOBS,
        "spool_dir": folder / "spool",
        **settings,
    }
    environ.update({f"CRONY_{key.upper()}": str(value) for key, value in told.items()})
    log = folder / "log"
    recycled = ["--max-tasks-per-child", str(max_tasks)] if max_tasks else []
    command = [sys.executable, "-m", "celery", "-A", "crony", "worker", "--pool", pool, "-c", str(concurrency)]
    command += ["-l", level, "--without-gossip", "--without-mingle", "--without-heartbeat", *recycled]
    popen = zygote.start(command, environ, log, str(ROOT))
    node = NodeProcess(name, popen, log, folder)
    try:
        if registered:
            until(
                lambda: ((facts := leader.node(name)) and facts.pid == popen.pid) or popen.poll() is not None,
                40,
                f"node {name} registers",
            )
            assert popen.poll() is None, node.text()
        yield node
    except BaseException:
        print(f"--- log of {name}\n{node.text()}", file=sys.stderr)
        raise
    finally:
        if popen.poll() is None:
            os.killpg(popen.pid, signal.SIGKILL)
            popen.wait()
        node.text()
        shutil.rmtree(folder, ignore_errors=True)
