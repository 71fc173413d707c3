"""Asking for runs from Python: `crony.enqueue(...)`, `crony.enqueue_many(...)` and `crony.Run`.

    run = crony.enqueue("report/daily", region="eu")          # a published job, with parameters
    run = crony.enqueue(my_task, 1, x=2, priority=5)          # a Celery task of an allow-listed module
    run.wait(60); print(run.result())

Settings come from `CRONY_*`, as for every process. Only etcd is needed; what the archive has moved to the database
is asked of the web (`CRONY_API`, `CRONY_TOKEN`). Works in threads, in forked children and inside tasks.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any
from urllib.parse import quote

from crony.asking import Asking, Seconds, seconds
from crony.domain import ids
from crony.domain.outcome import Kind, Outcome
from crony.domain.record import UnknownRecord
from crony.domain.run import State
from crony.errors import Conflict, CronyError, Invalid, NotFound, TimedOut, Unavailable
from crony.etcd.client import KV, Client
from crony.etcd.keys import Keys
from crony.etcd.watch import Event, Watcher
from crony.lifecycle import enqueue as inbox
from crony.lifecycle.enqueue_many import MOST, Item, Partly, submit_many
from crony.lifecycle.look import live_runs
from crony.settings import Settings, load

__all__ = [
    "Ask",
    "Conflict",
    "NotFound",
    "PartlyEnqueued",
    "Run",
    "RunFailed",
    "TimedOut",
    "enqueue",
    "enqueue_many",
]

ARRIVAL = 2.0
"""How long the end of a run that is not alive any more may take to be seen on the watch, seconds."""


class RunFailed(CronyError):
    """The run ended, but not well. `outcome` is how (`failed`, `timed_out`, `cancelled`, …), `reason` why."""

    def __init__(self, run: str, outcome: str, reason: str) -> None:
        super().__init__(f"run {run} ended as {outcome}", why=reason)
        self.run, self.outcome, self.reason = run, outcome, reason


@dataclass(frozen=True, slots=True)
class _End:
    """How a run ended, from whichever store still knows."""

    outcome: str
    reason: str
    result: Any


class _Link:
    """This process's way to etcd and the web."""

    def __init__(self) -> None:
        self.settings: Settings = load()
        self.keys = Keys(self.settings.namespace)
        self.client = Client.from_settings(self.settings)


_lock = threading.Lock()
_made: _Link | None = None


def _link() -> _Link:
    global _made
    with _lock:
        if _made is None:
            _made = _Link()
        return _made


def _after_fork() -> None:
    global _lock, _made
    _lock, _made = threading.Lock(), None


os.register_at_fork(after_in_child=_after_fork)


def enqueue(
    job: Any,
    /,
    *args: Any,
    params: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
    on_conflict: str = "existing",
    delay: Seconds | None = None,
    at: datetime | str | None = None,
    priority: int | None = None,
    labels: Mapping[str, str] | None = None,
    timeout: Seconds | None = None,
    retries: int | None = None,
    chain: bool = True,
    **more: Any,
) -> Run:
    """Ask for a run of a job (by name), or of a Celery task (the task, or `"task:dotted.name"`).

    Other keyword arguments are the job's parameters (for a task: its keyword arguments). A parameter that has the
    name of an option, `priority` say, goes into `params={"priority": 1}`. Positional arguments are for tasks only.

    `idempotency_key`: the same key of the same job means the same run for a day; `on_conflict` says what a second
    call does: `existing` (returns that run), `error` (raises `Conflict`), `replace` (cancels it, asks for a new one).
    `delay` or `at` (with offset): not before. `priority` 0-9, `labels`, `timeout`, `retries` replace the job's own.
    `chain=False`: jobs that run after it do not follow this run.

    Raises `NotFound`, `Conflict`, `Invalid`, `Unavailable` (nothing was asked for), `Unknown` (it may have been: with
    an idempotency key the call can be repeated safely).
    """
    link = _link()
    request = Asking(link.settings, link.keys, link.client).request(
        job,
        args,
        more,
        params=params,
        delay=delay,
        at=at,
        priority=priority,
        labels=labels,
        timeout=timeout,
        retries=retries,
        chain=chain,
    )
    done = inbox.submit(link.client, link.keys, request, idempotency=idempotency_key, on_conflict=on_conflict)
    return Run(done.run, created=done.created)


