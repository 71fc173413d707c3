"""Transactions, from one typed builder only.

The gateway ignores fields it does not know, so a misspelt compare would run unguarded: nobody else may spell one.
The builder also refuses before sending what etcd would refuse after (too many operations, a key put twice), and
`self_test` asks a server once whether it takes our compares seriously.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Self

from crony.errors import Halted
from crony.etcd import proto
from crony.etcd.compare import TARGETS, Compare, absent, create, exists, lease, mod, named, vacant, version
from crony.etcd.errors import BadRequest
from crony.etcd.txn_result import TxnResult
from crony.etcd.wire import KV, encode, encode_key

MAX_OPS = 100
MAX_COMPARES = 120
MAX_BYTES = 512 * 1024
PUBLISH_BYTES = 1280 * 1024
SERVER_OPS = 128
"""etcd's own limit of a level; nested levels get what the outer one leaves of it."""

_OVERHEAD = 24


class _Put(NamedTuple):
    key: str
    value: bytes
    lease: int

    def json(self) -> str:
        tail = f',"lease":"{self.lease}"' if self.lease else ""
        return f'{{"request_put":{{"key":"{encode_key(self.key)}","value":"{encode(self.value)}"{tail}}}}}'

    def proto(self) -> bytes:
        return proto.chunk(b"\x12", proto.put_request(self.key, self.value, self.lease))


class _Delete(NamedTuple):
    key: str
    end: str | None = None

    def json(self) -> str:
        tail = f',"range_end":"{encode_key(self.end)}"' if self.end is not None else ""
        return f'{{"request_delete_range":{{"key":"{encode_key(self.key)}"{tail}}}}}'

    def proto(self) -> bytes:
        return proto.chunk(b"\x1a", proto.delete_request(self.key, self.end))


class _Get(NamedTuple):
    key: str
    end: str | None
    limit: int

    def json(self) -> str:
        tail = f',"range_end":"{encode_key(self.end)}"' if self.end is not None else ""
        tail += f',"limit":"{self.limit}"' if self.limit else ""
        return f'{{"request_range":{{"key":"{encode_key(self.key)}"{tail}}}}}'

    def proto(self) -> bytes:
        return proto.chunk(b"\x0a", proto.range_request(self.key, self.end, limit=self.limit))


