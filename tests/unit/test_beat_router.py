"""The leader's router: who fits, by which strategy one of them is chosen, and what is said of the others."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from crony.beat.book import Book
from crony.beat.load import PROMISE, Load
from crony.beat.router import Route, Router, key_of
from crony.domain import ids
from crony.domain.grounds import Grounds
from crony.domain.node import ABILITIES, NodeControl, NodeFacts
from crony.domain.run import Claim, Envelope
from crony.etcd.keys import Keys

KEYS = Keys("x")
JOB = "j" + "1" * 20


class Fleet:
    """A router over a book that is told of nodes, with a clock that stands."""

    def __init__(self) -> None:
        self.book, self.revision, self.now, self.count = Book(KEYS), 1, 100.0, 0
        self.router = Router(self.book, lambda: self.now, Random(3))

    def put(self, key: str, value: bytes) -> None:
        """News from etcd."""
        self.revision += 1
        self.book.put(key, value, self.revision)

    def drop(self, key: str) -> None:
        """A key is gone."""
        self.revision += 1
        self.book.drop(key, self.revision)

    def node(self, name: str, **facts: Any) -> None:
        """A node with a session."""
        base = {"incarnation": f"i-{name}", "queue": f"run.{name}", "hostname": "h", "pid": 1, "boot_id": "b",
                "version": "0", "capacity": 4, "kinds": ["shell"], "can": [*ABILITIES]}  # fmt: skip
        self.put(KEYS.session(f"i-{name}"), b"{}")
        self.put(KEYS.node(name), NodeFacts(name=name, **(base | facts)).encode())

    def control(self, name: str, **control: Any) -> None:
        """What people set."""
        self.put(KEYS.nodectl(name), NodeControl(**control).encode())

    def route(self, *, avoid: tuple[str, ...] = (), **fields: Any) -> Route | None:
        """A node for a fresh run."""
        self.count += 1
        return self.router.route(self.envelope(**fields), avoid)

    def envelope(self, **fields: Any) -> Envelope:
        """An attempt that asks for a node."""
        base = {"run": f"{JOB}.1.{self.count}", "job": JOB, "name": "n", "generation": 1, "revision": 1, "attempt": 1,
                "queue": "", "incarnation": "", "trigger": "schedule", "action": {"kind": "shell"}}  # fmt: skip
        return Envelope(**(base | fields))

    def nodes(self, times: int, **fields: Any) -> Counter[str]:
        """Which nodes so many runs get, none of which ever reaches etcd."""
        return Counter(found.node for _ in range(times) if (found := self.route(**fields)))


def test_each_refused_node_is_named_with_its_reason() -> None:
    fleet = Fleet()
    fleet.node("good", labels={"zone": "a"})
    for name in ("cordoned", "drained", "light"):
        fleet.node(name, labels={"zone": "a"})
    fleet.control("cordoned", cordoned=True)
    fleet.control("drained", drain=True)
    fleet.control("light", weight=0)
    fleet.node("stopping", draining=True, labels={"zone": "a"})
    fleet.node("tame", kinds=["http"])
    fleet.node("zone b", labels={"zone": "b"})
    fleet.node("bare")
    fleet.node("shunned", labels={"zone": "a"})
    fleet.node("gone", labels={"zone": "a"})
    fleet.drop(KEYS.session("i-gone"))
    found = fleet.route(labels={"zone": "a"}, exclude=["shunned"])
    assert found is not None and found.node == "good"
    said = Grounds.read(found.why)
    assert (said.why, said.strategy, said.more) == ("the only node that fits", "weighted", 0)
    assert dict(said.passed) == {
        "cordoned": ("cordoned",), "drained": ("drained",), "weight 0": ("light",), "stopping": ("stopping",),
        "does not run shell jobs": ("tame",), "zone is b, not a": ("zone_b",), "has no zone": ("bare",),
        "away": ("gone",), "excluded by the job": ("shunned",),
    }  # fmt: skip
    assert said.passed[-1][0] == "excluded by the job", "what the job says itself comes last"


def test_nobody_fits_and_why() -> None:
    fleet = Fleet()
    assert fleet.route() is None and fleet.router.explain(fleet.envelope()) == "no node is alive"
    fleet.node("a")
    fleet.control("a", cordoned=True)
    assert fleet.route() is None and fleet.router.explain(fleet.envelope()) == "cordoned: a"
    pinned = fleet.envelope(node="b")
    assert fleet.router.explain(pinned) == "not registered: b; not the node asked for: a"
    fleet.node("b")
    assert fleet.router.route(pinned).node == "b"  # type: ignore[union-attr]


def test_many_candidates_are_counted_not_named() -> None:
    fleet = Fleet()
    for n in range(50):
        fleet.node(f"n{n:02}")
    found = fleet.route()
    assert found is not None
    said = Grounds.read(found.why)
    assert len(dict(said.passed)["not in its turn"]) == 20 and said.more == 29


def test_a_weight_set_by_a_person_counts_from_the_next_run_on() -> None:
    fleet = Fleet()
    fleet.node("a")
    fleet.node("b")
    assert fleet.nodes(40) == {"a": 20, "b": 20}
    fleet.control("b", weight=300)
    assert fleet.nodes(40) == {"a": 10, "b": 30}
    fleet.control("b", weight=None)
    assert fleet.nodes(40) == {"a": 20, "b": 20}


def test_a_node_that_comes_back_or_is_uncordoned_gets_its_share_and_no_more() -> None:
    fleet = Fleet()
    for name in "abc":
        fleet.node(name)
    fleet.nodes(30)
    fleet.drop(KEYS.node("c"))
    fleet.drop(KEYS.session("i-c"))
    fleet.control("b", cordoned=True)
    assert fleet.nodes(500) == {"a": 500}
    fleet.node("c")
    fleet.control("b")
    back = [found.node for _ in range(30) if (found := fleet.route())]
    assert Counter(back) == {"a": 10, "b": 10, "c": 10}
    assert all(len(set(back[i : i + 3])) == 3 for i in range(0, 30, 3)), "in turn from the first run on"


def test_the_least_busy_counts_what_is_on_its_way() -> None:
    fleet = Fleet()
    for name in "ab":
        fleet.node(name)
    for n in range(3):
        fleet.put(KEYS.message("run.a", ids.place(0, n + 1, f"{JOB}.2.{n}")), b"x")
    chosen = [fleet.route(strategy="least_busy") for _ in range(5)]
    assert Counter(found.node for found in chosen if found) == {"b": 4, "a": 1}, "a crowd does not go to one node"
    said = Grounds.read(chosen[0].why)  # type: ignore[union-attr]
    assert said.why == "the least busy of 2 nodes, 0 of 4 places taken" and dict(said.passed) == {"busier": ("a",)}
    last = Grounds.read(fleet.route(strategy="least_busy").why)  # type: ignore[union-attr]
    assert [reason for reason, _ in last.passed] == ["all places taken"]
    fleet.now += PROMISE
    fresh = fleet.route(strategy="least_busy")
    assert fresh is not None and fresh.node == "b", "promises that led to nothing are forgotten"


def test_load_counts_a_run_once() -> None:
    load = Load()
    load.promise("r1", "run.a", 0.0)
    load.promise("r1", "run.b", 1.0)  # decided anew
    assert (load.of("run.a"), load.of("run.b")) == (0, 1)
    load.came("r1", "run.b")
    assert load.of("run.b") == 1
    load.left("run.b")
    assert load.of("run.b") == 0
    load.promise("r2", "run.a", 2.0)
    load.expire(2.0 + PROMISE - 0.01)
    assert load.of("run.a") == 1
    load.expire(2.0 + PROMISE)
    assert load.of("run.a") == 0


def test_messages_that_end_leave_the_load() -> None:
    fleet = Fleet()
    key = KEYS.message("run.a", ids.place(0, 1, f"{JOB}.2.1"))
    fleet.put(key, b"x")
    fleet.put(key, b"renewed")
    assert fleet.book.load.of("run.a") == 1
    fleet.drop(key)
    assert fleet.book.load.of("run.a") == 0


def test_hash_goes_by_job_or_parameter_and_stays() -> None:
    fleet = Fleet()
    for name in "abcdef":
        fleet.node(name)
    assert len(fleet.nodes(20, strategy="hash")) == 1
    asked = [{"strategy": "hash", "key": "customer", "params": {"customer": n}} for n in range(40)]
    first = [fleet.route(**each).node for each in asked]  # type: ignore[union-attr]
    assert len(set(first)) == 6
    again = Fleet()  # another leader, told of the nodes in another order
    for name in "fedcba":
        again.node(name)
    assert [again.route(**each).node for each in asked] == first  # type: ignore[union-attr]
    assert key_of(fleet.envelope(key="customer", params={"customer": {"b": 1, "a": 2}})) == '{"a": 2, "b": 1}'
    assert key_of(fleet.envelope(key="customer", params={})) == JOB


def test_a_strategy_of_a_newer_centre_is_taken_in_turn() -> None:
    fleet = Fleet()
    fleet.node("a")
    fleet.node("b")
    assert fleet.nodes(10, strategy="by_moon") == {"a": 5, "b": 5}
    assert set(fleet.nodes(60, strategy="random")) == {"a", "b"}


def test_a_shared_queue_is_for_those_that_take_from_it() -> None:
    fleet = Fleet()
    assert fleet.route(strategy="any") is None
    assert fleet.router.explain(fleet.envelope(strategy="any")) == "no node is alive"
    fleet.node("deaf")
    fleet.node("tame", kinds=["http"], queues=["any"])
    said = fleet.router.explain(fleet.envelope(strategy="any"))
    assert said == "does not take from the queue any: deaf; does not run shell jobs: tame"
    fleet.node("one", queues=["any", "reports"])
    found = fleet.route(strategy="any", avoid=("one",), labels={"zone": "a"})
    assert found is not None and (found.node, found.queue, found.incarnation) == ("", "run.@any.shell", "")
    assert Grounds.read(found.why).why == "the only node that takes from the shared queue any"
    for name in ("two", "cordoned", "drained", "light"):
        fleet.node(name, queues=["any"])
    fleet.control("cordoned", cordoned=True)
    fleet.control("drained", drain=True)
    fleet.control("light", weight=0)
    said = Grounds.read(fleet.route(strategy="any").why)  # type: ignore[union-attr]
    assert (said.why, said.strategy) == ("the first of 2 nodes to take it from the shared queue any", "any")
    assert dict(said.passed)["cordoned"] == ("cordoned",) and dict(said.passed)["weight 0"] == ("light",)
    assert fleet.route(strategy="any", shared="reports").queue == "run.@reports.shell"  # type: ignore[union-attr]
    assert fleet.route(strategy="any", shared="else") is None
    assert fleet.router.takers("any", "http") == 1 and fleet.router.takers("reports", "shell") == 1


def test_work_from_a_shared_queue_counts_for_the_node_that_holds_it() -> None:
    fleet = Fleet()
    for name in ("a", "b"):
        fleet.node(name, queues=["any"])
    place = ids.place(0, 1, f"{JOB}.1.m1")
    message, claim = KEYS.message("run.@any.shell", place), KEYS.claim("run.@any.shell", place)
    fleet.put(message, b"{}")
    assert fleet.book.load.of("run.a") == fleet.book.load.of("run.b") == 0
    fleet.put(claim, Claim("i-a", node="a").encode())
    assert fleet.book.load.of("run.a") == 1
    assert fleet.route(strategy="least_busy").node == "b"  # type: ignore[union-attr]
    fleet.put(claim, Claim("", node="a").encode())
    assert fleet.book.load.of("run.a") == 0, "given back"
    fleet.put(claim, Claim("i-b", node="b").encode())
    fleet.put(message, b"{ }")
    fleet.now += PROMISE + 1
    fleet.book.load.expire(fleet.now)
    assert fleet.book.load.of("run.b") == 1, "sealed again, still one"
    fleet.drop(claim)
    fleet.drop(message)
    assert fleet.book.load.of("run.a") == fleet.book.load.of("run.b") == 0


def test_a_node_that_calls_itself_a_shared_queue_is_none() -> None:
    fleet = Fleet()
    fleet.node("@any.shell")
    assert not fleet.book.nodes and fleet.route() is None


def test_a_retry_elsewhere_says_who_failed() -> None:
    fleet = Fleet()
    for name in "abc":
        fleet.node(name)
    for strategy in ("weighted", "least_busy", "random", "hash"):
        found = fleet.route(strategy=strategy, avoid=("a", "b"))
        assert found is not None and found.node == "c"
        said = Grounds.read(found.why)
        assert dict(said.passed) == {"failed this run before": ("a", "b")} and "2 avoided" in said.why


def test_turns_of_nodes_that_never_come_back_are_forgotten() -> None:
    fleet = Fleet()
    for n in range(1200):
        fleet.node(f"pod-{n}")
        fleet.route(node=f"pod-{n}")
        fleet.drop(KEYS.node(f"pod-{n}"))
    assert len(fleet.router._wheel) < 1100


@pytest.mark.parametrize(
    "needs", [{"delivery": "at_most_once"}, {"on_node_loss": "hold"}, {"on_cut": "stop"}, {"deadline": 60.0}]
)
def test_a_node_that_takes_no_permits_gets_no_work_that_needs_one(needs: dict[str, Any]) -> None:
    fleet = Fleet()
    fleet.node("old", can=[])
    assert fleet.route(**needs) is None
    assert fleet.router.explain(fleet.envelope(**needs)) == "takes no start permits (upgrade it): old"
    assert fleet.route().node == "old"  # type: ignore[union-attr]
    fleet.node("new")
    for _ in range(3):
        route = fleet.route(**needs)
        assert route is not None and route.node == "new" and "takes no start permits (upgrade it): old" in route.why
