"""The JSON of the API about the platform itself: nodes, queues, centres, tokens and the audit."""

from __future__ import annotations

from typing import Any

from crony.clock import rfc3339
from crony.lifecycle.centres import Centres, Leading
from crony.store.accounts import TokenView
from crony.store.audit import Entry
from crony.web import standstill
from crony.web.live import Node, Queue


def node(found: Node) -> dict[str, Any]:
    """A node: its facts and what people set."""
    facts, control = found.facts, found.control
    return {
        "name": found.name,
        "state": found.state,
        "weight": found.weight,
        "own_weight": facts.weight if facts else None,
        "cordoned": control.cordoned,
        "drain": control.drain,
        "labels": found.labels,
        "own_labels": facts.labels if facts else {},
        "kinds": facts.kinds if facts else [],
        "queues": facts.queues if facts else [],
        "capacity": facts.capacity if facts else None,
        "running": facts.running if facts else None,
        "queued": found.queued,
        "hostname": facts.hostname if facts else None,
        "version": facts.version if facts else None,
        "versions": facts.versions if facts else {},
        "machine": found.machine,
        "incarnation": facts.incarnation if facts else None,
        "started_at": rfc3339(facts.started_at or None) if facts else None,
        "seen_at": rfc3339(facts.seen_at or None) if facts else None,
    }


def queue(found: Queue) -> dict[str, Any]:
    """A queue with its counts."""
    return {"name": found.name, "kind": found.kind, "waiting": found.waiting, "claimed": found.claimed}


def token(view: TokenView) -> dict[str, Any]:
    """An API token without its secret."""
    return {
        "id": view.id,
        "name": view.name,
        "scope": view.scope,
        "hint": view.hint,
        "created_at": rfc3339(view.created_at),
        "ends_at": rfc3339(view.ends_at),
        "used_at": rfc3339(view.used_at),
        "revoked_at": rfc3339(view.revoked_at),
    }


def entry(found: Entry) -> dict[str, Any]:
    """An audit entry."""
    return {
        "id": found.id,
        "at": rfc3339(found.at),
        "actor": found.actor,
        "action": found.action,
        "kind": found.kind,
        "target": found.target,
        "detail": found.detail,
        "address": found.address,
    }


def leading(found: Leading | None) -> dict[str, Any] | None:
    """Who leads a shard."""
    return None if found is None else {"name": found.name, "term": found.term}


def centres(found: Centres) -> dict[str, Any]:
    """The centres that run, and who leads which shard."""
    sharding = found.sharding
    count = sharding.count if sharding else None
    return {
        "shards": count,
        "shards_by": sharding.told.by or None if sharding else None,
        "shards_at": rfc3339(sharding.told.at) if sharding and sharding.told.at else None,
        "leaders": [
            {"shard": shard, "centre": told.name if (told := found.leaders.get(shard)) else None,
             "term": told.term if told else None}
            for shard in range(count or 0)
        ],
        "items": [
            {
                "name": facts.name,
                "incarnation": incarnation,
                "leads": found.led_by(incarnation),
                "able": facts.able,
                "reason": facts.why or None,
                "holds": standstill.names(facts) if found.led_by(incarnation) else [],
                "untrusted": facts.untrusted,
                "clock_skew": facts.skew,
                "wants_shards": facts.shards or None,
                "host": facts.host,
                "pid": facts.pid,
                "version": facts.version,
                "tzdata": facts.tzdata or None,
                "since_at": rfc3339(facts.since_at),
                "seen_at": rfc3339(facts.at),
            }
            for incarnation, facts in sorted(found.running.items(), key=lambda pair: (pair[1].name, pair[0]))
        ],
    }  # fmt: skip
