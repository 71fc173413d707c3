"""The node's transactions on a real etcd: end, quarantine, hand back, register."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from crony.domain import ids
from crony.domain.node import NodeFacts
from crony.domain.outcome import Kind, Outcome
from crony.domain.run import Claim, Envelope, Wait
from crony.errors import Conflict
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.session import Session
from crony.lifecycle.end import Ended, Stale, end, is_final, outcome_of
from crony.lifecycle.handback import hand_back
from crony.lifecycle.quarantine import Dead, quarantine
from crony.lifecycle.register import boot_id, register
from tests.helpers.attempts import envelope
from tests.helpers.node import Leader


class Held:
    """A message with a claim on it, as after a delivery."""

    def __init__(self, client: Client, keys: Keys, **changes: Any) -> None:
        self.client, self.keys = client, keys
        self.told: Envelope = envelope({"kind": "shell", "command": ["true"]}, **changes)
        self.sealed = Leader(client, keys).sealer.seal(self.told.payload()).decode()
        self.place = ids.place(0, 1, self.told.run)
        self.message, self.claim = keys.message("run.n1", self.place), keys.claim("run.n1", self.place)
        client.put(self.message, b"message")
        self.fence = client.put(self.claim, Claim("i0", node="n1").encode())
        client.put(keys.cmd("n1", self.told.run), b"{}")

    def outcome(self, kind: str, **more: Any) -> Outcome:
        return outcome_of(self.told, kind, ended_at=5.0, fence=self.fence, node="n1", **more)

    def end(self, kind: str, fence: int = 0) -> Ended | Stale:
        return end(self.client, self.keys, self.sealed, self.place, fence or self.fence, self.outcome(kind))

    def left(self) -> set[str]:
        """What is left of it, by name."""
        named = {
            "message": self.message,
            "claim": self.claim,
            "cmd": self.keys.cmd("n1", self.told.run),
            "out": self.keys.out(self.told.run, self.told.attempt),
            "wait": self.keys.run_wait(self.told.run),
        }
        return {name for name, key in named.items() if self.client.get(key) is not None}


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("attempt", [1, 2])
def test_what_an_end_leaves(client: Client, keys: Keys, kind: Kind, attempt: int) -> None:
    held = Held(client, keys, attempt=attempt, retry={"max": 1})
    assert isinstance(held.end(kind), Ended)
    again = kind in (Kind.FAILED, Kind.TIMED_OUT, Kind.REFUSED, Kind.LOST, Kind.UNKNOWN) and attempt == 1
    assert held.left() == ({"out", "wait", "cmd"} if again else {"out"})
    assert is_final(held.told, kind) is not again


def test_the_parked_envelope(client: Client, keys: Keys) -> None:
    held = Held(client, keys, retry={"max": 1, "elsewhere": True}, avoid=["n0"], losses=1)
    held.end("lost")
    wait = Wait.read(client.get(keys.run_wait(held.told.run)).value)  # type: ignore[union-attr]
    assert (wait.envelope, wait.finished, wait.losses) == (held.sealed, 1, 2)
    assert (wait.avoid, wait.outcome) == (["n0", "n1"], "lost")


def test_an_end_repeated_is_the_same_end(client: Client, keys: Keys) -> None:
    held = Held(client, keys)
    assert held.end("succeeded") == held.end("succeeded")
    later = held.end("failed")
    assert isinstance(later, Ended) and later.outcome.kind == "succeeded", "the first outcome wins"


def test_an_end_with_another_fence_is_stale_and_writes_nothing(client: Client, keys: Keys) -> None:
    held = Held(client, keys)
    assert held.end("succeeded", fence=held.fence - 1) == Stale(None)
    assert held.left() == {"message", "claim", "cmd"}
    client.put(held.claim, Claim("i9").encode())
    assert held.end("succeeded") == Stale(None)
    client.delete(held.claim)
    assert held.end("succeeded") == Stale(None), "no end rests on an absence"


def test_a_taken_over_attempt_tells_what_stands(client: Client, keys: Keys) -> None:
    held = Held(client, keys)
    client.delete(held.claim)
    lost = outcome_of(held.told, "lost", ended_at=4.0, fence=0)
    client.put(keys.out(held.told.run, 1), lost.encode())
    assert held.end("succeeded") == Stale(lost)


def test_quarantine(client: Client, keys: Keys) -> None:
    held = Held(client, keys)
    client.put(held.message, b"\xffbad")
    assert not quarantine(client, keys, "run.n1", held.place, held.fence - 1, "why")
    assert held.left() == {"message", "claim", "cmd"}
    assert quarantine(client, keys, "run.n1", held.place, held.fence, "why", node="n1", at=1.0)
    assert not quarantine(client, keys, "run.n1", held.place, held.fence, "why")
    dead = Dead.read(client.get(keys.dead("run.n1", held.place)).value)  # type: ignore[union-attr]
    assert (dead.reason, dead.message, dead.node) == ("why", "\\xffbad", "n1")
    assert held.left() == {"cmd"}


def test_hand_back(client: Client, keys: Keys) -> None:
    held = Held(client, keys, attempt=3, deliveries=2)
    give = (client, keys, held.told, held.sealed, held.place)
    assert not hand_back(*give, held.fence + 1, at=1.0, detail="why", node="n1")
    assert hand_back(*give, held.fence, at=1.0, detail="why", node="n1")
    assert held.left() == {"wait", "cmd"}
    wait = Wait.read(client.get(keys.run_wait(held.told.run)).value)  # type: ignore[union-attr]
    assert (wait.reason, wait.finished, wait.deliveries, wait.envelope) == ("reroute", 2, 2, held.sealed)
    assert wait.node == "n1"


@pytest.fixture
def session(client: Client, keys: Keys) -> Iterator[Session]:
    session = Session(client, keys, ttl=10)
    assert session.start()
    yield session
    session.close()


def facts(incarnation: str, **changes: Any) -> NodeFacts:
    told: dict[str, Any] = {
        "name": "n1", "incarnation": incarnation, "queue": "run.n1", "hostname": "here", "pid": 1,
        "boot_id": "another machine", "version": "1", "capacity": 1,
    }  # fmt: skip
    return NodeFacts(**{**told, **changes})


def test_register_and_again(client: Client, keys: Keys, session: Session) -> None:
    for _ in range(2):
        register(client, keys, session, facts(session.incarnation), patience=0)
    found = client.get(keys.node("n1"))
    assert found is not None and found.lease == session.lease


@pytest.mark.parametrize("alive", [True, False])
def test_another_session(client: Client, keys: Keys, session: Session, alive: bool) -> None:
    client.put(keys.node("n1"), facts("iother").encode())
    if alive:
        client.put(keys.session("iother"), b"{}")
        with pytest.raises(Conflict, match="already running"):
            register(client, keys, session, facts(session.incarnation), patience=0)
        assert NodeFacts.read(client.get(keys.node("n1")).value).incarnation == "iother"  # type: ignore[union-attr]
    else:
        register(client, keys, session, facts(session.incarnation), patience=0)


def test_a_dead_process_of_this_machine_is_replaced_at_once(client: Client, keys: Keys, session: Session) -> None:
    pid = os.spawnlp(os.P_NOWAIT, "true", "true")
    os.waitpid(pid, 0)
    lease = client.grant(60)
    dead = facts("idead", boot_id=boot_id(), pid=pid)
    client.put(keys.session("idead"), b"{}", lease=lease)
    client.put(keys.node("n1"), dead.encode(), lease=lease)
    waits: list[float] = []
    register(client, keys, session, facts(session.incarnation), patience=5, wait=waits.append)
    assert len(waits) <= 1
    assert client.get(keys.session("idead")) is None


def test_a_living_process_of_this_machine_is_not(client: Client, keys: Keys, session: Session) -> None:
    client.put(keys.session("iother"), b"{}")
    client.put(keys.node("n1"), facts("iother", boot_id=boot_id(), pid=os.getppid()).encode())
    with pytest.raises(Conflict):
        register(client, keys, session, facts(session.incarnation), patience=0)


def test_waiting_for_a_name_can_be_given_up(client: Client, keys: Keys, session: Session) -> None:
    client.put(keys.session("iother"), b"{}")
    client.put(keys.node("n1"), facts("iother").encode())

    def stop(seconds: float) -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        register(client, keys, session, facts(session.incarnation), patience=60, wait=stop)
