"""How the worker takes a run message in: as Celery takes any task in, without a line of log for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.worker import strategy


def quiet(task: Any, app: Any, consumer: Any, **kwargs: Any) -> Callable[..., Any]:
    """Celery's default strategy, which says at level debug only that a message came."""
    return strategy.default(task, app, consumer, info=strategy.logger.debug, **kwargs)  # type: ignore[no-any-return]
