"""How long a killed leader and a killed node are missed: median and worst over many kills, against what is promised.

Leader: two centres and a job each second, from SIGKILL to the next decision by the other (TTL + 2 s). Node: two nodes,
a run under way on one, from its SIGKILL to the start of the second attempt on the other (TTL + grace + 2 s).
`python -m benchmarks.takeover [kills of leaders] [kills of nodes]`
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from benchmarks.bare import Bare, bare
from benchmarks.harness import median, report, until
from crony.domain.run import Done
from tests.helpers.etcd import EtcdServer
from tests.helpers.platform import Platform, platform

LEADER_TTL, NODE_TTL, GRACE = 5.0, 10.0, 5.0
NAMES = ("one", "two")


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
            until(lambda start=start: decided(made, job) > start + 2, 30, "decisions", every=0.1)  # type: ignore[misc]
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


def started(made: Platform, run: str, attempt: int) -> float:
    """When an attempt left its mark, waited for."""

    def found() -> list[float]:
        return [at for of, number, what, at in made.marked() if (of, number, what) == (run, attempt, "start")]

    return until(found, 60, f"attempt {attempt}", every=0.05)[0]


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
                running = [made.node(each) for each in ("n1", "n2")]
                made.await_leader()
                for number in range(kills):
                    made.await_nodes("n1", "n2", timeout=60)
                    victim, other = running[number % 2], running[1 - number % 2]
                    made.call("PATCH", f"nodes/{other.name}", {"cordoned": True})
                    run = made.trigger(made.marking(f"begun-{number}", between=made.at_gate))
                    started(made, run, 1)
                    made.call("PATCH", f"nodes/{other.name}", {"cordoned": False})
                    killed = time.time()
                    victim.destroy()
                    missed.append(started(made, run, 2) - killed)
                    made.gate.touch()
                    made.wait(run, 60)
                    made.gate.unlink()
                    victim.start()
                    print(f"node {number + 1}: {missed[-1]:.2f} s", flush=True)
        finally:
            etcd.stop()
    return missed


def main(of_leaders: int = 50, of_nodes: int = 10) -> None:
    """Print the table and the figures."""
    rows, figures = [], {}
    kinds = (("leader", leaders(of_leaders), LEADER_TTL + 2), ("node", nodes(of_nodes), NODE_TTL + GRACE + 2))
    for what, times, bound in kinds:
        rows.append({"killed": what, "kills": len(times), "median s": f"{median(times):.2f}",
                     "worst s": f"{max(times):.2f}", "promised s": bound})  # fmt: skip
        figures[what] = {"median_s": round(median(times), 2), "worst_s": round(max(times), 2), "promised_s": bound}
    report("takeover", rows, figures)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