class Ask:
    """One request of `enqueue_many`, with the arguments of `enqueue`: `Ask("report/daily", region="eu")`."""

    __slots__ = ("args", "idempotency_key", "job", "more", "on_conflict", "options")

    def __init__(
        self,
        job: Any,
        /,
        *args: Any,
        idempotency_key: str | None = None,
        on_conflict: str = "existing",
        **more: Any,
    ) -> None:
        """Nothing is checked before `enqueue_many`."""
        self.job, self.args = job, args
        self.idempotency_key, self.on_conflict = idempotency_key, on_conflict
        self.options = {name: more.pop(name) for name in _OPTIONS if name in more}
        self.more = more


_OPTIONS = ("params", "delay", "at", "priority", "labels", "timeout", "retries", "chain")


class PartlyEnqueued(CronyError):
    """Some requests of `enqueue_many` were placed, the rest not. `runs` has an entry for each: None where it was not.

    `uncertain` are the places of those that may still arrive: repeat only those with an idempotency key.
    """

    def __init__(self, partly: Partly) -> None:
        super().__init__(partly.what, why=partly.why, hint=partly.hint)
        self.runs = [None if each is None else Run(each.run, created=each.created) for each in partly.submitted]
        self.uncertain = partly.uncertain


def enqueue_many(requests: Iterable[Ask]) -> list[Run]:
    """Ask for many runs (10,000 at most) in few transactions; the runs are in the order of the requests.

        runs = crony.enqueue_many(crony.Ask("report/daily", region=each, idempotency_key=each) for each in regions)

    All requests are checked before the first is placed: `Invalid` and `NotFound` name the one that is wrong
    (`requests[7].params`), `Conflict` the one whose key is taken, and nothing was asked for then. An idempotency key
    counts for its own request, as in `enqueue`; giving one twice in a call is refused.

    Then they go in order, 49 to 99 in a transaction that is carried out whole or not at all. `Unavailable`: none was
    placed. `PartlyEnqueued`: those of the first transactions were; it says which, and whether the others are certain.
    """
    link = _link()
    asks = list(islice(requests, MOST + 1))
    if len(asks) > MOST:
        raise Invalid("requests", f"are more than {MOST}", hint="call it several times")
    asking = Asking(link.settings, link.keys, link.client)
    items = []
    for number, ask in enumerate(asks):
        if not isinstance(ask, Ask):
            raise Invalid(f"requests[{number}]", "must be a crony.Ask", hint='crony.Ask("report/daily", region="eu")')
        try:
            request = asking.request(ask.job, ask.args, ask.more, **ask.options)
        except Invalid as error:
            raise Invalid(f"requests[{number}].{error.field}", error.problem, hint=error.hint) from None
        except NotFound as error:
            raise NotFound(f"requests[{number}]: {error.what}", hint=error.hint) from None
        items.append(Item(request, ask.idempotency_key, ask.on_conflict))
    try:
        return [Run(done.run, created=done.created) for done in submit_many(link.client, link.keys, items)]
    except Partly as partly:
        raise PartlyEnqueued(partly) from partly.error


