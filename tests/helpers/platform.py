"""A whole Crony of real processes, to be killed, paused and cut: etcd, database, centres, nodes, webs.

Used by the acceptance tests and the benchmarks. Every process is started in a session of its own,
writes its log into the platform's folder, and is killed with its group when the platform closes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from crony.domain import signing
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.store import accounts
from crony.store.db import Database
from tests.helpers import zygote
from tests.helpers.databases import upgraded_file
from tests.helpers.etcd import free_ports
from tests.helpers.wait import until

Document = dict[str, Any]


@dataclass
class Process:
    """One process of the platform."""

    name: str
    command: Sequence[str]
    environ: Mapping[str, str]
    log: Path
    popen: zygote.Forked | subprocess.Popen[bytes] | None = None

    def start(self) -> Process:
        """Start it (again), in a session of its own."""
        self.popen = zygote.start(self.command, self.environ, self.log)
        return self

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.popen is not None
        return self.popen.pid

    @property
    def running(self) -> bool:
        """Whether it has not exited."""
        return self.popen is not None and self.popen.poll() is None

    def kill(self) -> None:
        """SIGKILL the process itself, not its children: what a crash does."""
        os.kill(self.pid, signal.SIGKILL)
        assert self.popen is not None
        self.popen.wait()

    def signal_group(self, number: int) -> None:
        """Send a signal to the process and all its children in its group."""
        os.killpg(self.pid, number)

    def stop(self, timeout: float = 60) -> int:
        """SIGTERM, then its exit code."""
        assert self.popen is not None
        self.popen.terminate()
        return self.popen.wait(timeout)

    def destroy(self) -> None:
        """SIGKILL the whole group and reap."""
        if self.popen is None:
            return
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.popen.wait()

    def tail(self, lines: int = 40) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


@dataclass
class Platform:
    """Starts and addresses the processes. `ttl`s are short so that tests are."""

    folder: Path
    endpoints: Sequence[str]
    database_url: str
    leader_ttl: float = 2.0
    node_ttl: float = 3.0
    grace: float = 1.0
    namespace: str = "accept"
    processes: list[Process] = field(default_factory=list)
    imports: str = ""
    extra: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.web_private, self.web_public = signing.new_key()
        self.centre_private, self.centre_public = signing.new_key()
        self.keys = Keys(self.namespace)
        self.client = Client(self.endpoints)
        file = Path(self.database_url.removeprefix("sqlite:///"))
        if file != Path(self.database_url) and not file.exists():
            file.write_bytes(upgraded_file())
        self.database = Database(self.database_url)
        self.database.upgrade()
        self.token = accounts.create_token(self.database, "tests", "admin", actor="tests")[0]
        self.node_token = accounts.create_token(self.database, "nodes", "node", actor="tests")[0]
        self.port = free_ports(1)[0]
        self.http = requests.Session()
        self.http.trust_env = False
        self.http.headers["Authorization"] = f"Bearer {self.token}"
        self.marks = self.folder / "marks"

    @property
    def api(self) -> str:
        """Address of the (first) web."""
        return f"http://127.0.0.1:{self.port}"

    def _environ(self, **more: str) -> dict[str, str]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("CRONY_")}
        environ |= {
            "PYTHONUNBUFFERED": "1",
            "CRONY_NAMESPACE": self.namespace,
            "CRONY_ETCD_ENDPOINTS": ",".join(self.endpoints),
            "CRONY_LEADER_TTL": str(self.leader_ttl),
            "CRONY_NODE_TTL": str(self.node_ttl),
            "CRONY_GRACE": str(self.grace),
        }
        if self.imports:
            environ["CRONY_IMPORTS"] = self.imports
            environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
        return environ | self.extra | more

    def _process(self, name: str, command: Sequence[str], environ: Mapping[str, str]) -> Process:
        process = Process(name, command, environ, self.folder / f"{name}.log")
        self.processes.append(process)
        return process.start()

    def centre(self, name: str) -> Process:
        """Start a centre."""
        environ = self._environ(
            CRONY_CENTRE=name,
            CRONY_SIGNING_KEY=self.centre_private,
            CRONY_WEB_KEYS=self.web_public,
            CRONY_CENTRE_KEYS=self.centre_public,
            CRONY_DATABASE_URL=self.database_url,
            CRONY_STATE_DIR=str(self.folder / f"state-{name}"),
        )
        return self._process(name, [sys.executable, "-m", "crony", "beat"], environ)

    def node(self, name: str, *, concurrency: int = 4, pool: str = "threads", **more: str) -> Process:
        """Start a node."""
        environ = self._environ(
            CRONY_NODE=name,
            CRONY_CENTRE_KEYS=self.centre_public,
            CRONY_API=self.api,
            CRONY_TOKEN=self.node_token,
            CRONY_SHELL="on",
            CRONY_HTTP_ALLOW="loopback",
            CRONY_SPOOL_DIR=str(self.folder / f"spool-{name}"),
            **more,
        )
        command = [sys.executable, "-m", "celery", "-A", "crony", "worker", "-l", "info", "-n", f"{name}@%h"]
        return self._process(name, [*command, "-P", pool, "-c", str(concurrency)], environ)

    def web(self, name: str = "web", port: int = 0) -> Process:
        """Start a web and wait until it answers; at the platform's own port unless told otherwise."""
        port = port or self.port
        environ = self._environ(
            CRONY_SIGNING_KEY=self.web_private,
            CRONY_WEB_KEYS=self.web_public,
            CRONY_CENTRE_KEYS=self.centre_public,
            CRONY_DATABASE_URL=self.database_url,
            CRONY_WEB_PORT=str(port),
        )
        process = self._process(name, [sys.executable, "-m", "crony", "web"], environ)
        until(lambda: self._alive(port) or not process.running, 30, "the web to answer")
        assert process.running, process.tail()
        return process

    def _alive(self, port: int) -> bool:
        try:
            return self.http.get(f"http://127.0.0.1:{port}/livez", timeout=1).status_code == 200
        except requests.RequestException:
            return False

    # -- speaking to it ------------------------------------------------------------------------

    def call(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        """One REST call; raises AssertionError with the problem document when it is refused."""
        answer = self.http.request(method, f"{self.api}/api/v1/{path}", json=body, params=params, timeout=60)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def job(self, document: Document) -> Document:
        """Create a job."""
        created: Document = self.call("POST", "jobs", document)
        return created

    def trigger(self, job: Document, **options: Any) -> str:
        """Run a job now; the run's id."""
        return str(self.call("POST", f"jobs/{job['id']}:run", options)["run"])

    def shell(self, name: str, script: str, **more: Any) -> Document:
        """Create a shell job."""
        return self.job({"name": name, "action": {"kind": "shell", "script": script}, **more})

    def marking(self, name: str, *, between: str = "", **more: Any) -> Document:
        """Create a job that leaves one line at its start and one at its end in a file outside Crony."""
        start = f'printf "$CRONY_RUN_ID $CRONY_ATTEMPT start $(date +%s.%N)\\n" >> {self.marks}'
        end = f'printf "$CRONY_RUN_ID $CRONY_ATTEMPT end $(date +%s.%N)\\n" >> {self.marks}'
        return self.shell(name, f"{start}\n{between}\n{end}\n", **more)

    @property
    def gate(self) -> Path:
        """A file that `at_gate` scripts wait for."""
        return self.folder / "gate"

    @property
    def at_gate(self) -> str:
        """Shell text that goes on when the gate file is there: work that lasts as long as the test wants."""
        return f"while [ ! -e {self.gate} ]; do sleep 0.05; done"

    def marked(self) -> list[tuple[str, int, str, float]]:
        """What those jobs left: (run, attempt, start|end, time)."""
        if not self.marks.exists():
            return []
        rows = [line.split() for line in self.marks.read_text().splitlines()]
        return [(run, int(attempt), what, float(at)) for run, attempt, what, at in rows]

    def runs(self, job: Document | None = None) -> list[Document]:
        """All runs (of a job), paged through the API."""
        found: list[Document] = []
        cursor: str | None = None
        while True:
            params = {"limit": 200} | ({"job": job["id"]} if job else {}) | ({"cursor": cursor} if cursor else {})
            page = self.call("GET", "runs", **params)
            found += page["items"]
            cursor = page["next_cursor"]
            if not cursor:
                return found

    def skips(self, job: Document) -> list[Document]:
        """All recorded skips of a job."""
        return list(self.call("GET", "skips", job=job["id"], limit=200)["items"])

    def run(self, run: str) -> Document:
        """One run."""
        found: Document = self.call("GET", f"runs/{run}")
        return found

    def wait(self, run: str, timeout: float = 30) -> Document:
        """Until a run has ended."""

        def ended() -> Document | None:
            answer = self.http.get(f"{self.api}/api/v1/runs/{run}", timeout=60)
            found = answer.json() if answer.ok else None
            return found if found and found["state"] == "ended" else None

        return until(ended, timeout, f"run {run} to end")

    def output(self, run: str, attempt: int = 1) -> str:
        """Output of an attempt, as the web has it; nothing while the web is away."""
        try:
            answer = self.http.get(f"{self.api}/api/v1/runs/{run}/output", params={"attempt": attempt}, timeout=60)
        except requests.ConnectionError:
            return ""
        return answer.text if answer.ok else ""

    def leader(self) -> str:
        """Name of the leading centre; empty when none leads."""
        record = self.client.get(self.keys.leader(0))
        return str(json.loads(record.value)["name"]) if record else ""

    def await_leader(self, timeout: float = 20) -> str:
        """Until some centre leads; its name."""
        return until(self.leader, timeout, "a leader")

    def nodes(self) -> set[str]:
        """Names of the live nodes."""
        prefix = self.keys.node("")
        return {kv.key.removeprefix(prefix) for kv in self.client.list(prefix).kvs}

    def await_nodes(self, *names: str, timeout: float = 30) -> None:
        """Until exactly these nodes are registered."""
        until(lambda: self.nodes() == set(names), timeout, f"nodes {names}, have {self.nodes()}")

    def count(self, prefix: str) -> int:
        """Number of keys under a prefix of this namespace, such as `run/wait/`."""
        return self.client.count(self.keys.root + prefix)

    def quiet(self, timeout: float = 60) -> None:
        """Until no run is alive in etcd."""
        prefixes = ("run/in/", "run/wait/", "run/q/", "run/join/", "run/acc/")
        until(lambda: sum(map(self.count, prefixes)) == 0, timeout, "all runs to end")

    def archived(self, timeout: float = 60) -> None:
        """Until every outcome lies behind the settled position and in the database."""

        def done() -> bool:
            outs = {
                kv.key.removeprefix(self.keys.outs).rsplit("/", 1)[0] for kv in self.client.list(self.keys.outs).kvs
            }
            known = {row["id"] for row in self.runs()} | {
                row["run"] for row in self.call("GET", "skips", limit=200)["items"]
            }
            return {out for out in outs if out.count(".") == 2} <= known  # parts are shown with their whole run

        until(done, timeout, "outcomes to be archived")

    def logs(self) -> str:
        """The end of every log, for a failing test."""
        return "\n\n".join(f"== {process.name}\n{process.tail(25)}" for process in self.processes)

    def close(self) -> None:
        """Kill everything."""
        for process in reversed(self.processes):
            process.destroy()
        self.client.close()
        self.database.close()


@contextmanager
def platform(folder: Path, endpoints: Sequence[str], database_url: str = "", **options: Any) -> Iterator[Platform]:
    """A platform that is taken down afterwards; its logs are printed when the body fails."""
    folder.mkdir(parents=True, exist_ok=True)
    crony = Platform(folder, endpoints, database_url or f"sqlite:///{folder}/crony.db", **options)
    try:
        yield crony
    except BaseException:
        print(crony.logs())
        raise
    finally:
        crony.close()


def now() -> float:
    """Wall clock, for comparing with marks."""
    return time.time()