class Ops:
    """What one branch of a transaction does, in order."""

    __slots__ = ("_bytes", "_deletes", "_nested", "_parts", "_puts", "_written")

    def __init__(self) -> None:
        self._parts: list[_Put | _Delete | _Get | Txn] = []
        self._nested: list[Txn] = []
        self._puts: list[str] = []
        self._deletes: list[str] = []
        self._bytes = 0
        self._written: tuple[int, set[str], set[str]] | None = None
        """How many parts there were when `_writes` looked, and what it found: nobody changes a part."""

    def put(self, key: str, value: bytes, *, lease: int = 0) -> Self:
        """Puts `value`; a leased key needs its `lease` named each time, else it is detached for ever."""
        self._parts.append(_Put(named(key), value, int(lease)))
        self._puts.append(key)
        self._bytes += len(key) + len(value) + _OVERHEAD
        return self

    def delete(self, key: str) -> Self:
        """Deletes one key (0 or 1 deleted)."""
        self._parts.append(_Delete(named(key)))
        self._deletes.append(key)
        self._bytes += len(key) + _OVERHEAD
        return self

    def clear(self, start: str, end: str) -> Self:
        """Deletes every key in `start` <= key < `end` (how many were deleted). No put may fall into that range."""
        if not start < end:
            raise BadRequest("a range to be deleted is empty or has no end")
        self._parts.append(_Delete(named(start), named(end)))
        self._deletes.append(start)
        self._bytes += len(start) + len(end) + _OVERHEAD
        return self

    def get(self, key: str, end: str | None = None, *, limit: int = 0) -> Self:
        """Reads one key, or the range up to `end`."""
        self._parts.append(_Get(named(key), end, int(limit)))
        self._bytes += len(key) + len(end or "") + _OVERHEAD
        return self

    def nest(self, txn: Txn) -> Self:
        """A transaction inside: its compares are evaluated before anything is written."""
        if txn is self:
            raise BadRequest("a transaction cannot be nested in itself")
        self._parts.append(txn)
        self._nested.append(txn)
        return self

    @property
    def ops(self) -> int:
        """Number of operations of this branch (a nested transaction is one)."""
        return len(self._parts)

    def _json(self) -> str:
        return ",".join([part.json() for part in self._parts])

    def _size(self) -> int:
        return self._bytes + sum([txn.size for txn in self._nested])

    def _check(self, room: int) -> None:
        for txn in self._nested:
            txn._check_level(room)

    def _writes(self) -> tuple[set[str], set[str]]:
        """Keys put and deleted by this branch, nested ones included. `BadRequest` on a key written twice (E2)."""
        if self._written is not None and self._written[0] == len(self._parts) and not self._nested:
            return self._written[1], self._written[2]
        puts, deletes = set(self._puts), set(self._deletes)
        if len(puts) != len(self._puts):
            raise BadRequest(f"a transaction puts a key twice: {_twice(self._puts)}")
        _apart(puts, deletes)
        for txn in self._nested:
            if txn._otherwise is None and not txn._nested:  # nearly all: no sets of its own needed
                for key in txn._puts:
                    if key in puts or key in deletes:
                        raise BadRequest(f"a transaction writes a key twice: {key}")
                    puts.add(key)
                for key in txn._deletes:
                    if key in puts:
                        raise BadRequest(f"a transaction writes a key twice: {key}")
                deletes.update(txn._deletes)
                continue
            # Within one nested transaction put and delete may meet: only one of its branches runs.
            more_puts, more_deletes = txn.writes()
            _apart(puts, more_puts)
            _apart(puts, more_deletes)
            _apart(deletes, more_puts)
            puts |= more_puts
            deletes |= more_deletes
        self._written = len(self._parts), puts, deletes
        return puts, deletes


