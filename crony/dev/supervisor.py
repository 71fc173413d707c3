"""`crony dev`: one process that starts etcd, the web, a centre and a node, watches over them, and stops them all.

It promises: nothing it started outlives it, not even when it is killed; a second start on the same directory is
refused; a child that dies is started again; what a killed one left behind is ended by the next start.
"""

from __future__ import annotations

import json
import shlex
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import requests

from crony import __version__
from crony.catalog.jobs import Catalog
from crony.dev import demo, etcd
from crony.dev.audit import count
from crony.dev.folder import Folder
from crony.dev.identity import identify, sign_in_link
from crony.dev.ledger import Ledger
from crony.dev.process import Bell, Child
from crony.dev.roles import NODE, Options, Place, commands
from crony.dev.say import Voice
from crony.domain.signing import Sealer
from crony.errors import Unavailable
from crony.etcd.client import KV, Client, wait_ready
from crony.etcd.keys import Keys
from crony.settings import Settings
from crony.store.db import Database

ETCD_PORT = 12379
"""Where our etcd listens when nobody else does; another port otherwise."""
HOPELESS = 3
"""Deaths of one child during the start after which we give up."""
STOPPING = {"node": 10.0, "centre": 5.0, "web": 6.0, "etcd": 5.0}
"""Seconds a role may take to end by itself."""
SETTLING = 40.0
"""With --exit-after: seconds that runs in flight may take to end."""


class Stopped(Exception):
    """Somebody asked for the end (Ctrl-C, SIGTERM) while we were waiting for something."""


