"""Asking for a run by hand, by API or as a Celery task: checked here, decided by the leader."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from crony.domain import ids
from crony.domain.durations import parse_duration
from crony.domain.params import parse_params
from crony.domain.placing import parse_labels
from crony.domain.routing import Strategy
from crony.domain.run import Request, Trigger
from crony.errors import Conflict, CronyError, Forbidden, Invalid, NotFound
from crony.lifecycle import enqueue
from crony.lifecycle.enqueue import Submitted
from crony.store import audit
from crony.web.api.query import instant
from crony.web.runs import find

if TYPE_CHECKING:
    from crony.web.auth import Identity
    from crony.web.wiring import Web

log = logging.getLogger("crony.web")

ARGS = 32 * 1024
"""Most bytes of positional arguments as JSON."""


class Options(BaseModel):
    """How a run that somebody asks for differs from the job's own settings; everything is optional."""

    model_config = ConfigDict(extra="forbid")

    idempotency_key: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    on_conflict: Literal["existing", "error", "replace"] = "existing"
    delay: Annotated[str | None, Field(description="start this much later, such as 5m")] = None
    at: Annotated[str | None, Field(description="not before this RFC 3339 time")] = None
    priority: Annotated[int, Field(ge=0, le=9)] | None = None
    labels: Annotated[dict[str, str] | None, Field(description="labels the node must carry")] = None
    timeout: Annotated[str | None, Field(description="such as 20m")] = None
    retries: Annotated[int, Field(ge=0, le=100)] | None = None


class RunOptions(Options):
    """Body of `jobs/{job}:run`."""

    params: dict[str, Any] = Field(default_factory=dict, description="merged over the job's params")
    chain: Annotated[bool, Field(description="false: jobs that run after it do not follow this run")] = True


class TaskOptions(Options):
    """Body of `tasks:enqueue`."""

    task: Annotated[str, Field(min_length=3, max_length=255)]
    args: list[Any] = Field(default_factory=list)
    kwargs: dict[str, Any] = Field(default_factory=dict)


def run_job(
    web: Web, identity: Identity, ref: str, options: RunOptions, key: str | None, trigger: Trigger, address: str
) -> Submitted:
    """Ask for a run of a job (id or name); paused jobs can be run too."""
    view = web.catalog.get(ref)
    if view.deleted_at is not None:
        raise NotFound(f"There is no job {ref}", why="it was deleted")
    if options.retries and view.document.get("delivery") == "at_most_once":
        raise Invalid("retries", "are not for a job that runs at most once", hint="leave them out")
    if options.labels and (view.document.get("routing") or {}).get("strategy") == Strategy.ANY:
        hint = "run it without, or give the job another strategy"
        raise Invalid("labels", "do not go with the job's strategy any", hint=hint)
    request = Request(
        kind="run", job=view.id, name=view.name, generation=view.generation, trigger=trigger.value,
        params=parse_params(options.params), no_chain=not options.chain, **_common(web, identity, options),
    )  # fmt: skip
    return _submit(web, identity, request, options, key, address)


def enqueue_task(web: Web, identity: Identity, options: TaskOptions, key: str | None, address: str) -> Submitted:
    """Ask for a run of an allow-listed Celery task. Raises `Forbidden` for any other."""
    allowed = web.settings.imports
    if not any(options.task.startswith(f"{module}.") for module in allowed):
        raise Forbidden(
            f"The task {options.task[:100]} may not be run by name",
            why="its module is not among CRONY_IMPORTS" if allowed else "CRONY_IMPORTS names no module",
        )
    if len(json.dumps(options.args, ensure_ascii=False).encode()) > ARGS:
        raise Invalid("args", f"are longer than {ARGS} bytes", hint="pass a reference instead of the data")
    request = Request(
        kind="run", job=ids.task_job_id(options.task), name=f"task:{options.task}", generation=0,
        trigger=Trigger.ENQUEUE.value, args=options.args, params=parse_params(options.kwargs, "kwargs"),
        **_common(web, identity, options),
    )  # fmt: skip
    return _submit(web, identity, request, options, key, address)


def _common(web: Web, identity: Identity, options: Options) -> dict[str, Any]:
    if options.delay is not None and options.at is not None:
        raise Invalid("at", "cannot stand beside `delay`", hint="keep one of the two")
    not_before = instant(options.at, "at") or 0.0
    if options.delay is not None:
        not_before = web.client.now() + parse_duration(options.delay, "delay", most=366 * 86400)
    timeout = (
        None if options.timeout is None else parse_duration(options.timeout, "timeout", least=0.1, most=30 * 86400)
    )
    return {
        "not_before_at": not_before,
        "priority": options.priority,
        "labels": None if options.labels is None else parse_labels(options.labels),
        "timeout": timeout,
        "retries": options.retries,
        "by": identity.actor,
    }


def _submit(
    web: Web, identity: Identity, request: Request, options: Options, key: str | None, address: str
) -> Submitted:
    found = enqueue.submit(web.client, web.keys, request, idempotency=key, on_conflict=options.on_conflict)
    web.live.forget()
    if found.created:
        note(web, identity, "run.trigger", "run", found.run, {"job": request.name}, address)
    return found


def let_go_on(web: Web, identity: Identity, run: str, address: str) -> None:
    """Ask for a run on hold to go on. Raises `Conflict` for one that is not, `NotFound` for one nobody knows."""
    found, away = find(web.db, web.live, run)
    if not found.held:
        if away and found.live:
            raise away[0]
        how = f"it ended as {found.outcome}" if not found.live else f"it is {found.state}"
        raise Conflict("The run is not on hold", why=how)
    enqueue.release(web.client, web.keys, run, by=identity.actor)
    web.live.forget()
    note(web, identity, "run.release", "run", run, {"job": found.job_name}, address)


def note(
    web: Web, identity: Identity, action: str, kind: str, target: str, detail: dict[str, Any] | None, address: str
) -> None:
    """An audit entry for what happened in etcd already; a database that is away is only logged."""
    try:
        audit.record(web.db, identity.actor, action, kind, target, detail, address)
    except CronyError as error:
        log.warning("%s %s by %s could not be audited: %s", action, target, identity.actor, error)
