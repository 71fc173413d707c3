"""The processes of one soak: etcd, database, centres, nodes, web, each behind proxies of its own; and their history."""

from __future__ import annotations

import base64
import contextlib
import json
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from crony.errors import CronyError
from tests.helpers import folders
from tests.helpers.etcd import EtcdCluster, EtcdServer
from tests.helpers.mariadb import MariaServer
from tests.helpers.platform import Platform, Process
from tests.helpers.proxy import Proxy
from tests.soak import zones
from tests.soak.callee import Callee
from tests.soak.record import Journal, Recorder

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
TASKS = "tests.soak.tasks"
STALL = 0.35
"""Seconds that a short sleep may last longer than asked before the machine counts as stalled."""


@dataclass
class Noted(Process):
    """A process that leaves a note of each of its starts."""

    pids: list[int] = field(default_factory=list)

    def start(self) -> Process:
        """Start it (again)."""
        super().start()
        self.pids.append(self.pid)
        return self


class Behind(Platform):
    """A platform each of whose processes reaches etcd through proxies of its own, and may be a broken build."""

    def prepare(self, world: World) -> Behind:
        """Know whose it is; before anything starts."""
        self.world = world
        return self

    def marked_lines(self) -> list[dict[str, Any]]:
        """What the jobs wrote, in order; a line torn by a kill is left out."""
        if not self.marks.exists():
            return []
        found = []
        for line in self.marks.read_text().splitlines():
            with contextlib.suppress(ValueError):
                run, attempt, fence, what, when = line.split()
                found.append(
                    {"run": run, "attempt": int(attempt), "fence": int(fence), "what": what, "when": float(when)}
                )
        return found

    def _process(self, name: str, command: Sequence[str], environ: Mapping[str, str]) -> Process:
        world, role = self.world, name
        proxies = world.proxies.setdefault(role, [Proxy(endpoint) for endpoint in world.endpoints])
        changed = {
            **environ,
            "CRONY_ETCD_ENDPOINTS": ",".join(proxy.endpoint for proxy in proxies),
            "CRONY_ETCD_TIMEOUT": str(world.timeout),
            "PYTHONPATH": str(ROOT),
            "PYTHONTZPATH": world.tzpath,
            **world.clocks(name),
            **world.tuned,
            **world.variables.get(name, {}),
        }
        if any(variable.startswith(("CRONY_TEST_", "FAKETIME")) for variable in changed):
            command = [command[0], "-m", "tests.soak.wrapped", *command[2:]]
        process = Noted(name, command, changed, self.folder / f"{name}.log", pids=world.pids)
        self.processes.append(process)
        world.journal.note("process", what="started", name=name)
        return process.start()