@dataclass
class Dev:
    """One run of `crony dev`, from the lock to the last child's end."""

    options: Options
    settings: Settings
    folder: Folder
    voice: Voice
    children: dict[str, Child] = field(default_factory=dict)
    wishes: int = 0
    """How often the end was asked for; from the second time on it comes at once."""
    _bell: Bell = field(default_factory=Bell)
    _started: bool = False
    _closers: list[Callable[[], None]] = field(default_factory=list)

    # -- life ----------------------------------------------------------------------------------

    def run(self) -> int:
        """Start all, watch, stop all; the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._wish)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._bell.writer, warn_on_full_buffer=False)
        verdict: dict[str, int] | None = None
        try:
            ledger = self._start()
            if self.options.exit_after is None:
                self._until(lambda: False, None, "")
            else:
                verdict = self._measure(ledger, self.options.exit_after)
        except Stopped:
            pass
        finally:
            self._stop()
        if self.options.exit_after is None:
            return 0
        if verdict is None:
            return 130
        self.voice.line(json.dumps(verdict))
        return 1 if verdict["lost"] or verdict["doubled"] else 0

    def _wish(self, *_: object) -> None:
        self.wishes += 1

    def leave(self) -> None:
        """Ask for the end, as Ctrl-C does; from any thread."""
        self._wish()
        self._bell.ring()

    # -- start ---------------------------------------------------------------------------------

    def _start(self) -> Ledger:
        begun = time.monotonic()
        if left := self.folder.end_leftovers():
            self.voice.remark(f"ended {left} processes that an earlier `crony dev` left behind")
        binary = etcd.find()
        client_port, peer_port = etcd.free_port(ETCD_PORT), etcd.free_port()
        endpoint = f"http://127.0.0.1:{client_port}"
        self._child("etcd", etcd.arguments(binary, self.folder.path / "etcd", client_port, peer_port), etcd.environ())
        url = self.settings.database_url or f"sqlite:///{self.folder.path}/crony.db"
        database = Database(url)
        self._closers.append(database.close)
        database.upgrade()
        identity = identify(self.folder, database)
        client = Client([endpoint])
        self._closers.append(client.close)
        self._until(lambda: wait_ready(client, 0.2), 30, "etcd to answer")
        keys = Keys(self.settings.namespace)
        ledger = Ledger(client, keys, ended=self.voice.outcome, keep=self.options.exit_after is not None)
        self._closers.append(ledger.stop)
        if not ledger.start(10):
            raise Unavailable("etcd does not let itself be watched")

        port = etcd.free_port(self.options.port, self.settings.web_host)
        if port != self.options.port:
            self.voice.warning(f"port {self.options.port} is taken: the web uses {port}")
        address = _address(self.settings.web_host, port)
        place = Place(endpoint=endpoint, database_url=url, host=self.settings.web_host, port=port, address=address)
        for role, (command, environ) in commands(self.folder, identity, place, self.settings, self.options).items():
            self._child(role, command, environ)
        self.folder.note_holder(address)
        self._until(lambda: _answers(f"{address}/livez"), 60, "the web to answer")
        context = {"CRONY_API": address, "CRONY_TOKEN": identity.token, "CRONY_ETCD_ENDPOINTS": endpoint}
        if not self.settings.database_url:  # the URL of another one may hold a password, and whoever gave it has it
            context["CRONY_DATABASE_URL"] = url
        if self.settings.namespace != Settings().namespace:
            context["CRONY_NAMESPACE"] = self.settings.namespace
        self.folder.write("cli.env", "".join(f"{name}={shlex.quote(value)}\n" for name, value in context.items()))
        # Keys of an earlier, killed start may still be there: wait for ours.
        self._until(lambda: self._is_ours("centre", client.get(keys.leader(0))), 40, "the centre to lead")
        self._until(lambda: self._is_ours("node", client.get(keys.node(NODE))), 40, "the node to register")
        self._banner(address, sign_in_link(database, address), binary, endpoint, time.monotonic() - begun)
        self._started = True
        if self.options.demo:
            demo.load(Catalog(database, client, keys, Sealer(identity.web_key)), address, self.voice)
        return ledger

    def _is_ours(self, role: str, record: KV | None) -> bool:
        """Whether a leader's or node's record was written by our child of that role."""
        facts = json.loads(record.value) if record else {}
        return str(self.children[role].pid) in (str(facts.get("pid")), str(facts.get("name")).rpartition("-")[2])

    def _child(self, role: str, command: list[str], environ: Mapping[str, str]) -> None:
        child = Child(role, command, environ, self.folder.make("log") / f"{role}.log")
        child.log.unlink(missing_ok=True)
        self.children[role] = child
        self._begin(child)

    def _begin(self, child: Child) -> None:
        child.start()
        self.folder.note_children((each.role, each.pid) for each in self.children.values())

    def _banner(self, address: str, link: str, binary: etcd.Binary, endpoint: str, took: float) -> None:
        say = self.voice.line
        say()
        say(f"  Crony {__version__} is running (after {took:.1f} s). Everything lies in {self.folder.path}")
        say()
        say(f"    web        {self.voice.paint(address, '1')}")
        say(f"    sign in    {self.voice.paint(link, '1')}  (works once)")
        say(f"    commands   crony job list   (in {self.folder.path.parent})")
        say(f"    node       {NODE}: {self.options.concurrency} at a time; shell jobs run on it, as you;")
        say("               HTTP jobs may call this machine (127.0.0.1), as CRONY_HTTP_ALLOW=loopback has it")
        say(f"    etcd       {binary.number} {binary.source}, {endpoint}")
        say("    Ctrl-C     stops all of it")
        say()
        if binary.warning:
            self.voice.warning(binary.warning)

    # -- watch ---------------------------------------------------------------------------------

    def _until(self, ready: Callable[[], object], timeout: float | None, what: str) -> None:
        """Wait for something while the children are looked after. Raises `Stopped`, or `Unavailable` in the end."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            if self.wishes:
                raise Stopped
            self._tend()
            if ready():
                return
            if until is not None and time.monotonic() > until:
                hint = f"look into {self.folder.path / 'log'}"
                raise Unavailable(f"waited {timeout:g} s for {what}, in vain", hint=hint)
            pauses = [0.1] if timeout is not None else [5.0]
            pauses += [child.retry_at - time.monotonic() for child in self.children.values() if child.retry_at]
            self._bell.wait(max(0.01, min(pauses)))

    def _tend(self) -> None:
        """Start again what died."""
        for child in self.children.values():
            if child.retry_at and time.monotonic() >= child.retry_at:
                self._begin(child)
            elif not child.retry_at and not child.running:
                how, pause = child.ended(), child.plan_restart()
                child.kill()
                self.voice.warning(f"the {child.role} {how}; started again in {pause:g} s. Last words ({child.log}):")
                for line in child.tail():
                    self.voice.line(f"      {line}")
                if child.failures >= HOPELESS and not self._started:
                    raise Unavailable(f"the {child.role} does not start", hint=f"its log says why: {child.log}")

    # -- the measured run ----------------------------------------------------------------------

    def _measure(self, ledger: Ledger, seconds: float) -> dict[str, int]:
        """After so many seconds: let what was due until then end, and count."""
        begun = time.monotonic()
        self._until(lambda: time.monotonic() - begun >= seconds, seconds + 1, "the time to pass")
        cut = int(time.time())
        self.voice.remark("time is up: waiting for the runs in flight")

        counted_at = 0.0

        def quiet() -> bool:
            nonlocal counted_at
            if ledger.unfinished(cut) or time.monotonic() - counted_at < 1:
                return False
            counted_at = time.monotonic()
            return count(ledger.facts(cut)).lost == 0

        try:
            self._until(quiet, SETTLING, "the runs in flight to end")
        except Unavailable:
            self.voice.warning(f"these did not end in {SETTLING:g} s: {', '.join(ledger.unfinished(cut)) or 'none'}")
        totals = count(ledger.facts(cut))
        for note in totals.notes:
            self.voice.warning(note)
        for remark in totals.remarks:
            self.voice.remark(remark)
        return totals.figures()

    # -- stop ----------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Stop everything: work first, then what it needs. A second wish for the end kills at once."""
        asked = self.wishes
        if self.children:
            self.voice.remark("stopping (once more: at once)" if asked else "stopping")
        for roles in (("centre", "node"), ("web",), ("etcd",)):
            going = [self.children[role] for role in roles if role in self.children]
            for child in going:
                child.ask()
            until = {child.role: time.monotonic() + STOPPING[child.role] for child in going}
            while any(child.running for child in going):
                late = [child for child in going if child.running and time.monotonic() > until[child.role]]
                for child in going if self.wishes > asked else late:
                    if child in late:
                        self.voice.warning(f"the {child.role} did not end in {STOPPING[child.role]:g} s and was killed")
                    child.kill()
                self._bell.wait(0.05)
            for child in going:
                child.kill()
            if roles == ("web",):
                for close in reversed(self._closers):
                    close()
        self.folder.note_children(())


def run(options: Options, settings: Settings) -> int:
    """`crony dev`; the exit code. Raises `Held` when the directory is in use, other `CronyError`s with a hint."""
    folder = Folder.open(options.data_dir)
    voice = Voice()
    dev = Dev(options, settings, folder, voice)
    voice.on_gone(dev.leave)
    try:
        return dev.run()
    finally:
        folder.close()


def _address(host: str, port: int) -> str:
    shown = "127.0.0.1" if host in ("0.0.0.0", "::", "") else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"


def _answers(url: str) -> bool:
    try:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(url, timeout=1).status_code == 200
    except requests.RequestException:
        return False
