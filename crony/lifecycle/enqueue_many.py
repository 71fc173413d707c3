"""Many requests in few transactions (transaction 4 several times over): each transaction whole or not at all, in order.

A transaction carries a record of its own (`idem/many/<id>`, pruned by the leader): a lost answer is cleared up by it,
also for requests without an idempotency key that the leader has taken meanwhile.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from crony.domain import ids
from crony.domain.run import Request
from crony.errors import Conflict, CronyError, Invalid, Unavailable, Unknown
from crony.etcd.client import KV, Client
from crony.etcd.errors import EtcdUnknown
from crony.etcd.keys import Keys
from crony.etcd.txn import MAX_BYTES, MAX_OPS, Txn, mod
from crony.lifecycle.enqueue import Submitted, cancellation, check, encoded, meaning

MOST = 10_000
"""Most requests of one call."""
_EVIDENCE_LIFE = 3600.0
_KEY_BYTES = 200
_TRIES = 20


@dataclass(frozen=True, slots=True)
class Item:
    """A request, and what is special about it: as the arguments of `submit`."""

    request: Request
    idempotency: str | None = None
    on_conflict: str = "existing"


class Partly(CronyError):
    """Some of the requests were placed, the rest not. `submitted` has one entry for each: None for one that was not.

    `uncertain` are the places of those for which that could not be found out; the request may still arrive.
    """

    def __init__(self, submitted: list[Submitted | None], uncertain: list[int], error: CronyError) -> None:
        placed = sum(1 for each in submitted if each is not None)
        doubt = f"of {len(uncertain)} it is not certain" if uncertain else "the others were not"
        super().__init__(
            f"{placed} of {len(submitted)} requests were placed, {doubt}",
            why=str(error),
            hint="those with an idempotency key can be repeated safely",
        )
        self.submitted, self.uncertain, self.error = submitted, uncertain, error


@dataclass(frozen=True, slots=True)
class _Wanted:
    number: int
    item: Item
    run: str
    inbox: str
    value: bytes
    idem: str
    """Key of its idempotency record; empty without one."""

    @property
    def ops(self) -> int:
        return 1 + bool(self.idem) + (self.item.on_conflict == "replace")

    @property
    def size(self) -> int:
        return len(self.value) + self.ops * _KEY_BYTES + (2048 if self.item.on_conflict == "replace" else 0)


def submit_many(client: Client, keys: Keys, items: Sequence[Item], *, window: float = 86400) -> list[Submitted]:
    """Ask the leader for many runs; the answers are in the order of the items.

    Everything is checked before anything is written: `Invalid` names the item (`requests[7].params`), `Conflict` the
    key. An idempotency key that is given twice is refused. After that the requests go in transactions of 49 to 99;
    when one fails, those before it stay: `Partly` tells which. `Unavailable`: nothing was placed.
    """
    if len(items) > MOST:
        raise Invalid("requests", f"are more than {MOST}", hint="call it several times")
    wanted = [_prepared(client, keys, number, item, window) for number, item in enumerate(items)]
    seen: dict[str, int] = {}
    for each in wanted:
        if each.idem and seen.setdefault(each.idem, each.number) != each.number:
            raise Invalid(f"requests[{each.number}].idempotency_key", f"is that of requests[{seen[each.idem]}] too")
    first: dict[str, KV] | None = _look(client, wanted)
    for each in wanted:
        _refuse(each, meaning((first or {}).get(each.idem), client.now()))
    done: list[Submitted | None] = [None] * len(wanted)
    for part in _parts(wanted):
        try:
            for each, found in zip(part, _place(client, keys, part, first, window), strict=True):
                done[each.number] = found
        except CronyError as error:
            uncertain = [each.number for each in part] if isinstance(error, Unknown) else []
            if not uncertain and not any(done):
                raise
            raise Partly(done, uncertain, error) from error
        first = None  # later parts look for themselves: time has passed
    return [each for each in done if each is not None]


def _prepared(client: Client, keys: Keys, number: int, item: Item, window: float) -> _Wanted:
    request, key = item.request, item.idempotency
    try:
        check(request, key, item.on_conflict, window)
        run = ids.fresh_run_id(request.job, request.generation)
        value = encoded(replace(request, run=run, idem=key or "", requested_at=request.requested_at or client.now()))
    except Invalid as error:
        raise Invalid(f"requests[{number}].{error.field}", error.problem, hint=error.hint) from None
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest() if key is not None else ""
    return _Wanted(
        number, item, run, keys.run_in(ids.request_id()), value, keys.idem(request.job, digest) if digest else ""
    )


def _place(
    client: Client, keys: Keys, part: list[_Wanted], seen: dict[str, KV] | None, window: float
) -> list[Submitted]:
    """One transaction. Raises `Unavailable` (nothing was placed), `Unknown`, `Conflict`."""
    evidence = keys.idem("many", ids.fresh("b"))
    tried: list[list[Submitted]] = []
    doubt = False
    for _ in range(_TRIES):
        try:
            seen = _look(client, part) if seen is None else seen
            result, txn = _transaction(client, keys, part, seen, window)
            if not txn.ops:
                return result
            tried.append(result)
            record = {"v": 1, "try": len(tried) - 1, "until": client.now() + _EVIDENCE_LIFE}
            txn.when(mod(evidence, 0)).put(evidence, json.dumps(record).encode())
            try:
                if client.txn(txn).succeeded:
                    return result
            except EtcdUnknown:
                doubt = True
            found = client.get(evidence)
            if found is not None:  # one of our tries has arrived
                return tried[int(json.loads(found.value)["try"])]
            seen = _look(client, part)
        except Unavailable as error:
            if doubt:
                raise _unclear(error) from None
            raise
        for each in part:  # a key taken meanwhile: none of our tries can arrive any more, for all of them compare it
            _refuse(each, meaning(seen.get(each.idem), client.now()))
    if doubt:
        raise _unclear("others use the same idempotency keys")
    raise Unavailable("The requests could not be placed", why="others use the same idempotency keys", hint="try again")


def _transaction(
    client: Client, keys: Keys, part: list[_Wanted], seen: dict[str, KV], window: float
) -> tuple[list[Submitted], Txn]:
    """What the answers will be if the transaction is carried out."""
    now, answers, txn = client.now(), [], Txn()
    for each in part:
        found = seen.get(each.idem)
        earlier = meaning(found, now)
        if earlier == each.run or (earlier is not None and each.item.on_conflict == "existing"):
            answers.append(Submitted(earlier, earlier == each.run))
            continue
        if each.idem:
            record = {"v": 1, "run": each.run, "until": now + window}
            txn.when(mod(each.idem, found.mod if found else 0))
            txn.put(each.idem, json.dumps(record, separators=(",", ":")).encode())
        txn.put(each.inbox, each.value)
        if earlier is not None:
            cancel = cancellation(each.item.request, earlier, each.run, now)
            txn.put(keys.run_in(ids.request_id()), cancel.encode())
        answers.append(Submitted(each.run, True))
    return answers, txn


def _refuse(each: _Wanted, earlier: str | None) -> None:
    if earlier not in (None, each.run) and each.item.on_conflict == "error":
        raise Conflict(
            f"The idempotency key of requests[{each.number}] stands for run {earlier} already",
            hint="use a new key for new work",
        )


def _look(client: Client, part: Sequence[_Wanted]) -> dict[str, KV]:
    """The idempotency records there are of these requests."""
    names = [each.idem for each in part if each.idem]
    found: dict[str, KV] = {}
    for start in range(0, len(names), MAX_OPS):
        txn = Txn()
        for name in names[start : start + MAX_OPS]:
            txn.get(name)
        for pairs in client.txn(txn).responses:
            found.update({pair.key: pair for pair in pairs})
    return found


def _parts(wanted: list[_Wanted]) -> Iterator[list[_Wanted]]:
    """What fits in one transaction beside its evidence."""
    part: list[_Wanted] = []
    ops, size = 1, _KEY_BYTES
    for each in wanted:
        if part and (ops + each.ops > MAX_OPS or size + each.size > MAX_BYTES):
            yield part
            part, ops, size = [], 1, _KEY_BYTES
        part.append(each)
        ops, size = ops + each.ops, size + each.size
    if part:
        yield part


def _unclear(why: object) -> Unknown:
    return Unknown("Requests were sent, but the answer was lost", why=str(why))


__all__ = ["MOST", "Item", "Partly", "submit_many"]
