"""Crony: a distributed scheduled-job platform.

`crony.enqueue(...)` asks for a run and gives a `crony.Run`, `crony.enqueue_many(...)` for many; `crony.app` is the
Celery app behind `celery -A crony worker`. `@crony.job(...)` declares a job beside its function; a `crony.Context`
tells a function about its run, `crony.secret(name)` gives it a secret. Importing this package costs next to nothing:
all are loaded when used.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Ask",
    "Context",
    "Deferred",
    "Part",
    "Run",
    "Stopped",
    "__version__",
    "app",
    "context",
    "enqueue",
    "enqueue_many",
    "job",
    "part",
    "secret",
]

if TYPE_CHECKING:
    from crony.celery import app
    from crony.declare import job
    from crony.face import Ask, Run, enqueue, enqueue_many
    from crony.inside import Context, Deferred, Part, Stopped, context, part, secret

_HOMES = {
    "app": "crony.celery",
    "Ask": "crony.face",
    "Context": "crony.inside",
    "Deferred": "crony.inside",
    "Stopped": "crony.inside",
    "context": "crony.inside",
    "job": "crony.declare",
    "Run": "crony.face",
    "enqueue": "crony.face",
    "enqueue_many": "crony.face",
    "Part": "crony.inside",
    "part": "crony.inside",
    "secret": "crony.inside",
}


def __getattr__(name: str) -> Any:
    """The public names, imported when first asked for. Raises AttributeError for any other."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'crony' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)


if "kombu" in sys.modules:  # a program that talks Kombu already: `etcd3://` must resolve in it
    from crony import transport_etcd as transport_etcd
