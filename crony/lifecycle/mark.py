"""Mark (transaction 22): the leader of shard 0 says every few seconds that etcd went on; see `domain.mark`."""

from __future__ import annotations

import secrets

from crony.domain.mark import Mark, Seen, past
from crony.domain.record import UnknownRecord
from crony.errors import Halted
from crony.etcd.client import KV, Client
from crony.etcd.errors import BadRequest, Compacted
from crony.etcd.keys import Keys
from crony.lifecycle.move import Move

HINT = "read docs/how-to/restore.md, then run `crony recover` where a centre runs"


def look(client: Client, keys: Keys, *, timeout: float | None = None) -> Seen:
    """How far etcd is. Raises as the client, `UnknownRecord` for a mark of a newer version."""
    page = client.range(keys.mark, timeout=timeout)
    return seen(page.kvs[0] if page.kvs else None, page.revision, client.cluster_id)


def seen(kv: KV | None, revision: int, cluster: str) -> Seen:
    """A mark as found. Raises `UnknownRecord`."""
    if kv is None:
        return Seen(revision=revision, cluster=cluster)
    mark = Mark.read(kv.value)
    if type(mark.epoch) is not int or not isinstance(mark.nonce, str) or not isinstance(mark.at, int | float):
        raise UnknownRecord("the mark of the namespace is not one", hint=HINT)
    archived = mark.archived if type(mark.archived) is int else 0
    return Seen(mark.epoch, mark.nonce, kv.mod, mark.at, revision, cluster, archived)


def check(kept: Seen, found: Seen) -> None:
    """Raises `Halted` when etcd went back behind what was kept."""
    why = past(kept, found)
    if why:
        raise Halted("etcd's data went back in time", why=why, hint=HINT)


def same_history(client: Client, keys: Keys, kept: Seen) -> bool | None:
    """Whether etcd's data went through what was kept; None: that is compacted away. Raises as the client."""
    if not kept.mod:
        return None
    try:
        then = client.get(keys.mark, revision=kept.mod)
    except (Compacted, BadRequest):  # the latter: a revision that is still to come
        return None
    return then is not None and then.mod == kept.mod and seen(then, 0, "").nonce == kept.nonce


def put(keys: Keys, before: Seen, *, at: float, epoch: int | None = None, archived: int = 0) -> tuple[Move, Mark]:
    """The next mark after `before`; with `epoch` the one that a recovery ends with. `archived`: revision of the one
    that the database has confirmed since."""
    if epoch is None:
        mark = Mark(before.epoch, secrets.token_hex(8), at, max(before.archived, archived))
    else:
        mark = Mark(epoch, secrets.token_hex(8), at)
    return Move({keys.mark: before.mod}, puts={keys.mark: mark.encode()}, proof=keys.mark), mark
