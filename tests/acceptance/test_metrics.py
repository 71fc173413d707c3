"""What centres and nodes count reaches `/metrics` of a web, from the processes of a pool, too; nothing else listens."""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from crony.domain import ids
from crony.transport_etcd.message import task_message
from tests.helpers.etcd import EtcdServer
from tests.helpers.platform import Platform, platform
from tests.helpers.wait import until


def _figures(crony: Platform) -> dict[str, float]:
    """Sum of each figure over whoever told it, by name and its own label."""
    text = crony.http.get(f"{crony.api}/metrics", timeout=30).text
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            own = {name: value for name, value in sample.labels.items() if name not in ("centre", "node")}
            key = f"{sample.name}{sorted(own.values())}" if own else sample.name
            found[key] = found.get(key, 0.0) + sample.value
    return found


def test_figures_of_real_processes(own_etcd: EtcdServer, tmp_path: Path) -> None:
    with platform(tmp_path / "crony", [own_etcd.endpoint]) as crony:
        centre = crony.centre("one")
        crony.web()
        node = crony.node("n1", pool="prefork", concurrency=2)
        crony.await_nodes("n1")
        crony.shell("ticks", "true", schedule={"every": "1s"})
        retried = crony.shell("retried", "exit 3", retry={"max": 1, "delay": "1s", "jitter": False})
        slow = crony.shell("slow", "sleep 30", timeout="1s")
        for job in (retried, slow):
            crony.wait(crony.trigger(job), 30)
        bad = task_message("crony.run", "nobody:1", ["not sealed"], {})
        crony.client.put(crony.keys.message("run.n1", ids.place(0, 1, "j0.1.60")), bad)
        until(lambda: (now := _figures(crony)).get("crony_attempts_total['timed_out']") == 1
              and now.get("crony_retries_total", 0) >= 1
              and now.get("crony_node_quarantined_total") == 1
              and now.get("crony_runs_total['succeeded']", 0) >= 2, 40, "the figures to arrive")  # fmt: skip
        now = _figures(crony)
        assert now["crony_runs_total['failed']"] == 1 and now["crony_attempts_total['failed']"] == 2
        assert now["crony_dispatch_lag_seconds_count"] >= 2 and now["crony_attempt_seconds_count['shell']"] >= 5
        assert now["crony_start_seconds_count"] >= 4 and now["crony_node_capacity"] == 2
        assert now["crony_leader"] == 1 and now["crony_jobs_live"] == 3
        assert not any("j0" in key or "retried" in key for key in now), "no job, no run is a label"
        for process in (centre, node):
            assert not _listens(process.pid), process.name


def _listens(pid: int) -> bool:
    """Whether a process has a socket that listens on TCP: proc_pid_net(5), state 0A."""
    rows = [
        line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()
    ]
    listening = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A"}
    assert listening, "the web listens, and is told of"
    return any(_link(fd) in listening for fd in Path(f"/proc/{pid}/fd").iterdir())


def _link(fd: Path) -> str:
    try:
        return os.readlink(fd)
    except OSError:
        return ""
