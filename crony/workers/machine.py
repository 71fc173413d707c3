"""How the machine under a node is: load, memory, disk, versions; from the standard library and Linux's `/proc`."""

from __future__ import annotations

import os
import platform
import shutil
from functools import cache
from pathlib import Path

import celery

_PAGE = os.sysconf("SC_PAGE_SIZE")


def state(spool: str) -> dict[str, float]:
    """cpus, load (runnable processes, mean of the last minute), memory, memory_free, disk, disk_free (of the file
    system of `spool`), rss (of this process and its children); bytes. What the system does not tell is left out."""
    found: dict[str, float] = {"cpus": len(os.sched_getaffinity(0))}
    try:
        found["load"] = round(os.getloadavg()[0], 2)
    except OSError:
        pass
    found |= _memory()
    try:
        disk = shutil.disk_usage(spool)
        found |= {"disk": disk.total, "disk_free": disk.free}
    except OSError:
        pass
    try:
        found["rss"] = sum(_rss(pid) for pid in (os.getpid(), *_children()))
    except (OSError, ValueError, IndexError):
        pass
    return found


@cache
def versions() -> dict[str, str]:
    """Of Python, Celery and the kernel."""
    return {"python": platform.python_version(), "celery": celery.__version__, "kernel": platform.release()}


def _memory() -> dict[str, float]:
    """proc_meminfo(5): MemAvailable is what can be used without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        rows = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines) if rest}
        return {"memory": rows["MemTotal"], "memory_free": rows["MemAvailable"]}
    except (OSError, KeyError, ValueError, IndexError):
        return {}


def _children() -> list[int]:
    """proc_pid_task(5): the children of every thread of ours."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        try:
            found += [int(pid) for pid in (task / "children").read_text().split()]
        except OSError:  # the thread has ended, or the kernel does not tell
            continue
    return found


def _rss(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except FileNotFoundError:  # it has just ended
        return 0