class Txn(Ops):
    """Compares, what happens when all of them hold (the methods of this object), and `otherwise`."""

    __slots__ = ("_otherwise", "compares", "idempotent", "max_bytes")

    def __init__(self, *, max_bytes: int = MAX_BYTES, idempotent: bool = False) -> None:
        """`max_bytes`: size allowed; only the publish of a large document may ask for `PUBLISH_BYTES`.

        `idempotent`: who gets the second answer may do with it what he would do with the first, so that the client
        may send it again when an answer is lost.
        """
        super().__init__()
        self.idempotent = idempotent
        if max_bytes > PUBLISH_BYTES:
            raise BadRequest(f"a transaction may have {PUBLISH_BYTES} bytes at most")
        self.max_bytes = max_bytes
        self.compares: list[Compare] = []
        self._otherwise: Ops | None = None

    @property
    def otherwise(self) -> Ops:
        """What happens when a compare does not hold."""
        if self._otherwise is None:
            self._otherwise = Ops()
        return self._otherwise

    def when(self, *compares: Compare) -> Self:
        """Adds conditions; all must hold."""
        self.compares.extend(compares)
        return self

    @property
    def size(self) -> int:
        """Bytes on etcd's own wire, roughly: keys, values and a little for each operation."""
        own = sum([len(compare.key) + _OVERHEAD for compare in self.compares])
        return own + self._size() + (self._otherwise._size() if self._otherwise else 0)

    @property
    def level(self) -> int:
        """What this level takes of etcd's 128: the largest of compares, operations and other operations."""
        most = max(len(self.compares), len(self._parts))
        return most if self._otherwise is None else max(most, self._otherwise.ops)

    @property
    def depth_cost(self) -> int:
        """Sum of the levels along the costliest way down."""
        nested = [*self._nested, *(self._otherwise._nested if self._otherwise else ())]
        return self.level + max([txn.depth_cost for txn in nested], default=0)

    def writes(self) -> tuple[set[str], set[str]]:
        """Keys that either branch may put, and may delete. Raises `BadRequest` when one is written twice."""
        puts, deletes = self._writes()
        if self._otherwise is not None:
            more_puts, more_deletes = self._otherwise._writes()
            return puts | more_puts, deletes | more_deletes
        return puts, deletes

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent again when an answer is lost."""
        return self.idempotent or self.read_only

    @property
    def read_only(self) -> bool:
        """Whether nothing is written, whichever branches run."""
        return all(
            not branch._puts and not branch._deletes and all(txn.read_only for txn in branch._nested)
            for branch in (self, self._otherwise)
            if branch is not None
        )

    def check(self) -> None:
        """Raises `BadRequest` naming the limit that this transaction passes, or the key that it writes twice."""
        self._check_level(SERVER_OPS)
        size = self.size
        if size > self.max_bytes:
            raise BadRequest(f"the transaction has {size} bytes, {self.max_bytes} are allowed", hint="split it")
        self.writes()

    def encode(self) -> bytes:
        """The checked body for the gateway. Raises as `check`."""
        self.check()
        return self._object().encode("ascii")

    def message(self) -> bytes:
        """The checked message for etcd itself. Raises as `check`."""
        self.check()
        return self._message()

    def json(self) -> str:
        """As an operation for the gateway."""
        return f'{{"request_txn":{self._object()}}}'

    def proto(self) -> bytes:
        """As an operation for etcd itself."""
        return proto.chunk(b"\x22", self._message())

    def _check_level(self, room: int) -> None:
        other, level = self._otherwise, self.level
        if len(self._parts) > MAX_OPS or (other is not None and other.ops > MAX_OPS):
            raise BadRequest(f"a transaction has more than {MAX_OPS} operations", hint="split it")
        if len(self.compares) > MAX_COMPARES:
            raise BadRequest(f"a transaction has more than {MAX_COMPARES} compares", hint="split it")
        if level > room:
            raise BadRequest(f"a nested transaction needs {level} places, the levels above leave {room}")
        self._check(room - level)
        if other is not None:
            other._check(room - level)

    def _message(self) -> bytes:
        parts = [proto.chunk(b"\x0a", compare.proto()) for compare in self.compares]
        parts += [proto.chunk(b"\x12", part.proto()) for part in self._parts]
        if self._otherwise is not None:
            parts += [proto.chunk(b"\x1a", part.proto()) for part in self._otherwise._parts]
        return b"".join(parts)

    def _object(self) -> str:
        compare = ",".join([compare.json() for compare in self.compares])
        failure = self._otherwise._json() if self._otherwise else ""
        return f'{{"compare":[{compare}],"success":[{self._json()}],"failure":[{failure}]}}'


def self_test(ask: Callable[[Txn], TxnResult], key: str) -> None:
    """Asks the server compares on `key` that cannot hold, and some that must; writes nothing. Raises `Halted`.

    Equal to a number that no key reaches: holds only if the compare is overlooked. Less than that number: fails only
    if the number is overlooked, which then counts as 0.
    """
    never = 2**63 - 1
    asked = [Compare(key, target, result, never) for target in TARGETS for result in ("=", ">", "<")]
    probe = Txn()
    for compare in asked:
        probe.nest(Txn().when(compare))
    found = [nested.succeeded for nested in ask(probe).responses]
    if found != [compare.result == "<" for compare in asked]:
        raise Halted(
            "etcd does not evaluate our compares",
            why=f"conditions whose answer is known were answered {found}",
            hint="is there something between us and etcd, or a version nobody tried?",
        )


def _twice(keys: list[str]) -> str:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            return key
        seen.add(key)
    return ""


def _apart(left: set[str], right: set[str]) -> None:
    if not left.isdisjoint(right):
        raise BadRequest(f"a transaction writes a key twice: {min(left & right)}")


__all__ = [
    "KV",
    "MAX_BYTES",
    "MAX_COMPARES",
    "MAX_OPS",
    "PUBLISH_BYTES",
    "Compare",
    "Ops",
    "Txn",
    "TxnResult",
    "absent",
    "create",
    "exists",
    "lease",
    "mod",
    "vacant",
    "version",
]
