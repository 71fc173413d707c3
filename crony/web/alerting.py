"""What pages and API ask about alerts beside their list: how channels do, and a test through the whole platform."""

from __future__ import annotations

from collections.abc import Sequence

from crony.domain import alert as alerts
from crony.domain import ids
from crony.domain.notice import Doing
from crony.domain.record import UnknownRecord
from crony.errors import Unavailable
from crony.lifecycle.alert import ask_for_test
from crony.store import audit
from crony.web.wiring import Web


def doing(web: Web) -> dict[str, Doing] | None:
    """How the channels do that the leader has used, by name; None: etcd is away."""
    prefix, found = web.keys.sender(""), dict[str, Doing]()
    try:
        kvs = web.client.list(prefix).kvs
    except Unavailable:
        return None
    for kv in kvs:
        try:
            found[kv.key.removeprefix(prefix)] = Doing.read(kv.value)
        except UnknownRecord:
            continue
    return found


def test(web: Web, actor: str, to: Sequence[str] | None, address: str = "") -> str:
    """Have the leader send a test alert; its id. `to`: channels and addresses; None: all that the rules name.

    Raises `Invalid` for a channel that is not there, `Unavailable`.
    """
    entry = audit.entry_id()
    if to is not None:
        web.db.transaction(lambda session: web.catalog.channels.check_to(session, to, "to"))
    alert = alerts.test(ids.fresh("a"), actor, web.client.now())
    ask_for_test(web.client, web.keys, alert, to)
    told = {"to": list(to) if to is not None else "as the rules say"}
    web.db.transaction(lambda session: audit.add(session, entry, actor, "alert.test", "alert", alert.id, told, address))
    return alert.id
