"""Histories written by hand, for the judge's own tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.soak.judge import History, judged, report, rules

T0 = 1_800_000_000
"""A full minute, when every history begins."""
JOB, RUN, PLACE = "j1", f"j1.1.{T0 + 10}", f"90000000000000001.j1.1.{T0 + 10}"

BAD: dict[str, list[Callable[[], Tale]]] = {}
"""Rule -> histories that break it."""


def breaks(rule: str) -> Callable[[Callable[[], Tale]], Callable[[], Tale]]:
    """A history that breaks this rule."""

    def register(tell: Callable[[], Tale]) -> Callable[[], Tale]:
        BAD.setdefault(rule, []).append(tell)
        return tell

    return register


class Tale:
    """A history in the making: one step after the other, by default a second apart."""

    def __init__(self, **header: Any) -> None:
        self.at = float(T0)
        self.revision = 100
        self.created: dict[str, int] = {}
        facts = {"at": T0, "root": "/crony/x/", "leader_ttl": 2.0, "node_ttl": 3.0, "grace": 1.0, **header}
        self.lines: list[dict[str, Any]] = [{"kind": "world", **facts}, {"kind": "recorder", "at": T0, "revision": 100}]

    def step(self, puts: Mapping[str, Any] | None = None, *deletes: str, lease: int = 0, after: float = 1.0) -> int:
        """One transaction; its revision. Values that are no text become JSON."""
        self.at += after
        self.revision += 2
        self._line("put", self.revision - 1, "/soak/tick", value=repr(self.at - 0.05), root="")
        for key, value in (puts or {}).items():
            text = value if isinstance(value, str) else json.dumps(value)
            leased = lease or (7 if key.startswith(("session/", "node/", "beat/0/leader")) else 0)
            self._line("put", self.revision, key, value=text, lease=leased)
        for key in deletes:
            self._line("delete", self.revision, key)
        return self.revision

    def _line(self, kind: str, revision: int, key: str, *, root: str = "/crony/x/", **facts: Any) -> None:
        if kind == "put":
            facts["create"] = self.created.setdefault(key, revision)
        else:
            self.created.pop(key, None)
        self.lines.append({"kind": kind, "at": self.at, "rev": revision, "key": root + key, **facts})

    def note(self, kind: str, **facts: Any) -> None:
        """Anything else."""
        self.lines.append({"kind": kind, "at": self.at, **facts})

    def mark(self, what: str, run: str = RUN, attempt: int = 1, fence: int = 0) -> None:
        """A line of a job."""
        self.note("mark", run=run, attempt=attempt, fence=fence, what=what, when=self.at)

    def op(self, what: str, status: int = 200, job: str = JOB, **facts: Any) -> None:
        """A call, just answered."""
        self.note("op", what=what, status=status, job=job, sent=self.at - 0.1, answered=self.at + 0.2, **facts)

    def fault(self, ident: str, began: float, ended: float, **facts: Any) -> None:
        """Something broken on purpose."""
        number = len(self.lines)
        self.lines.append(
            {"kind": "fault", "at": began, "phase": "began", "number": number, "id": ident, "facts": facts}
        )
        self.lines.append({"kind": "fault", "at": ended, "phase": "ended", "number": number, "id": ident})

    def end(self, **facts: Any) -> None:
        """An orderly end."""
        told = {
            "drained": 1.0,
            "runs": [[RUN, "succeeded"]],
            "skips": [],
            "left": [],
            "exits": {},
            "leaked": [],
            **facts,
        }
        self.note("end", **told)

    # -- what happens in good histories -------------------------------------------------------------

    def begin(self, **document: Any) -> Tale:
        """A leader, a node, and a job that is due every ten seconds."""
        self.step({"beat/0/leader": {"name": "c1"}, "beat/0/last": {"name": "c1", "term": 5}}, after=0.2)
        facts = {"incarnation": "i1", "capacity": 4}
        self.step({"session/i1": {}, "node/n1": facts}, after=0.2)
        self.publish(after=0.2, cursor=T0, **document)
        return self

    @staticmethod
    def document(**fields: Any) -> dict[str, Any]:
        """That of a job that is due every ten seconds."""
        usual = {"schedule": {"every": "10s"}, "overlap": "allow", "misfire": {"after": "1h"}, "tags": ["marks"]}
        return usual | fields

    def publish(self, *, revision: int = 1, cursor: int | None = None, after: float = 1.0, **document: Any) -> int:
        """A save goes live."""
        told = {"revision": revision, "generation": 1, "document": self.document(**document),
                "published_at": self.at + after}  # fmt: skip
        puts: dict[str, Any] = {f"job/{JOB}": sealed(told)}
        if cursor is not None:
            puts[f"done/{JOB}"] = {"upto_at": cursor}
        return self.step(puts, after=after)

    def fire(self, second: int = T0 + 10, **envelope: Any) -> int:
        """A fire is dispatched, on time."""
        after = max(0.1, second + 0.1 - self.at)
        sent = message(f"{JOB}.1.{second}", requested_at=self.at + after, **envelope)
        return self.step({f"done/{JOB}": {"upto_at": second}, **sent}, after=after)

    def claim(self, place: str = PLACE, *, holder: str = "i1", count: int = 1, queue: str = "run.n1") -> int:
        """A node takes a message; the fence."""
        return self.step({f"run/q/{queue}/c/{place}": {"incarnation": holder, "count": count, "node": "n1"}}, after=0.1)

    def ends(self, fence: int, *, run: str = RUN, place: str = PLACE, attempt: int = 1, kind: str = "succeeded",
             final: bool = True, puts: Mapping[str, Any] | None = None, **outcome: Any) -> int:  # fmt: skip
        """An attempt ends."""
        told = {"kind": kind, "final": final, "fence": fence, "run": run, "job": JOB, "ended_at": self.at, **outcome}
        gone = (f"run/q/run.n1/m/{place}", f"run/q/run.n1/c/{place}")
        return self.step({f"run/out/{run}/{attempt}": told, **(puts or {})}, *gone, after=0.5)

    def runs(self, fence: int | None = None) -> int:
        """The first fire, from its dispatch to its end; the fence."""
        self.fire()
        fence = self.claim()
        self.mark("start", fence=fence)
        self.at += 0.2
        self.mark("end", fence=fence)
        self.ends(fence)
        return fence

    def settle(self) -> None:
        """Everything until now has had its consequences."""
        self.step({"settled": {"revision": self.revision, "key": "/crony/x/s"}}, after=0.1)

    def found(self) -> set[str]:
        """Rules that are broken."""
        findings = judged(History(self.lines))
        print(report(findings))
        return rules(findings)


def sealed(told: Any) -> str:
    """A sealed record."""
    return json.dumps({"p": json.dumps(told), "k": "", "s": ""})


def message(run: str = RUN, *, place: str = "", queue: str = "run.n1", **envelope: Any) -> dict[str, str]:
    """A run message."""
    told = {"run": run, "job": JOB, "attempt": 1, "revision": 1, "generation": 1, "incarnation": "i1", **envelope}
    place = place or f"90000000000000001.{run}"
    return {f"run/q/{queue}/m/{place}": "{}\n" + json.dumps([[sealed(told)], {}, {}])}


def wait(run: str = RUN, finished: int = 1, reason: str = "ended", **envelope: Any) -> dict[str, Any]:
    """A waiting record."""
    told = {"run": run, "job": JOB, "attempt": finished or 1, "revision": 1, "generation": 1, **envelope}
    return {f"run/wait/{run}": {"run": run, "finished": finished, "reason": reason, "envelope": sealed(told)}}


def skip(first: int, last: int, count: int, reason: str = "misfire", at: float = 0.0) -> dict[str, Any]:
    """A record of skipped fires."""
    told = {"kind": "skipped", "final": True, "job": JOB, "fire_at": first, "to_at": last, "count": count}
    return {f"run/out/{JOB}.1.{first}/0": {**told, "reason": reason, "ended_at": at}}


def asked(ident: str = "q1", run: str = "j1.1.mx", **more: Any) -> dict[str, Any]:
    """A request."""
    return {f"run/in/{ident}": {"kind": "run", "run": run, "job": JOB, **more}}
