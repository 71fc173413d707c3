"""One message on request (`basic_get`), without a watch: list the head of the queue, claim or take what is free."""

from __future__ import annotations

import contextlib

from crony.etcd.keys import is_run_queue, prefix_end
from crony.etcd.session import Session
from crony.transport_etcd import claims
from crony.transport_etcd.claims import Delivery, Pick
from crony.transport_etcd.link import Link
from crony.transport_etcd.message import Undecodable, decode
from crony.transport_etcd.queue import Candidate, Held, read_claim

_PAGE = 50


def message(link: Link, queue: str, session: Session | None) -> Delivery | None:
    """The first free message of a queue: claimed for `session`, or (None) removed. Waits for acks under way.

    A claim whose holder has been gone for a second counts as free; that is noticed from the second call on.
    """
    link.settler.flush(link.options.timeout)
    prefix = start = link.keys.messages(queue)
    while True:
        page = link.client.range(start, prefix_end(prefix), limit=_PAGE, keys_only=True)
        if not page.kvs:
            return None
        held = _claims(link, queue, page.kvs[0].key.removeprefix(prefix), page.kvs[-1].key.removeprefix(prefix))
        dead = _dead(link, queue, held)
        for kv in page.kvs:
            place = kv.key.removeprefix(prefix)
            claim = held.get(place)
            if claim is None:
                seen = Candidate(place, kv.mod, 0, 0, "", None)
            elif not claim.holder or (claim.holder in dead and session is not None):
                seen = Candidate(place, kv.mod, claim.mod, claim.deliveries, claim.holder, None)
            else:
                continue
            found = _one(link, Pick(queue, seen), session)
            if found is not None:
                return found
        if not page.more:
            return None
        start = page.kvs[-1].key + "\0"


def _claims(link: Link, queue: str, first: str, last: str) -> dict[str, Held]:
    prefix = link.keys.claims(queue)
    pairs = link.client.list_range(f"{prefix}{first}", f"{prefix}{last}\0").kvs
    return {kv.key.removeprefix(prefix): read_claim(kv) for kv in pairs}


def _dead(link: Link, queue: str, held: dict[str, Held]) -> set[str]:
    """Holders that are gone; those of runs are the leader's business."""
    holders = {claim.holder for claim in held.values() if claim.holder}
    if not holders or is_run_queue(queue):
        return set()
    link.sessions.start()
    return link.sessions.dead(holders)[0]


def _one(link: Link, pick: Pick, session: Session | None) -> Delivery | None:
    if session is None:
        found = claims.take(link.client, link.keys, [pick])[0]
        return None if found is None or link.publisher.expired(found) else found
    found = claims.claim(link.client, link.keys, session.incarnation, [pick])[0]
    if found is None or not link.burial.fit(found):
        return None
    found.tag = found.own_tag
    return found


def broadcast(link: Link, queue: str) -> Delivery | None:
    """The oldest broadcast that an exclusive queue has not had yet, if it is bound to a fan-out exchange."""
    for exchange, since in link.queues.broadcasts(queue).items():
        prefix = link.keys.fan(exchange)
        page = link.client.range(prefix, prefix_end(prefix), min_mod=since + 1)
        for kv in sorted(page.kvs, key=lambda kv: (kv.mod, kv.key)):
            link.queues.listened(queue, exchange, kv.mod)
            with contextlib.suppress(Undecodable):
                return Delivery(queue, f"0{kv.key.removeprefix(prefix)}", 0, 1, "", decode(kv.value), b"")
    return None
