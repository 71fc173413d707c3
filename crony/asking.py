"""From what a caller says about a run he wants to the request that the leader reads. Reads etcd, writes nothing."""

from __future__ import annotations

import difflib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from crony.domain import ids
from crony.domain.check import flag
from crony.domain.durations import parse_duration
from crony.domain.run import Request, Trigger
from crony.domain.signing import peek
from crony.errors import Invalid, NotFound, Unavailable
from crony.etcd.client import Client
from crony.etcd.keys import Keys, decode
from crony.settings import Settings

Seconds = float | int | str | timedelta
"""A duration: seconds, text such as `5m`, or a timedelta."""


@dataclass(frozen=True, slots=True)
class _Target:
    job: str
    name: str
    generation: int = 0


class Asking:
    """Makes requests; what it has looked up once (jobs, etcd's clock) it does not look up again."""

    def __init__(self, settings: Settings, keys: Keys, client: Client) -> None:
        """For one call of `enqueue` or `enqueue_many`: a job may be another one at the next."""
        self._settings, self._keys, self._client = settings, keys, client
        self._targets: dict[str, _Target] = {}
        self._clock_known = False

    def request(
        self,
        job: Any,
        args: Sequence[Any],
        more: Mapping[str, Any],
        *,
        params: Mapping[str, Any] | None = None,
        delay: Seconds | None = None,
        at: datetime | str | None = None,
        priority: int | None = None,
        labels: Mapping[str, str] | None = None,
        timeout: Seconds | None = None,
        retries: int | None = None,
        chain: bool = True,
    ) -> Request:
        """The request. Raises `Invalid` naming the argument, `NotFound`, `Unavailable`."""
        doubled = sorted(set(more) & set(params or {}))
        if doubled:
            raise Invalid(f"params.{doubled[0]}", "is given twice", hint="once as a keyword or once in params")
        target = self._target(job, args)
        request = Request(
            kind="run",
            job=target.job,
            name=target.name,
            generation=target.generation,
            trigger=Trigger.ENQUEUE.value,
            params={**(params or {}), **more},
            args=list(args),
            not_before_at=self._not_before(delay, at),
            priority=_whole("priority", priority, 0, 9),
            labels={str(key): str(value) for key, value in labels.items()} if labels is not None else None,
            timeout=None if timeout is None else seconds("timeout", timeout, least=1.0),
            retries=_whole("retries", retries, 0, 100),
            no_chain=not flag(chain, "chain"),
            by=f"python:{self._settings.node_name}:{os.getpid()}",
        )
        try:
            request.encode()
        except (TypeError, ValueError) as error:
            raise Invalid("params", f"must be plain data (JSON): {error}") from None
        return request

    def _target(self, job: Any, args: Sequence[Any]) -> _Target:
        task = job[5:] if isinstance(job, str) and job.startswith("task:") else None
        if not isinstance(job, str):
            task = getattr(job, "name", None) if callable(getattr(job, "apply_async", None)) else None
            if not isinstance(task, str):
                raise Invalid(
                    "job", "must be the name of a job, or a Celery task", hint='crony.enqueue("report/daily")'
                )
        if task is not None:
            if not any(task.startswith(f"{module}.") for module in self._settings.imports):
                raise Invalid("job", f"{task} is in no allow-listed module", hint="add its module to CRONY_IMPORTS")
            return _Target(ids.task_job_id(task), f"task:{task}")
        if args:
            raise Invalid("args", "jobs take parameters, not positional arguments", hint='enqueue("name", region="eu")')
        if job not in self._targets:
            self._targets[job] = self._published(job)
        return self._targets[job]

    def _published(self, job: str) -> _Target:
        found = self._client.get(self._keys.name(job))
        record = self._client.get(self._keys.job(found.value.decode())) if found is not None else None
        try:
            live = peek(record.value) if record is not None else None
            if found is None or live is None or live.get("deleted"):
                raise self._unknown(job)
            return _Target(found.value.decode(), job, int(live["generation"]))
        except (ValueError, KeyError, TypeError) as error:
            raise Unavailable(f"job {job} cannot be read", why=str(error), hint="upgrade this process?") from None

    def _unknown(self, name: str) -> NotFound:
        prefix = self._keys.name("")
        names = [decode(kv.key[len(prefix) :]) for kv in self._client.list(prefix, keys_only=True).kvs]
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        return NotFound(
            f"there is no job {name!r}", hint=f"did you mean {near[0]!r}?" if near else "see `crony job list`"
        )

    def _not_before(self, delay: Seconds | None, at: datetime | str | None) -> float:
        if delay is not None and at is not None:
            raise Invalid("at", "cannot be given together with delay")
        if delay is not None:
            if not self._clock_known:
                self._client.status()  # so that the offset is known even in a process that has not asked etcd anything
                self._clock_known = True
            offset = self._client.clock_offset
            # etcd tells its time by the second: a smaller difference is noise, and would make the delay too short
            return time.time() + (offset if abs(offset) > 2 else 0.0) + seconds("delay", delay)
        if at is None:
            return 0.0
        try:
            moment = datetime.fromisoformat(at) if isinstance(at, str) else at
            if moment.utcoffset() is None:
                raise ValueError("it has no offset")
            return moment.timestamp()
        except (ValueError, AttributeError, TypeError) as error:
            raise Invalid("at", f"must be a time with its offset: {error}", hint="2026-12-01T09:00:00+08:00") from None


def seconds(name: str, value: Seconds, *, least: float = 0.0) -> float:
    """A duration as seconds. Raises `Invalid` naming `name`."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, str):
        return parse_duration(value, name, least=least)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= 315_360_000:
        raise Invalid(name, f"must be at least {least:g} seconds")
    return float(value)


def _whole(name: str, value: int | None, least: int, most: int) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most):
        raise Invalid(name, f"must be a whole number from {least} to {most}")
    return value


__all__ = ["Asking", "Seconds", "seconds"]
