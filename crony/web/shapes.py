"""The JSON of the API: one function per thing, instants as RFC 3339."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crony.catalog.calendars import CalendarView
from crony.catalog.channels import ChannelView
from crony.catalog.objects import ObjectView
from crony.catalog.secrets import SecretView
from crony.clock import rfc3339
from crony.domain.alert import Alert
from crony.domain.grounds import Grounds
from crony.domain.jsontext import is_deep
from crony.domain.notice import Doing
from crony.domain.run import Beat
from crony.store.runs import AttemptView
from crony.store.skips import SkipView
from crony.web.jobs import JobInfo
from crony.web.runs import Run
from crony.web.waits import PoolState


def job(info: JobInfo) -> dict[str, Any]:
    """A job with its last run and next fire."""
    view = info.view
    last = info.last
    return {
        "id": view.id,
        "name": view.name,
        "enabled": view.enabled,
        "state": view.state,
        "paused_until": rfc3339(view.paused_until),
        "held": {"reason": view.held, "since": rfc3339(view.standing.held_at if view.standing else None)}
        if view.held
        else None,
        "revision": view.revision,
        "generation": view.generation,
        "live_revision": view.live_revision,
        "live_from": rfc3339(view.live_from),
        "taken_in": view.standing.taken_in if view.standing else None,
        "document": view.document,
        "next_fire_at": rfc3339(info.next_at),
        "awaits": (view.standing.awaits or None) if view.standing else None,
        "last_run": None
        if last is None
        else {"id": last.id, "outcome": last.outcome, "ended_at": rfc3339(last.ended_at), "duration": last.duration},
        "created_at": rfc3339(view.created_at),
        "updated_at": rfc3339(view.updated_at),
    }


def run(found: Run, *, attempts: bool = False) -> dict[str, Any]:
    """A run; `attempts` adds the list of its ended attempts."""
    body: dict[str, Any] = {
        "id": found.id,
        "job": found.job,
        "job_name": found.job_name,
        "generation": found.generation,
        "revision": found.revision,
        "state": found.state,
        "outcome": found.outcome or None,
        "reason": found.reason,
        "trigger": found.trigger,
        "fire_at": rfc3339(found.fire_at),
        "requested_at": rfc3339(found.requested_at),
        "started_at": rfc3339(found.started_at),
        "ended_at": rfc3339(found.ended_at),
        "since_at": rfc3339(found.since_at),
        "due_at": rfc3339(found.due_at),
        "deadline_at": rfc3339(found.deadline_at),
        "progress": progress(found.beat),
        "duration": found.duration,
        "lateness": found.lateness,
        "attempt": found.attempt,
        "code": found.code,
        "node": found.node or None,
        "result": _result(found.result),
        "why": found.why,
        "parent": found.parent or None,
        "part": found.part,
        "parts": found.parts or None,
        "parts_ended": found.parts_ended,
        "chain": found.chain or None,
        "cause": found.cause or None,
    }
    if attempts:
        body["route"] = route(found.grounds)
        body["params"] = found.params
        body["attempts"] = [attempt(item) for item in found.attempts]
    return body


def _result(value: Any) -> Any:
    """A result that can be written again by everybody: one that is nested too deeply would take its list with it."""
    return {"too_deep": True} if is_deep(value) else value


def progress(beat: Beat | None) -> dict[str, Any] | None:
    """The last word of a running or accepted run; None: nothing was heard of it yet."""
    if beat is None:
        return None
    return {"percent": beat.percent, "message": beat.message, "at": rfc3339(beat.at)}


def attempt(view: AttemptView) -> dict[str, Any]:
    """One ended attempt."""
    return {
        "n": view.n,
        "outcome": view.outcome,
        "final": view.final,
        "reason": view.reason,
        "detail": view.detail,
        "code": view.code,
        "node": view.node or None,
        "started_at": rfc3339(view.started_at),
        "ended_at": rfc3339(view.ended_at),
        "result": _result(view.result),
        "why": view.why,
        "route": route(Grounds.read(view.why)),
    }


def route(found: Grounds) -> dict[str, Any] | None:
    """How a node was chosen: the strategy, why this one, and why the others were passed over; None: not recorded."""
    if found == Grounds():
        return None
    return {
        "strategy": found.strategy or None,
        "why": found.why or None,
        "passed_over": [{"reason": reason, "nodes": list(nodes)} for reason, nodes in found.passed],
        "more": found.more,
    }


def skip(view: SkipView) -> dict[str, Any]:
    """A fire, or a range of them, that became no run."""
    return {
        "run": view.run,
        "job": view.job,
        "job_name": view.job_name,
        "reason": view.reason,
        "detail": view.detail,
        "fire_at": rfc3339(view.fire_at),
        "to_at": rfc3339(view.to_at),
        "count": view.count,
        "decided_at": rfc3339(view.decided_at),
        "trigger": view.trigger,
        "chain": view.chain or None,
        "cause": view.cause or None,
    }


def alert(found: Alert) -> dict[str, Any]:
    """Something a person must know."""
    return {
        "id": found.id,
        "kind": found.kind,
        "at": rfc3339(found.at),
        "job": found.job or None,
        "job_name": found.name or None,
        "run": found.run or None,
        "attempt": found.attempt or None,
        "outcome": found.outcome or None,
        "node": found.node or None,
        "reason": found.reason,
        "times": found.times,
        "told": [
            {"to": to, "state": each["state"], "at": rfc3339(each["at"]), "said": each["said"]}
            for to, each in found.told.items()
        ],
    }


def calendar(view: CalendarView) -> dict[str, Any]:
    """A calendar and the names of the jobs that keep to it."""
    return {
        "name": view.name,
        "revision": view.revision,
        "document": view.document,
        "jobs": list(view.jobs),
        "updated_at": rfc3339(view.updated_at),
        "updated_by": view.updated_by,
    }


def secret(view: SecretView) -> dict[str, Any]:
    """A secret without its value, and the names of the jobs that name it."""
    return {
        "name": view.name,
        "description": view.description,
        "revision": view.revision,
        "key": view.key_id,
        "jobs": list(view.jobs),
        "updated_at": rfc3339(view.updated_at),
        "updated_by": view.updated_by,
    }


def channel(view: ChannelView, doing: Mapping[str, Doing] | None = None) -> dict[str, Any]:
    """A channel, its secrets hidden. `doing`: how channels do, by name; None: that is not known."""
    now = doing.get(view.name, Doing()) if doing is not None else None
    return {
        "name": view.name,
        "kind": view.channel_kind,
        "revision": view.revision,
        "document": view.shown,
        "key": view.key_id or None,
        "jobs": list(view.jobs),
        "failing": now.failing if now else None,
        "sent_at": rfc3339(now.sent_at) if now and now.sent_at else None,
        "updated_at": rfc3339(view.updated_at),
        "updated_by": view.updated_by,
    }


def alert_rule(view: ObjectView) -> dict[str, Any]:
    """An alert rule."""
    return {
        "name": view.name,
        "revision": view.revision,
        "document": view.document,
        "updated_at": rfc3339(view.updated_at),
        "updated_by": view.updated_by,
    }


def pool(state: PoolState, *, runs: bool = False) -> dict[str, Any]:
    """A pool, how much of it is held and how many wait; with `runs` also who."""
    view = state.view
    body: dict[str, Any] = {
        "name": view.name,
        "limit": view.limit,
        "description": view.description,
        "revision": view.revision,
        "jobs": list(view.jobs),
        "updated_at": rfc3339(view.updated_at),
        "updated_by": view.updated_by,
        "held": None if state.held is None else len(state.held),
        "waiting": None if state.line is None else len(state.line),
    }
    if runs:
        body["holders"] = [
            {
                "slot": holder.number,
                "run": holder.run,
                "job_name": holder.live.name if holder.live else None,
                "state": str(holder.live.state) if holder.live else None,
                "node": holder.live.node if holder.live else None,
                "since_at": rfc3339(holder.live.since_at) if holder.live else None,
            }
            for holder in state.held or ()
        ]
        body["line"] = [
            {
                "run": run.run,
                "job_name": run.name,
                "priority": run.priority,
                "since_at": rfc3339(run.since_at),
                "pools": list(run.pools),
            }
            for run in state.line or ()
        ]
    return body
