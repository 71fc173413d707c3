"""How long a killed leader and a killed node are missed: median and worst over many kills, against what is promised.

Leader: two centres and a job each second, from SIGKILL to the next decision by the other (TTL + 2 s). Node: pairs of
nodes, a run under way on one of each, from its SIGKILL to the start of the second attempt on the other (TTL + grace +
2 s); five pairs lose their node at once, so that fifty kills take minutes.
`python -m benchmarks.takeover [kills of leaders] [kills of nodes]`
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from benchmarks.bare import Bare, bare
from benchmarks.harness import median, report, until
from crony.domain.run import Done
from tests.helpers.etcd import EtcdServer
from tests.helpers.platform import Platform, Process, platform

LEADER_TTL, NODE_TTL, GRACE = 5.0, 10.0, 5.0
NAMES = ("one", "two")
PAIRS = 5


def decided(made: Bare, job: str) -> int:
    """The second up to which a job's fires are decided."""
    found = made.client.get(made.keys.done(job))
    return Done.read(found.value).upto_at if found else 0


def leaders(kills: int) -> list[float]:
    """Seconds without decisions, for each kill."""
    missed: list[float] = []
    with bare() as made:
        (job,) = made.jobs(
            [{"name": "tick", "schedule": {"every": "1s"}, "action": {"kind": "shell", "command": ["true"]},
              "overlap": "allow", "misfire": {"policy": "skip", "after": "2s"}}]
        )  # fmt: skip
        made.node("n1")
        ttl = {"CRONY_LEADER_TTL": str(LEADER_TTL)}
        running = {name: made.centre(name, **ttl) for name in NAMES}
        for _ in range(kills):
            start = int(time.time())
            until(lambda start=start: decided(made, job) > start, 30, "decisions", every=0.1)  # type: ignore[misc]
            until(lambda: made.client.count(made.keys.root + "beat/centre/") >= 2, 30, "two centres", every=0.1)
            leader = made.client.get(made.keys.leader(0))
            name = next(name for name in NAMES if leader is not None and f'"{name}"'.encode() in leader.value)
            running[name].kill()
            running[name].wait()
            killed = time.time()
            until(lambda killed=killed: decided(made, job) >= killed + 1, 30, "the other's decisions", every=0.02)  # type: ignore[misc]
            missed.append(time.time() - killed)
            running[name] = made.centre(name, **ttl)
            print(f"leader {len(missed)}: {missed[-1]:.2f} s", flush=True)
    return missed


def started(made: Platform, runs: Collection[str], attempt: int) -> dict[str, float]:
    """When an attempt of each run left its mark, waited for."""
    found: dict[str, float] = {}

    def all_of_them() -> bool:
        found.update({of: at for of, number, what, at in made.marked() if (number, what) == (attempt, "start")})
        return all(run in found for run in runs)

    until(all_of_them, 60, f"attempt {attempt} of {len(runs)} runs", every=0.05)
    return {run: found[run] for run in runs}


def nodes(kills: int) -> list[float]:
    """Seconds from the kill of a node to the next start of the run that it had begun."""
    missed: list[float] = []
    with tempfile.TemporaryDirectory(prefix="crony-bench-") as name:
        folder = Path(name)
        etcd = EtcdServer(data_dir=folder / "etcd")
        etcd.start()
        try:
            ttls = {"leader_ttl": LEADER_TTL, "node_ttl": NODE_TTL, "grace": GRACE}
            with platform(folder / "crony", [etcd.endpoint], **ttls) as made:
                made.centre("one")
                made.web()
                pairs = [
                    [made.node(f"n{pair}{side}", concurrency=1, CRONY_NODE_LABELS=f"pair={pair}") for side in "ab"]
                    for pair in range(min(PAIRS, kills))
                ]
                made.await_leader()
                jobs = [
                    made.marking(f"begun-{pair}", between=made.at_gate, routing={"labels": {"pair": str(pair)}})
                    for pair in range(len(pairs))
                ]
                turn = 0
                while len(missed) < kills:
                    now = pairs[: kills - len(missed)]
                    missed += _kill_one_of_each(made, now, jobs, turn)
                    turn += 1
                    print(f"nodes killed: {len(missed)}, the last {missed[-1]:.2f} s", flush=True)
        finally:
            etcd.stop()
    return missed


def _kill_one_of_each(made: Platform, pairs: list[list[Process]], jobs: list[dict[str, Any]], turn: int) -> list[float]:
    """Seconds that the run of each pair stood still."""
    made.await_nodes(*(node.name for pair in pairs for node in pair), timeout=90)
    victims, others = [pair[turn % 2] for pair in pairs], [pair[1 - turn % 2] for pair in pairs]
    for other in others:
        made.call("PATCH", f"nodes/{other.name}", {"cordoned": True})
    runs = [made.trigger(job) for job, _ in zip(jobs, pairs, strict=False)]
    started(made, runs, 1)
    for other in others:
        made.call("PATCH", f"nodes/{other.name}", {"cordoned": False})
    killed = []
    for victim in victims:
        victim.destroy()
        killed.append(time.time())
    again = started(made, runs, 2)
    made.gate.touch()
    for run in runs:
        made.wait(run, 60)
    made.gate.unlink()
    for victim in victims:
        victim.start()
    return [again[run] - at for run, at in zip(runs, killed, strict=True)]


def main(of_leaders: int = 50, of_nodes: int = 50) -> None:
    """Print the table and the figures."""
    rows, figures = [], {}
    kinds = (("leader", leaders, of_leaders, LEADER_TTL + 2), ("node", nodes, of_nodes, NODE_TTL + GRACE + 2))
    for what, kill, kills, bound in kinds:
        if not kills:
            continue
        times = kill(kills)
        rows.append({"killed": what, "kills": len(times), "median s": f"{median(times):.2f}",
                     "worst s": f"{max(times):.2f}", "promised s": bound})  # fmt: skip
        figures[what] = {"median_s": round(median(times), 2), "worst_s": round(max(times), 2), "promised_s": bound}
    report("takeover", rows, figures)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
