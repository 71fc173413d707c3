"""Transaction 2, register: a node's record lies under the lease of its session, and a name has one node.

The N6 rule: a record of another incarnation goes when that process is provably dead (same machine, no such
process: its lease is revoked at once), or when its lease runs out. A live one wins; the newcomer is refused.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from crony.domain.node import NodeFacts
from crony.domain.record import UnknownRecord
from crony.errors import Conflict
from crony.etcd.client import KV, Client
from crony.etcd.keys import Keys
from crony.etcd.session import Session
from crony.etcd.txn import absent, mod


def boot_id() -> str:
    """Id of this boot and this process-id namespace: equal ids mean that process ids can be compared."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def register(
    client: Client,
    keys: Keys,
    session: Session,
    facts: NodeFacts,
    *,
    patience: float,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Put `node/<name>` under the session's lease. Waits up to `patience` seconds for a former holder to go.

    `wait` is called between looks (seconds) and may raise to give up. Raises `Conflict` when the name is in use.
    """
    key, deadline = keys.node(facts.name), time.monotonic() + patience
    while True:
        held = client.get(key)
        other = _facts(held)
        guard = None
        if held is None:
            guard = absent(key)
        elif other is not None and (other.incarnation == facts.incarnation or _is_dead(client, keys, held, other)):
            guard = mod(key, held.mod)
        if guard is not None and session.attach(key, facts.encode(), guard):
            return
        if time.monotonic() >= deadline:
            raise Conflict(
                f"a node named {facts.name!r} is already running",
                why=f"on {other.hostname}, process {other.pid}" if other else "its record cannot be read",
                hint="stop it, or give this one another name with CRONY_NODE",
            )
        wait(0.2)


def _facts(held: KV | None) -> NodeFacts | None:
    try:
        return NodeFacts.read(held.value) if held is not None else None
    except UnknownRecord:
        return None


def _is_dead(client: Client, keys: Keys, held: KV, other: NodeFacts) -> bool:
    if other.boot_id and other.boot_id == boot_id() and not _runs(other.pid):
        if held.lease:
            client.revoke(held.lease)
        return False  # the record went with the lease: look again
    return client.get(keys.session(other.incarnation)) is None


def _runs(pid: int) -> bool:
    if pid == os.getpid():
        return False  # we are that process, so the one that wrote the record is gone
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    except (OSError, IndexError):
        return True
    return state not in "ZX"
