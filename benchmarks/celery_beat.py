"""The peers: Celery's own beat, or RedBeat, and a worker on Redis, with N crontab entries due at the same minute."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.helpers.etcd import free_ports
from tests.helpers.wait import until

APP = """
import os, time
from celery import Celery
from celery.schedules import crontab
app = Celery("peer", broker=os.environ["PEER_BROKER"])
app.conf.update(worker_prefetch_multiplier=4, task_ignore_result=True)
@app.task
def mark():
    with open(os.environ["PEER_MARKS"], "a") as marks:
        marks.write(f"{time.time()}\\n")
app.conf.update(redbeat_redis_url=os.environ["PEER_BROKER"], beat_max_loop_interval=5)
jobs = range(int(os.environ["PEER_JOBS"]))
app.conf.beat_schedule = {f"job-{n}": {"task": "peer.mark", "schedule": crontab()} for n in jobs}
"""


def redbeat(jobs: int, concurrency: int) -> tuple[float, float]:
    """As `measure`, with RedBeat as scheduler, which keeps its entries in Redis."""
    return measure(jobs, concurrency, "redbeat.RedBeatScheduler")


def measure(jobs: int, concurrency: int, scheduler: str = "") -> tuple[float, float]:
    """(first, last) start in seconds after the minute that all are due at."""
    server = shutil.which("redis-server")
    if server is None:
        raise SystemExit("the peer needs redis-server: apt-get install redis-server")
    for package in ("redis", "redbeat"):
        if importlib.util.find_spec(package) is None:
            raise SystemExit(f"the peer needs the Python package {package}: `make bench` installs it")
    with tempfile.TemporaryDirectory(prefix="crony-peer-") as name:
        folder, port = Path(name), free_ports(1)[0]
        (folder / "peer.py").write_text(APP)
        marks = folder / "marks"
        environ = os.environ | {
            "PEER_BROKER": f"redis://127.0.0.1:{port}/0",
            "PEER_MARKS": str(marks),
            "PEER_JOBS": str(jobs),
        }
        quiet = {"cwd": folder, "env": environ, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        celery = [sys.executable, "-m", "celery", "-A", "peer"]
        processes = [subprocess.Popen([server, "--port", str(port), "--save", "", "--bind", "127.0.0.1"], **quiet)]  # type: ignore[call-overload]
        try:
            processes.append(subprocess.Popen([*celery, "worker", "-P", "threads", "-c", str(concurrency)], **quiet))  # type: ignore[call-overload]
            beat = [*celery, "beat", *(["-S", scheduler] if scheduler else [])]
            processes.append(subprocess.Popen(beat, **quiet))  # type: ignore[call-overload]
            started = time.time() + jobs / 500  # so long may taking in its entries last

            def fired() -> list[float]:
                found = sorted(float(line) for line in marks.read_text().split()) if marks.exists() else []
                # the minute in which beat itself starts is not a fair one
                minute = (int(started) // 60 + (1 if started % 60 < 45 else 2)) * 60
                return [at - minute for at in found if at >= minute]

            def complete() -> list[float]:
                found = fired()
                return found if len(found) >= jobs else []

            found = until(complete, 240, "the peer to start all its tasks", every=0.2)
            assert all(process.poll() is None for process in processes), "a process of the peer ended"
            return found[0], found[jobs - 1]
        finally:
            for process in reversed(processes):
                process.kill()
                process.wait()
