"""`crony.run`: the one task by which nodes execute attempts. Only the leader publishes it."""

from __future__ import annotations

from typing import Any

from celery import shared_task

NAME = "crony.run"


@shared_task(  # type: ignore[untyped-decorator]
    name=NAME,
    bind=True,
    acks_late=True,
    reject_on_worker_lost=True,
    ignore_result=True,
    max_retries=0,
    Request="crony.workers.request:RunRequest",
    Strategy="crony.workers.strategy:quiet",
)
def run(self: Any, sealed: str) -> None:
    """Execute the attempt of the sealed envelope. Its outcome goes to etcd, never through Celery."""
    from crony.workers.executor import execute

    execute(self.request.id, self.request.properties, sealed)