@dataclass(frozen=True, slots=True)
class Run:
    """A run that was asked for. `created`: by this call (False: the idempotency key stood for it already)."""

    id: str
    created: bool = field(default=False, compare=False)

    @property
    def state(self) -> str:
        """Where it is: requested, waiting, queued, running, accepted or ended. Raises `NotFound`."""
        link = _link()
        live = live_runs(link.client, link.keys, run=self.id)
        if live:
            return str(live[0].state)
        if _final(link.client.list(link.keys.out(self.id, "")).kvs) is None:
            return str(_archived(link, self.id)["state"])
        return State.ENDED.value

    def parts(self) -> list[Run]:
        """Its parts, in order, when its job is carried out in parts and it has begun; else none. Raises `NotFound`.

        Each is a run of its own, with a result of its own: `[part.result() for part in run.parts()]`.
        """
        link = _link()
        live = live_runs(link.client, link.keys, run=self.id)
        if live:
            count = live[0].parts if live[0].part is None else 0
        elif (final := _final(link.client.list(link.keys.out(self.id, "")).kvs)) is not None:
            count = final.parts if ids.part_of(self.id) is None else 0
        else:
            known = _archived(link, self.id)
            count = int(known.get("parts") or 0) if known.get("part") is None else 0
        return [Run(ids.part_id(self.id, number)) for number in range(count)]

    def wait(self, timeout: Seconds | None = None) -> str:
        """Wait until it has ended and return its outcome: succeeded, failed, … Raises `TimedOut`; the run goes on."""
        return self._end(timeout).outcome

    def result(self, timeout: Seconds | None = None) -> Any:
        """Wait, and return what it returned (small JSON; larger results are kept as output). Raises `RunFailed`."""
        end = self._end(timeout)
        if end.outcome != Kind.SUCCEEDED:
            raise RunFailed(self.id, end.outcome, end.reason)
        return end.result

    def cancel(self, reason: str = "") -> None:
        """Ask for it to be stopped; harmless when it has ended."""
        link = _link()
        inbox.cancel(link.client, link.keys, self.id, by=f"python:{link.settings.node_name}", reason=reason)

    def _end(self, timeout: Seconds | None) -> _End:
        link = _link()
        patience = None if timeout is None else seconds("timeout", timeout)
        deadline = None if patience is None else time.monotonic() + patience
        with _Following(link, self.id) as following:
            while True:
                left = 10.0 if deadline is None else min(10.0, deadline - time.monotonic())
                if (end := following.wait(max(0.0, left))) is not None:
                    return end
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimedOut(f"run {self.id} has not ended within {patience:g} s", hint="it goes on; wait again")


class _Following:
    """Watches for the end of one run: its final record in etcd, or what the archive says when that is gone."""

    def __init__(self, link: _Link, run: str) -> None:
        self._link, self._run = link, run
        self._end: _End | None = None
        self._ended = threading.Event()
        self._checked = False
        prefix = link.keys.out(run, "")
        self._watch = Watcher(
            link.client,
            prefix,
            prefix[:-1] + chr(ord("/") + 1),
            on_snapshot=lambda found, revision: self._look(found),
            on_events=lambda events, revision: self._look([event for event in events if event.kind == "put"]),
            name="crony-follow-run",
        )

    def __enter__(self) -> _Following:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.stop()

    def _look(self, found: list[KV] | list[Event]) -> None:
        final = _final(found)
        if final is not None and self._end is None:
            self._end = _End(final.kind, final.reason, final.result)
            self._ended.set()

    def wait(self, seconds: float) -> _End | None:
        """The end, if it came within so many seconds. Raises `NotFound` when nobody knows the run."""
        if not self._checked and self._watch.synced(seconds):
            self._checked = True
            gone = not self._ended.is_set() and not live_runs(self._link.client, self._link.keys, run=self._run)
            if gone and not self._ended.wait(ARRIVAL):  # its end is about to be seen, or the archive has it
                known = _archived(self._link, self._run)
                return _End(str(known["outcome"]), str(known.get("reason") or ""), known.get("result"))
        self._ended.wait(seconds)
        return self._end


def _final(found: list[KV] | list[Event]) -> Outcome | None:
    for kv in found:
        try:
            outcome = Outcome.read(kv.value)
        except UnknownRecord:
            continue
        if outcome.final:
            return outcome
    return None


def _archived(link: _Link, run: str) -> dict[str, Any]:
    """What the archive says of a run. Raises `NotFound`, `Unavailable`."""
    api, token = link.settings.api, link.settings.token
    if not api:
        raise NotFound(
            f"run {run} is not in etcd", why="it ended a while ago, or never was", hint="set CRONY_API and CRONY_TOKEN"
        )
    import requests

    try:
        with requests.Session() as http:
            http.trust_env = False
            url = f"{api.rstrip('/')}/api/v1/runs/{quote(run, safe='')}"
            answer = http.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=10, allow_redirects=False)
        if answer.status_code == 404:
            raise NotFound(f"there is no run {run}")
        if answer.status_code != 200:
            raise Unavailable(f"the web answers {answer.status_code} about run {run}", hint="check CRONY_TOKEN")
        known: dict[str, Any] = answer.json()
        return known
    except (requests.RequestException, ValueError) as error:
        raise Unavailable("the web does not answer", why=type(error).__name__, hint="try again") from None
