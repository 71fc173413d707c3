"""A history as the judges read it: etcd's changes as steps, what lies there between them, and what people did.

Nothing of Crony is imported here or in any judge. The layout of the records is that of the protocol, read anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote
from zlib import crc32

TICK = "/soak/tick"
Told = dict[str, Any]


class Finding(NamedTuple):
    """A broken rule, and what broke it."""

    rule: str
    what: str


@dataclass(frozen=True)
class Kept:
    """What a key holds since revision `mod`. `create`: since when the key is there; `lease`: 0 for none."""

    value: str
    mod: int
    create: int
    lease: int = 0

    @property
    def told(self) -> Told:
        """The value as a mapping; empty when it is none."""
        return _mapping(self.value)


class Change(NamedTuple):
    """One key, before and after; None: absent."""

    key: str
    """Without the prefix of the namespace; keys elsewhere as they are."""
    old: Kept | None
    new: Kept | None

    @property
    def parts(self) -> list[str]:
        """Segments of the key."""
        return self.key.split("/")


@dataclass(frozen=True)
class Step:
    """All changes of one revision. It happened between `low` and `high` (epoch seconds, the harness's clock)."""

    revision: int
    low: float
    high: float
    changes: tuple[Change, ...]

    def of(self, *prefix: str) -> Iterator[Change]:
        """Changes of keys that begin with these segments."""
        wanted = "/".join(prefix) + "/"
        return (each for each in self.changes if each.key.startswith(wanted))


class Mark(NamedTuple):
    """What a job wrote itself, outside Crony."""

    run: str
    attempt: int
    fence: int
    what: str
    at: float
    place: int
    """Which line of the file."""


@dataclass
class Fault:
    """Something that was broken on purpose, from `began` to `ended` (infinite: never put right)."""

    ident: str
    began: float
    ended: float = float("inf")
    facts: Told = field(default_factory=dict)


class Message(NamedTuple):
    """A run message in a queue."""

    run: str
    envelope: Told
    mod: int


class Claim(NamedTuple):
    """A claim; without holder: given back."""

    holder: str
    count: int
    phase: str
    node: str
    mod: int


At = tuple[str, str]
"""Queue and place."""


class State:
    """What lies in etcd after a step, as far as judges ask."""

    def __init__(self) -> None:
        self.keys: dict[str, Kept] = {}
        self.messages: dict[At, Message] = {}
        self.claims: dict[At, Claim] = {}
        self.waits: dict[str, Told] = {}
        self.requests: dict[str, Told] = {}
        self.accepted: dict[str, Told] = {}
        self.joins: dict[str, Told] = {}
        """Runs whose parts are under way."""
        self.sessions: set[str] = set()
        self.jobs: dict[str, Told] = {}
        """Published documents with revision, generation and so on."""
        self.places: dict[str, list[str]] = {}
        """Where each live run is."""

    def leader(self, job: str = "") -> Kept | None:
        """The key of the leader of a job's shard; of the first shard where no job is given."""
        shards = self.keys.get("beat/shards")
        count = int(shards.told.get("count", 1)) if shards else 1
        return self.keys.get(f"beat/{crc32(job.encode()) % count if job else 0}/leader")

    def take(self, step: Step) -> None:
        """All changes of a step at once."""
        for change in step.changes:
            if change.new is None:
                self.keys.pop(change.key, None)
            else:
                self.keys[change.key] = change.new
            self._sort_in(change)

    def _sort_in(self, change: Change) -> None:
        new = change.new
        match change.parts:
            case ["run", "in", ident]:
                _set(self.requests, ident, new and new.told)
                run = _requested(new) or _requested(change.old)
                self._place(run, f"requested as {ident}", bool(new)) if run else None
            case ["run", "wait", run]:
                _set(self.waits, run, new and new.told)
                self._place(run, "waiting", bool(new))
            case ["run", "acc", run]:
                _set(self.accepted, run, new and new.told)
                self._place(run, "accepted", bool(new))
            case ["run", "join", run]:
                _set(self.joins, run, new and new.told)
                self._place(run, "in parts", bool(new))
            case ["run", "q", queue, "m", place]:
                at = unquote(queue), place
                self._place(run_at(place), f"in {at[0]} at {place}", bool(new))
                _set(self.messages, at, new and Message(run_at(place), envelope_of_message(new.value), new.mod))
            case ["run", "q", queue, "c", place]:
                _set(self.claims, (unquote(queue), place), new and claim_of(new))
            case ["session", incarnation]:
                (self.sessions.add if new else self.sessions.discard)(incarnation)
            case ["job", job]:
                _set(self.jobs, job, new and sealed(new.value))

    def _place(self, run: str, where: str, there: bool) -> None:
        places = self.places.setdefault(run, [])
        if where in places:
            places.remove(where)
        if there:
            places.append(where)
        if not places:
            del self.places[run]

    def alive(self, run: str) -> bool:
        """Whether a run is anywhere."""
        return run in self.places


class History:
    """One run of the soak, read from its file."""

    def __init__(self, lines: list[Told]) -> None:
        kinds: dict[str, list[Told]] = {}
        for line in lines:
            kinds.setdefault(line["kind"], []).append(line)
        self.header: Told = kinds.get("world", [{}])[0]
        self.root: str = self.header.get("root", "/crony/soak/")
        self.ops = kinds.get("op", [])
        self.processes = kinds.get("process", [])
        self.blind = kinds.get("blind", [])
        self.stalls = kinds.get("stall", [])
        self.ready = kinds.get("ready", [])
        self.callee = kinds.get("callee", [])
        """What a service that answers later was asked, said, and was answered."""
        self.zones = {each["name"]: each["tzif"] for each in kinds.get("zone", [])}
        self.end: Told | None = kinds.get("end", [None])[-1]
        self.stopped: Told = kinds.get("stopped", [{"exits": {}}])[-1]
        """How everybody ended after a restore."""
        self.restored: Told | None = kinds.get("restored", [None])[-1]
        self.recovered: Told | None = kinds.get("recovered", [None])[-1]
        """When `crony recover` was begun after that."""
        self.recorded_from = int(kinds.get("recorder", [{"revision": 0}])[0]["revision"])
        self.marks = [
            Mark(each["run"], each["attempt"], each["fence"], each["what"], each["when"], number)
            for number, each in enumerate(kinds.get("mark", []))
        ]
        self.faults = _faults(kinds.get("fault", []))
        raw = [line for line in lines if line["kind"] in ("put", "delete")]
        cut = self.restored["line"] if self.restored else None
        self.steps = self._steps(raw)
        self.after_restore: list[Told] = []
        if cut is not None:
            self.after_restore = [line for line in lines[cut:] if line["kind"] in ("put", "delete")]
            self.steps = self._steps([line for line in lines[:cut] if line["kind"] in ("put", "delete")])

    @classmethod
    def load(cls, path: Path) -> History:
        """Read a journal; its last line may be torn."""
        lines = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
        return cls(lines)

    @property
    def ended(self) -> bool:
        """Whether it came to an orderly end: then nothing may be missing or left."""
        return self.end is not None

    def _steps(self, raw: list[Told]) -> list[Step]:
        steps: list[Step] = []
        keys: dict[str, Kept] = {}
        low = float(self.header.get("at", 0.0))
        for revision, group in groupby(raw, key=lambda line: int(line["rev"])):
            changes = []
            high = 0.0
            for line in group:
                high = float(line["at"])
                if line["key"] == TICK and line["kind"] == "put":
                    low = max(low, float(line["value"]))
                key, old = line["key"].removeprefix(self.root), keys.get(line["key"])
                new = None
                if line["kind"] == "put":
                    new = Kept(line["value"], revision, int(line["create"]), int(line.get("lease", 0)))
                    keys[line["key"]] = new
                else:
                    keys.pop(line["key"], None)
                changes.append(Change(key, old, new))
            steps.append(Step(revision, low, high, tuple(changes)))
        return steps


def run_at(place: str) -> str:
    """The run whose message lies at a place."""
    return place.split(".", 1)[1]


def job_of(run: str) -> str:
    """The job of a run."""
    return run.split(".", 1)[0]


def is_part(run: str) -> bool:
    """Whether it is a part of a run."""
    return run.count(".") == 3


def whole_of(run: str) -> str:
    """The run that it is a part of, or itself."""
    return run.rpartition(".")[0] if is_part(run) else run


def part_of(run: str) -> int:
    """The number of a part."""
    return int(run.rpartition(".")[2])


def fire_of(run: str) -> int | None:
    """The nominal second of a run that a schedule asked for."""
    suffix = run.split(".", 2)[2]
    return int(suffix) if suffix.isdigit() else None


def sealed(value: str) -> Told:
    """What a sealed record says; empty when it is none."""
    outer = _mapping(value)
    return _mapping(str(outer.get("p", "")))


def envelope_of_message(value: str) -> Told:
    """The envelope in a run message; empty when there is none."""
    try:
        return sealed(str(json.loads(value.partition("\n")[2])[0][0]))
    except (ValueError, LookupError, TypeError):
        return {}


def claim_of(kept: Kept) -> Claim:
    """A claim as written."""
    told = kept.told
    return Claim(
        str(told.get("incarnation", "")),
        int(told.get("count", 1)),  # what is as always is left out of records
        str(told.get("phase", "C")),
        str(told.get("node", "")),
        kept.mod,
    )


def _requested(kept: Kept | None) -> str:
    told = kept.told if kept else {}
    return str(told.get("run", "")) if told.get("kind") == "run" else ""


def _mapping(text: str) -> Told:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _set(where: dict[Any, Any], key: Any, value: Any) -> None:
    if value is None:
        where.pop(key, None)
    else:
        where[key] = value


def _faults(lines: list[Told]) -> list[Fault]:
    found: dict[int, Fault] = {}
    for line in lines:
        number = int(line["number"])
        if line["phase"] == "began":
            found[number] = Fault(line["id"], float(line["at"]), facts=dict(line.get("facts", {})))
        elif number in found:
            found[number].ended = float(line["at"])
            found[number].facts |= line.get("facts", {})
    return list(found.values())


class Judge:
    """Looks at each step, before and after it happened; then at the whole. Findings go to `found`."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.found: list[Finding] = []

    def say(self, rule: str, what: str) -> None:
        """A rule is broken."""
        self.found.append(Finding(rule, what))

    def before(self, step: Step, state: State) -> None:
        """The step is about to happen."""

    def after(self, step: Step, state: State) -> None:
        """The step has happened."""

    def finish(self, state: State) -> None:
        """That was all."""
