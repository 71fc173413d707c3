"""Celery tasks that tests run as Python jobs (`CRONY_IMPORTS=tests.helpers.jobs`)."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from celery import shared_task

import crony


@shared_task
def add(a: int, b: int = 0) -> int:
    """The sum."""
    return a + b


@shared_task
def which_part() -> list[int] | None:
    """Which part of its run this is, and of how many."""
    part = crony.part()
    return None if part is None else [part.index, part.total]


@shared_task
def say(text: str) -> None:
    """Prints, writes to standard error and logs."""
    print(text)
    sys.stderr.write(f"err {text}\n")
    logging.getLogger("somebody").warning("log %s", text)


@shared_task
def fail(text: str) -> None:
    """Raises."""
    raise ValueError(text)


@shared_task
def give(what: str) -> Any:
    """Something to keep, or not."""
    deep: list[Any] = []
    for _ in range(400):
        deep = [deep]
    nan = {"a": float("nan")}
    return {
        "big": "x" * 5000, "object": object(), "none": None, "list": [1, {"a": None}], "nan": nan, "deep": deep,
    }[what]  # fmt: skip


@shared_task
def raise_(name: str) -> None:
    """Raises what usually ends a worker, or what cannot be told."""

    class Silent(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    from celery.exceptions import WorkerShutdown

    raise {"KeyboardInterrupt": KeyboardInterrupt, "WorkerShutdown": WorkerShutdown, "Silent": Silent}[name]()


@shared_task(bind=True)
def again(self: Any) -> None:
    """Wants Celery's own retry, which jobs do not have."""
    raise self.retry(exc=KeyError("again"))


@shared_task(bind=True)
def whoami(self: Any) -> str:
    """Id of its own request."""
    return str(self.request.id)


@shared_task
def leave() -> None:
    """Exits."""
    sys.exit(3)


@shared_task
def lock() -> int:
    """Computes for hours in C, without letting a signal handler or another thread run."""
    return sum(range(10**14))


@shared_task
def die() -> None:
    """Kills its process."""
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task
def hold(path: str, stubborn: bool = False) -> str:
    """Marks its beginning in a file `path`, then waits until `path`.go exists, or `path` does not any more."""
    Path(path).write_text(f"{os.getpid()} {threading.get_ident()}")
    waits = True
    while waits:
        try:
            waits = Path(path).exists() and not Path(f"{path}.go").exists()
            time.sleep(0.02)
        except BaseException:
            if not stubborn:
                raise
    return "went on"


@shared_task
async def forgotten() -> int:
    """Is never awaited."""
    return 1


@shared_task
def told(ctx: crony.Context, a: int, b: int = 0) -> dict[str, Any]:
    """What the run says of itself."""
    assert ctx is crony.context()
    ctx.log.info("at work")
    ctx.progress(40, "nearly")
    facts = [ctx.run, ctx.attempt, ctx.fence, ctx.job, ctx.logical_time.isoformat(), dict(ctx.params), ctx.cancelled]
    return {"facts": facts, "sum": a + b, "left": ctx.left > 0}


@shared_task
def told_elsewhere(a: int, *, ctx: crony.Context | None = None) -> list[Any]:
    """Wants its context by name."""
    return [a, ctx and ctx.attempt]


@shared_task
def patient(ctx, path: str) -> str:
    """Marks its beginning, then sleeps as its context allows."""
    Path(path).touch()
    ctx.sleep(600)
    return "slept"


@shared_task
def watchful(ctx: crony.Context, path: str) -> str:
    """Marks its beginning, and returns when it shall stop."""
    Path(path).touch()
    while not ctx.cancelled:
        time.sleep(0.02)
    return "half of it"


@shared_task
def hands_over(ctx: crony.Context) -> dict[str, str]:
    """Leaves the answer to whoever gets these headers."""
    return dict(ctx.defer().headers)


@shared_task
def get_on(ctx: crony.Context, folder: str) -> int:
    """Says how far it is far too often, then waits for a file `go`; its process id lies beside that."""
    for number in range(3000):
        ctx.progress(number / 30)
    ctx.progress(message="nearly\nthere")
    (Path(folder) / "pid").write_text(str(os.getpid()))
    while not (Path(folder) / "go").exists():
        ctx.sleep(0.05)
    return 3000
