"""What has to be made anew in a forked child: locks that a vanished thread may hold, threads, connections."""

from __future__ import annotations

import os
import weakref
from typing import Any

_known: weakref.WeakSet[Any] = weakref.WeakSet()


def renew_after_fork(thing: Any) -> None:
    """From now on, `thing.after_fork()` is called first of all in every child that is forked while it lives."""
    _known.add(thing)


def _renew() -> None:
    for thing in list(_known):
        thing.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
