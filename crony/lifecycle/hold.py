"""The stop switch: one key that every dispatch compares, so that nothing is handed out once it is set."""

from __future__ import annotations

import json
from dataclasses import dataclass

from crony.domain.record import Record, UnknownRecord
from crony.errors import Conflict
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, mod

_TRIES = 5


@dataclass(frozen=True, slots=True)
class Switch(Record):
    """What `control` says of the switch. `by`, `reason` and `at` (epoch seconds) are of whoever turned it last."""

    stop: bool = False
    by: str = ""
    reason: str = ""
    at: float = 0.0


def look(client: Client, keys: Keys) -> Switch:
    """How the switch stands. A record nobody can read is a stop, as it is for the leader. Raises `Unavailable`."""
    found = client.get(keys.control)
    return Switch() if found is None else _read(found.value)


def turn(client: Client, keys: Keys, stop: bool, *, by: str, reason: str = "") -> Switch:
    """Set the switch: from the acknowledgement on no leader hands out anything (`stop`), or all goes on.

    What else the key holds stays. Setting it as it stands renews who and why. Raises `Conflict` when others keep
    turning it, `Unavailable` or `Unknown` when etcd is away.
    """
    for _ in range(_TRIES):
        found = client.get(keys.control)
        record = Switch(stop, by, reason, client.now())
        kept = _plain(found.value if found else b"{}")
        value = json.dumps({**kept, **record.payload()}, separators=(",", ":")).encode()
        if client.txn(Txn().when(mod(keys.control, found.mod if found else 0)).put(keys.control, value)).succeeded:
            return record
    raise Conflict("The stop switch was turned by others each time it was tried", hint="look who did, then try again")


def _read(value: bytes) -> Switch:
    try:
        found = Switch.read(value)
    except UnknownRecord:
        return Switch(stop=True)
    texts = all(isinstance(text, str) for text in (found.by, found.reason))
    return found if texts and isinstance(found.at, int | float) else Switch(bool(found.stop))


def _plain(value: bytes) -> dict[str, object]:
    try:
        found = json.loads(value)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