class World:
    """Set it up, let faults and callers at it, `end` it, `close` it."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        members: int = 1,
        maria: bool = False,
        stepped: bool = False,
        leader_ttl: float = 2.0,
        node_ttl: float = 3.0,
        grace: float = 1.0,
        timeout: float = 1.5,
        shards: int = 1,
        tuned: Mapping[str, str] | None = None,
    ) -> None:
        """`members` of etcd; MariaDB or SQLite; `stepped`: centres and web have wall clocks that can be stepped;
        `tuned`: variables for the wrapper in `tests.soak.wrapped`."""
        self.folder, self.seed, self.timeout, self.shards = folder, seed, timeout, shards
        self.rng = random.Random(f"world {seed}")
        folder.mkdir(parents=True, exist_ok=True)
        self.journal = Journal(folder / "history.jsonl")
        self.tuned = dict(tuned or {})
        self.variables: dict[str, dict[str, str]] = {}
        """Name of a process -> what else it is told; with `CRONY_TEST_BROKEN` it is a broken build."""
        self.proxies: dict[str, list[Proxy]] = {}
        self.processes: dict[str, Process] = {}
        self.wanted: set[str] = set()
        """Processes that are meant to run."""
        self.expected: dict[str, float] = {}
        """Processes that may die by themselves, until when (monotonic)."""
        self.stopping = threading.Event()
        self._faults = 0
        self._lock = threading.RLock()
        self.stepped = stepped
        self.etcd_lock = threading.RLock()
        """Held by whoever ends or pauses members."""
        self.jobs: dict[str, dict[str, Any]] = {}
        """The cast as it was created, by name."""
        self.pids: list[int] = []
        """Of every process that was started."""
        self.crowd = self._marks = 0
        self.recovered = False
        """Whether etcd was restored, and `crony recover` run."""
        self._library = faketime(folder) if stepped else ""
        self._stack = contextlib.ExitStack()
        self._hands = self._stack.enter_context(ThreadPoolExecutor(1, "hands"))
        self._cluster: EtcdCluster | None = None
        if members == 1:
            self.members = [self._stack.enter_context(EtcdServer())]
        else:
            self._cluster = self._stack.enter_context(EtcdCluster(members))
            self.members = self._cluster.members
        self.endpoints = [member.endpoint for member in self.members]
        self.maria = self._stack.enter_context(MariaServer()) if maria else None
        url = self.maria.fresh() if self.maria else f"sqlite:///{folder}/crony.db"
        self.change = (int(time.time()) // 60 + 1 + (time.time() % 60 > 40)) * 60
        self.zones = zones.zones(self.change)
        self.tzpath = zones.write(folder / "zones", self.zones)
        self.namespace = f"soak{seed}"
        self.journal.note(
            "world", seed=seed, root=f"/crony/{self.namespace}/", leader_ttl=leader_ttl, node_ttl=node_ttl,
            grace=grace, members=members, maria=maria, stepped=stepped, shards=shards,
        )  # fmt: skip
        for zone in self.zones:
            self.journal.note("zone", name=zone.name, tzif=base64.b64encode(zone.tzif()).decode())
        self.recorder = Recorder(self.endpoints, self.journal)
        self.callee = self._stack.enter_context(Callee(self))
        self.crony = Behind(
            folder, self.endpoints, url, leader_ttl=leader_ttl, node_ttl=node_ttl, grace=grace,
            namespace=self.namespace, imports=TASKS, extra={"CRONY_SHARDS": str(shards)},
        ).prepare(self)  # fmt: skip
        self.client, self.keys = self.crony.client, self.crony.keys
        self._watchdogs = [threading.Thread(target=each, daemon=True) for each in (self._look_after, self._doze)]

    # -- processes -----------------------------------------------------------------------------

    def clocks(self, name: str) -> dict[str, str]:
        """Variables that let the wall clock of a process be stepped (the monotonic one stays)."""
        if not self.stepped:
            return {}
        path = self.folder / f"clock-{name}"
        path.write_text("+0")
        return {
            "LD_PRELOAD": self._library,
            "FAKETIME_TIMESTAMP_FILE": str(path),
            "FAKETIME_CACHE_DURATION": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def step_clock(self, name: str, seconds: int) -> None:
        """Move the wall clock of a process (and its children) away from the true time."""
        (self.folder / f"clock-{name}").write_text(f"{seconds:+d}")

    def centre(self, name: str) -> None:
        """Start a centre."""
        self._began(self.do(lambda: self.crony.centre(name)))

    def twin(self, name: str, twin: str) -> None:
        """Start a second centre that says it is the first one."""
        self.variables[twin] = {"CRONY_CENTRE": name}
        self._began(self.do(lambda: self.crony.centre(twin)))

    def node(self, name: str, *, pool: str = "threads", concurrency: int = 4) -> None:
        """Start a node, labelled with its name and pool."""
        labels = f"name={name},pool={pool}"
        node = self.do(lambda: self.crony.node(name, pool=pool, concurrency=concurrency, CRONY_NODE_LABELS=labels))
        self._began(node)

    def web(self, name: str = "web", port: int = 0) -> int:
        """Start a web, and wait until it answers; its port, the first one's unless told otherwise."""
        self._began(self.do(lambda: self.crony.web(name, port)))
        return port or self.crony.port

    def _began(self, process: Process) -> None:
        with self._lock:
            self.processes[process.name] = process
            self.wanted.add(process.name)

    def begin(self) -> None:
        """Look after the processes from now on."""
        for thread in self._watchdogs:
            thread.start()

    def kill(self, name: str) -> None:
        """SIGKILL, and not started again until somebody does."""
        with self._lock:
            self.wanted.discard(name)
            with contextlib.suppress(ProcessLookupError):
                self.processes[name].kill()
        self.journal.note("process", what="killed", name=name)

    def do(self, start: Callable[[], T]) -> T:
        """Start a server in a thread that stays: what a thread started is killed when that thread ends."""
        return self._hands.submit(start).result()

    def start(self, name: str) -> None:
        """Start a process again."""
        with self._lock:
            process = self.processes[name]
            if process.running:
                return
            self.do(process.start)
            self.wanted.add(name)
        self.journal.note("process", what="started", name=name)

    def terminate(self, name: str) -> None:
        """SIGTERM; returns at once."""
        with self._lock:
            self.wanted.discard(name)
            popen = self.processes[name].popen
            assert popen is not None
            popen.terminate()
        self.journal.note("process", what="told to stop", name=name)

    def pause(self, name: str) -> None:
        """SIGSTOP to the process and its pool."""
        with contextlib.suppress(ProcessLookupError):
            self.processes[name].signal_group(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT."""
        with contextlib.suppress(ProcessLookupError):
            self.processes[name].signal_group(signal.SIGCONT)

    def children(self, name: str) -> list[int]:
        """Process ids of a node's pool."""
        root = self.processes[name].pid
        found = []
        for task in Path(f"/proc/{root}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(pid) for pid in task.read_text().split()]
        return [pid for pid in found if _cmdline(pid).find("celery") >= 0]

    def named(self, role: str) -> list[str]:
        """Processes of a role that are meant to run: `c` centres, `n` nodes, `w` webs."""
        with self._lock:
            return sorted(name for name in self.wanted if name.startswith(role))

    def leader(self, shard: int = 0) -> tuple[str, int] | None:
        """(name, term) of the centre that leads a shard; None: nobody does, or nobody can tell."""
        try:
            found = self.client.get(self.keys.leader(shard), timeout=0.5)
        except CronyError:
            return None
        if found is None:
            return None
        name = str(json.loads(found.value)["name"])
        return (name, found.create) if name in self.processes else None

    def incarnation(self, name: str) -> str:
        """The incarnation that a node's record names; empty when it has none."""
        try:
            found = self.client.get(self.keys.node(name), timeout=0.5)
        except CronyError:
            return ""
        return str(json.loads(found.value)["incarnation"]) if found else ""

    def links(self, *names: str) -> list[Proxy]:
        """The proxies of these processes."""
        return [proxy for name in names for proxy in self.proxies.get(name, ())]

    # -- faults --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def fault(self, ident: str, **facts: Any) -> Iterator[dict[str, Any]]:
        """Note that something is broken during the body; what the body adds to the mapping is noted too."""
        with self._lock:
            self._faults += 1
            number = self._faults
        self.journal.note("fault", phase="began", number=number, id=ident, facts=facts)
        more: dict[str, Any] = {}
        try:
            yield more
        finally:
            self.journal.note("fault", phase="ended", number=number, id=ident, facts=more)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.stopping.wait(max(0.0, seconds))

    def _look_after(self) -> None:
        """Start again what died by itself, as an init system would; say so unless it was to be expected."""
        while not self.stopping.wait(0.2):
            for name in sorted(self.wanted):
                with self._lock:
                    process = self.processes[name]
                    if name not in self.wanted or process.running:
                        continue
                    if self.expected.get(name, 0.0) < time.monotonic():
                        self.journal.note("process", what="died", name=name, why=process.tail(30))
                    self.do(process.start)
                self.journal.note("process", what="started", name=name)

    def _doze(self) -> None:
        """Notice when the machine itself stands still."""
        while not self.stopping.is_set():
            before = time.monotonic()
            time.sleep(0.1)
            late = time.monotonic() - before - 0.1
            if late > STALL:
                self.journal.note("stall", seconds=late + 0.2)

    def note_marks(self) -> None:
        """Take over what the jobs wrote since the last time."""
        lines = self.crony.marked_lines()
        for line in lines[self._marks :]:
            self.journal.note("mark", **line)
        self._marks = len(lines)

    # -- the end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Kill everything."""
        self.stopping.set()
        self.crony.close()
        self.recorder.stop()
        for proxy in self.links(*self.proxies):
            proxy.close()
        for pid in self.pids:  # what libfaketime shares with children; killed processes leave it
            for name in ("faketime_shm_", "sem.faketime_sem_"):
                Path(f"/dev/shm/{name}{pid}").unlink(missing_ok=True)
        self._stack.close()
        self.journal.close()


def faketime(folder: Path) -> str:
    """What to preload to fake clocks. RuntimeError naming what to install when it is not there.

    With a compiler at hand what is slow about it is left out (see condwait.c); without one it is only slow.
    """
    found = sorted(Path("/usr/lib").glob("**/faketime/libfaketimeMT.so.1"))
    if not found:
        raise RuntimeError("no libfaketime: apt-get install faketime (`make test` does it)")
    compiler, quick = shutil.which("cc"), folder / "condwait.so"
    if compiler is None:
        return str(found[0])
    source = Path(__file__).with_name("condwait.c")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", quick, source, "-ldl"], check=True)
    return f"{quick}:{found[0]}"


def _cmdline(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


@contextlib.contextmanager
def world(seed: int, folder: Path | None = None, **options: Any) -> Iterator[World]:
    """A world, taken down afterwards; its logs are printed when the body fails."""
    with contextlib.ExitStack() as stack:
        where = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folders.quick())))
        made = World(where, seed, **options)
        try:
            yield made
        except BaseException:
            print(made.crony.logs())
            raise
        finally:
            made.close()


__all__ = ["World", "world"]
