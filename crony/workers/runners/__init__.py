"""Runners: each performs one kind of job. `run(attempt)` gives a `Verdict`; it never raises for the job's failures."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module

from crony.settings import Settings
from crony.workers.attempt import Attempt, Verdict

_HOMES = {
    "shell": "crony.workers.runners.shell",
    "http": "crony.workers.runners.http",
    "grpc": "crony.workers.runners.grpc",
    "python": "crony.workers.runners.python",
}


def kinds(settings: Settings) -> list[str]:
    """The kinds of action this node runs: shell only where its own switch says so."""
    return [kind for kind in sorted(_HOMES) if kind != "shell" or settings.shell]


def find(kind: str, settings: Settings) -> Callable[[Attempt], Verdict] | None:
    """The runner of a kind of action; None when this node does not run it. Loaded with its first use."""
    if kind not in _HOMES or (kind == "shell" and not settings.shell):
        return None
    return _runner(kind)


@cache
def _runner(kind: str) -> Callable[[Attempt], Verdict]:
    run: Callable[[Attempt], Verdict] = import_module(_HOMES[kind]).run
    return run
