"""The transaction builder: what it spells, and what it refuses before etcd would."""

from __future__ import annotations

import json
from base64 import b64encode

import pytest

from crony.etcd.errors import BadRequest
from crony.etcd.txn import PUBLISH_BYTES, Txn, absent, create, exists, lease, mod, version
from crony.etcd.txn_result import result


def b64(text: str) -> str:
    return b64encode(text.encode()).decode()


def test_spells_every_part() -> None:
    txn = Txn().when(mod("a", 7), create("b", 8), version("c", 9), lease("d", 10), exists("e"), absent("f"))
    txn.put("p", b"\x00\xff", lease=5).delete("q").get("r").get("s", "t", limit=3).nest(Txn().when(exists("u")))
    txn.otherwise.get("v")
    body = json.loads(txn.encode())
    assert list(body) == ["compare", "success", "failure"]
    assert body["compare"] == [
        {"key": b64("a"), "target": "MOD", "result": "EQUAL", "mod_revision": "7"},
        {"key": b64("b"), "target": "CREATE", "result": "EQUAL", "create_revision": "8"},
        {"key": b64("c"), "target": "VERSION", "result": "EQUAL", "version": "9"},
        {"key": b64("d"), "target": "LEASE", "result": "EQUAL", "lease": "10"},
        {"key": b64("e"), "target": "VERSION", "result": "GREATER", "version": "0"},
        {"key": b64("f"), "target": "MOD", "result": "EQUAL", "mod_revision": "0"},
    ]
    assert body["success"] == [
        {"request_put": {"key": b64("p"), "value": "AP8=", "lease": "5"}},
        {"request_delete_range": {"key": b64("q")}},
        {"request_range": {"key": b64("r")}},
        {"request_range": {"key": b64("s"), "range_end": b64("t"), "limit": "3"}},
        {
            "request_txn": {
                "compare": [{"key": b64("u"), "target": "VERSION", "result": "GREATER", "version": "0"}],
                "success": [],
                "failure": [],
            }
        },
    ]
    assert body["failure"] == [{"request_range": {"key": b64("v")}}]


def puts(count: int, prefix: str = "k") -> Txn:
    txn = Txn()
    for number in range(count):
        txn.put(f"{prefix}{number}", b"")
    return txn


def test_operations_of_a_level() -> None:
    puts(100).encode()
    with pytest.raises(BadRequest, match="100 operations"):
        puts(101).encode()
    other = Txn()
    for number in range(101):
        other.otherwise.get(f"k{number}")
    with pytest.raises(BadRequest, match="100 operations"):
        other.encode()


def test_compares_of_a_level() -> None:
    Txn().when(*(absent(f"k{n}") for n in range(120))).put("a", b"").encode()
    with pytest.raises(BadRequest, match="120 compares"):
        Txn().when(*(absent(f"k{n}") for n in range(121))).encode()


def test_nested_levels_share_what_the_outer_one_leaves() -> None:
    outer = Txn().when(*(absent(f"c{n}") for n in range(120)))
    outer.nest(puts(8))
    outer.encode()
    outer = Txn().when(*(absent(f"c{n}") for n in range(120)))
    outer.nest(puts(9))
    with pytest.raises(BadRequest, match="leave 8"):
        outer.encode()
    assert Txn().nest(Txn().nest(puts(5))).depth_cost == 7


def test_bytes() -> None:
    Txn().put("k", b"x" * (512 * 1024 - 100)).encode()
    big = Txn().put("k", b"x" * (512 * 1024))
    with pytest.raises(BadRequest, match="split it"):
        big.encode()
    Txn(max_bytes=PUBLISH_BYTES).put("k", b"x" * 1_250_000).encode()
    with pytest.raises(BadRequest):
        Txn(max_bytes=PUBLISH_BYTES + 1)
    with pytest.raises(BadRequest, match="split it"):
        Txn().nest(big).encode()


REFUSED = {
    "put and put": lambda: Txn().put("k", b"").put("k", b""),
    "put and delete": lambda: Txn().put("k", b"").delete("k"),
    "delete and put": lambda: Txn().delete("k").put("k", b""),
    "siblings put": lambda: Txn().nest(Txn().put("k", b"")).nest(Txn().put("k", b"")),
    "siblings put and delete": lambda: Txn().nest(Txn().put("k", b"")).nest(Txn().delete("k")),
    "siblings delete and put": lambda: Txn().nest(Txn().delete("k")).nest(Txn().put("k", b"")),
    "outer put, nested put": lambda: Txn().put("k", b"").nest(Txn().put("k", b"")),
    "outer delete, nested put": lambda: Txn().delete("k").nest(Txn().put("k", b"")),
    "outer put, nested delete": lambda: Txn().put("k", b"").nest(Txn().delete("k")),
    "deep": lambda: Txn().put("k", b"").nest(Txn().nest(Txn().put("k", b""))),
    "then of one, else of another": lambda: Txn().nest(Txn().put("k", b"")).nest(otherwise("k")),
    "within else": lambda: both_in_else("k"),
}


def otherwise(key: str) -> Txn:
    txn = Txn().when(exists("z"))
    txn.otherwise.put(key, b"")
    return txn


def both_in_else(key: str) -> Txn:
    txn = Txn()
    txn.otherwise.put(key, b"").delete(key)
    return txn


@pytest.mark.parametrize("name", REFUSED)
def test_a_key_written_twice_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="twice"):
        REFUSED[name]().encode()


def test_what_may_meet() -> None:
    Txn().delete("k").delete("k").encode()
    Txn().nest(Txn().delete("k")).nest(Txn().delete("k")).encode()
    txn = Txn().put("k", b"")
    txn.otherwise.put("k", b"").get("k")
    txn.encode()
    inner = Txn().when(exists("z")).put("k", b"")
    inner.otherwise.delete("k")
    Txn().nest(inner).encode()
    Txn().put("k", b"").get("k").when(mod("k", 3)).encode()


def test_empty_keys_are_refused() -> None:
    for build in (lambda: Txn().put("", b""), lambda: Txn().delete(""), lambda: Txn().get("")):
        with pytest.raises(BadRequest, match="empty"):
            build()
    with pytest.raises(BadRequest, match="empty"):
        Txn().when(exists("")).encode()


def test_missing_fields_of_an_answer_mean_nothing_and_false() -> None:
    found = result(
        {
            "header": {"revision": "9"},
            "responses": [
                {"response_put": {}},
                {"response_delete_range": {}},
                {"response_range": {"header": {}}},
                {"response_txn": {}},
            ],
        }
    )
    assert found.succeeded is False
    assert found.revision == 9
    assert found.responses[:3] == [None, 0, []]
    assert found.responses[3] == (False, 9, [])
