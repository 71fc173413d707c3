"""The `crony.Context` of an attempt, and how a function gets it: by a parameter's type, or as first parameter `ctx`."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from crony.domain.stamps import Source
from crony.inside import Context, Deferred, Part
from crony.workers import calling
from crony.workers.attempt import Attempt
from crony.workers.progress import progress_of

LOG = logging.getLogger("crony.job")
LOG.setLevel(logging.INFO)  # whatever the node logs of itself
_BY_NAME = ("ctx",)
_TYPES = frozenset({"Context", "crony.Context", "inside.Context"})


@dataclass(frozen=True)
class Watched(Context):
    """A context that knows whether the function looks at it."""

    _seen: dict[str, bool] = field(default_factory=dict, repr=False)

    @property
    def cancelled(self) -> bool:
        """As of the context; that it was asked for is noted."""
        self._seen["asked"] = True
        stopped = super().cancelled
        if stopped:
            self._seen["stopped"] = True
        return stopped

    @property
    def is_watched(self) -> bool:
        """Whether the function asks, or sleeps by it: it may be expected to stop by itself."""
        return "asked" in self._seen

    @property
    def seen_stopped(self) -> bool:
        """Whether the function was told to stop, and asked."""
        return "stopped" in self._seen

    def sleep(self, seconds: float) -> None:
        """As of the context."""
        self._seen["asked"] = True
        super().sleep(seconds)

    def stir(self) -> None:
        """Wake it where it sleeps."""
        self._stirred.set()


def context_of(attempt: Attempt) -> Watched:
    """What the function of this attempt is told."""
    told = attempt.envelope
    fire = None if told.fire_at is None else datetime.fromtimestamp(told.fire_at, UTC)

    def defer() -> Deferred:
        callback = attempt.defer()
        until = datetime.fromtimestamp(callback.deadline_at, UTC)
        return Deferred(MappingProxyType(calling.headers(attempt)), until, callback.heartbeat or None)

    return Watched(
        run=told.run,
        attempt=told.attempt,
        fence=attempt.held.fence,
        job=told.name,
        fire_time=fire,
        logical_time=fire or datetime.fromtimestamp(told.requested_at, UTC),
        params=MappingProxyType(told.params),
        part=Part(told.part, told.parts) if told.part is not None else None,
        log=LOG,
        _left=lambda: attempt.left,
        _stopped=lambda: attempt.cancelled or attempt.finished or attempt.left <= 0,
        _write=lambda line: attempt.output.text(line, Source.LOG),
        _tell=lambda percent, message: progress_of(attempt).say(percent, message),
        _defer=defer,
        _secrets=attempt.secrets,
    )


class Arguments:
    """Where a function wants its context, if it does."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._index: int | None = None
        self._name = ""
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):
            return
        for index, each in enumerate(parameters):
            if _is_context(each.annotation) or (not index and each.name in _BY_NAME and each.annotation is each.empty):
                self._name = each.name
                if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD):
                    self._index = index
                return

    def given(self, context: Context, args: list[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Arguments and keyword arguments with the context among them."""
        if not self._name:
            return args, dict(kwargs)
        if self._index is not None and self._index <= len(args):
            return [*args[: self._index], context, *args[self._index :]], dict(kwargs)
        return args, {**kwargs, self._name: context}


@lru_cache(maxsize=2000)
def arguments_of(function: Callable[..., Any]) -> Arguments:
    """Where that function wants its context; looked up once, for its signature takes long to read."""
    return Arguments(function)


def _is_context(annotation: Any) -> bool:
    if annotation is Context:
        return True
    if isinstance(annotation, str):  # `from __future__ import annotations`
        return annotation.partition("|")[0].strip().strip("\"'") in _TYPES
    return Context in getattr(annotation, "__args__", ())
