"""Settings of commands that speak to etcd or the database themselves."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from crony import settings
from crony.cli.api import CONTEXT, read_context
from crony.settings import Settings

_WHERE = ("CRONY_API", "CRONY_ETCD_ENDPOINTS", "CRONY_DATABASE_URL", "CRONY_NAMESPACE")


def load(*, environ: Mapping[str, str] | None = None, context: Path = CONTEXT) -> Settings:
    """The settings; those that say where things are come from a running `crony dev` of this directory if none is set.

    All of them or none: what is meant for one platform never reaches another. Raises `Invalid`.
    """
    environ = os.environ if environ is None else environ
    if any(name in environ or f"{name}_FILE" in environ for name in _WHERE):
        return settings.load(environ)
    found = read_context(context)
    return settings.load({**environ, **{name: found[name] for name in _WHERE if name in found}})
