"""Each of the leader's transactions: it happens as built, and not at all when anything it rests on has changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from crony.domain import ids
from crony.domain.alert import node_lost
from crony.domain.backfill import Backfill
from crony.domain.gathering import Gathering
from crony.domain.join import Join
from crony.domain.outcome import Outcome
from crony.domain.run import Done, Envelope, Request, Wait
from crony.domain.shards import Part
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.txn import create
from crony.lifecycle import split
from crony.lifecycle.admit import admit, set_aside
from crony.lifecycle.alert import LastLeader, sent, take_the_lead, tell
from crony.lifecycle.archive import archive
from crony.lifecycle.backfill import advance
from crony.lifecycle.backfill import forget as forget_backfill
from crony.lifecycle.cancel import cancel, drop, order
from crony.lifecycle.expire import expire
from crony.lifecycle.fire import fire
from crony.lifecycle.move import Dispatch, Entangled, Lead, Move, transaction
from crony.lifecycle.note import forget, note, pass_over
from crony.lifecycle.release import finish, park, release
from crony.lifecycle.reroute import renew, reroute
from crony.lifecycle.settle import Position, give_up, settle
from crony.lifecycle.takeover import takeover

JOB = "j" + "1" * 20
RUN = f"{JOB}.1.1700000000"
OTHER = f"{JOB}.1.1700000060"
PLACE = ids.place(0, 1, RUN)
ALERT = node_lost("i1", "n", 1.0)


@dataclass
class World:
    """What the moves below rest on, in etcd."""

    client: Client
    keys: Keys

    def __post_init__(self) -> None:
        self.at: dict[str, int] = {}
        for key in self.standing:
            self.at[key] = self.client.put(key, b"{}")
        leader = self.keys.leader(0)
        self.lead = Lead(self.keys, create(leader, self.at[leader]), self.at[self.keys.shards])
        self.control = self.at[self.keys.control]

    @property
    def standing(self) -> list[str]:
        keys = self.keys
        return [
            keys.leader(0), keys.shards, keys.control, keys.job(JOB), keys.done(JOB), keys.run_in("q"),
            keys.run_wait(RUN), keys.message("run.n", PLACE), keys.claim("run.n", PLACE), keys.session("alive"),
            keys.settled, keys.out(RUN, 9), keys.nodectl("n"), keys.run_in("q2"), keys.backfill("b1"),
            keys.last_leader(0), keys.alert("old"), keys.run_acc(RUN), keys.run_beat(RUN), keys.run_join(RUN),
            keys.run_wait(OTHER), keys.chains, keys.run_chain("old"),
        ]  # fmt: skip

    def send(self, move: Move) -> bool:
        return self.client.txn(transaction(self.lead, [move], control_seen=self.control)).succeeded


def dispatch() -> Dispatch:
    told = Envelope(RUN, JOB, "a", 1, 1, 1, "run.m", "alive", "schedule", {"kind": "shell"})
    return Dispatch(told, ids.place(0, 2, RUN), b"m")


def wait() -> Wait:
    return Wait(RUN, "{}", 1, "ended", 0.0)


def join(made: int = 0) -> Join:
    return Join(RUN, "{}", 3, 0.0).with_made(made)


def out(attempt: int = 1) -> Outcome:
    return Outcome(RUN, JOB, "a", 1, 1, attempt, "lost", True, "schedule", 0.0)


MOVES: dict[str, Callable[[World], Move]] = {
    "fire": lambda w: fire(
        w.keys, JOB, job_seen=w.at[w.keys.job(JOB)], done_seen=w.at[w.keys.done(JOB)], done=Done(5),
        dispatches=[dispatch()], skips=[out(0)], rest=Backfill("b9", JOB, "x", 1, "schedule", fires=[7]),
    ),
    "admit": lambda w: admit(
        w.keys, "q", request_seen=w.at[w.keys.run_in("q")], job=(JOB, w.at[w.keys.job(JOB)]), dispatches=[dispatch()]
    ),
    "advance": lambda w: advance(
        w.keys, Backfill("b1", JOB, "x", 1), seen=w.at[w.keys.backfill("b1")], job=(JOB, w.at[w.keys.job(JOB)]),
        dispatches=[dispatch()], ends={"q": w.at[w.keys.run_in("q")]}, cancels={"q9": Request("cancel", run=RUN)},
    ),
    "advance, last fire": lambda w: advance(
        w.keys, Backfill("b1", JOB, "x", 1, "schedule"), seen=w.at[w.keys.backfill("b1")],
        job=(JOB, w.at[w.keys.job(JOB)]), skips=[out(0)],
    ),
    "forget a backfill": lambda w: forget_backfill(w.keys, "b1", seen=w.at[w.keys.backfill("b1")]),
    "set aside": lambda w: set_aside(w.keys, "q", request_seen=w.at[w.keys.run_in("q")], value=b"?"),
    "release": lambda w: release(
        w.keys, RUN, wait_seen=w.at[w.keys.run_wait(RUN)], job=(JOB, w.at[w.keys.job(JOB)]),
        cancel_key=w.keys.cmd("n", RUN), dispatch=dispatch(),
    ),
    "park": lambda w: park(w.keys, wait(), wait_seen=w.at[w.keys.run_wait(RUN)]),
    "finish": lambda w: finish(w.keys, out(), wait_seen=w.at[w.keys.run_wait(RUN)]),
    "take over": lambda w: takeover(
        w.keys, "run.n", PLACE, incarnation="gone", message_seen=w.at[w.keys.message("run.n", PLACE)],
        claim_seen=w.at[w.keys.claim("run.n", PLACE)], outcome=out(), wait=None,
    ),
    "re-route, lost": lambda w: reroute(
        w.keys, "run.n", PLACE, message_seen=w.at[w.keys.message("run.n", PLACE)],
        claim_seen=w.at[w.keys.claim("run.n", PLACE)], wait=wait(), lost="gone",
    ),
    "re-route, drained": lambda w: reroute(
        w.keys, "run.n", PLACE, message_seen=w.at[w.keys.message("run.n", PLACE)],
        claim_seen=w.at[w.keys.claim("run.n", PLACE)], wait=wait(),
        told=(w.keys.nodectl("n"), w.at[w.keys.nodectl("n")]),
    ),
    "renew": lambda w: renew(
        w.keys, "run.n", PLACE, message_seen=w.at[w.keys.message("run.n", PLACE)],
        claim_seen=w.at[w.keys.claim("run.n", PLACE)], value=b"again",
    ),
    "cancel": lambda w: cancel(
        w.keys, "q", request_seen=w.at[w.keys.run_in("q")],
        records={w.keys.message("run.n", PLACE): w.at[w.keys.message("run.n", PLACE)],
                 w.keys.claim("run.n", PLACE): w.at[w.keys.claim("run.n", PLACE)]}, outcome=out(),
    ),
    "cancel, accepted": lambda w: cancel(
        w.keys, "q", request_seen=w.at[w.keys.run_in("q")], records={w.keys.run_acc(RUN): w.at[w.keys.run_acc(RUN)]},
        outcome=out(), also=[w.keys.run_beat(RUN)],
    ),
    "expire, late": lambda w: expire(
        w.keys, accepted_seen=w.at[w.keys.run_acc(RUN)], beat_seen=None, outcome=out(), wait=wait()
    ),
    "expire, silent": lambda w: expire(
        w.keys, accepted_seen=w.at[w.keys.run_acc(RUN)], beat_seen=w.at[w.keys.run_beat(RUN)], outcome=out(), wait=None
    ),
    "order": lambda w: order(
        w.keys, "q", request_seen=w.at[w.keys.run_in("q")], run=RUN, node="n",
        claim_key=w.keys.claim("run.n", PLACE), claim_seen=w.at[w.keys.claim("run.n", PLACE)], value=b"{}",
    ),
    "drop": lambda w: drop(w.keys, "q", request_seen=w.at[w.keys.run_in("q")]),
    "settle": lambda w: settle(
        w.keys, settled_seen=w.at[w.keys.settled], position=Position(5, "k"), alerts=[ALERT],
        requests={"s5.r": Request("ended", run=RUN, job=JOB)}, skips=[out(0)], chains_seen=w.at[w.keys.chains],
        gathered={"old": (w.at[w.keys.run_chain("old")], None), "new": (0, Gathering("new", JOB, "k", RUN, 1.0, 2.0))},
    ),
    "give up what does not come": lambda w: give_up(
        w.keys, "old", gathered_seen=w.at[w.keys.run_chain("old")], skip=out(0)
    ),
    "tell": lambda w: tell(w.keys, ALERT, gone="gone"),
    "tell of a wait": lambda w: tell(w.keys, ALERT, seen={w.keys.run_wait(RUN): w.at[w.keys.run_wait(RUN)]}),
    "take the lead": lambda w: take_the_lead(
        w.keys, Part(), name="two", term=9, before=LastLeader("one", 5), before_seen=w.at[w.keys.last_leader(0)], at=1.0
    ),
    "alerts sent": lambda w: sent({w.keys.alert("old"): w.at[w.keys.alert("old")]}),
    "archive": lambda w: archive({w.keys.out(RUN, 9): w.at[w.keys.out(RUN, 9)]}),
    "note": lambda w: note(
        w.keys, JOB, job_seen=w.at[w.keys.job(JOB)], done_seen=w.at[w.keys.done(JOB)], done=Done(6, held="why")
    ),
    "note an end": lambda w: note(
        w.keys, JOB, job_seen=w.at[w.keys.job(JOB)], done_seen=w.at[w.keys.done(JOB)], done=Done(6, next_at=9),
        ends={"q": w.at[w.keys.run_in("q")]},
    ),
    "pass an end over": lambda w: pass_over(
        w.keys, JOB, job_seen=w.at[w.keys.job(JOB)], done_seen=w.at[w.keys.done(JOB)],
        ends={"q": w.at[w.keys.run_in("q")]},
    ),
    "split a waiting run": lambda w: split.split(
        w.keys, Join(OTHER, "{}", 3, 0.0), wait_seen=w.at[w.keys.run_wait(OTHER)], job=(JOB, w.at[w.keys.job(JOB)])
    ),
    "make parts": lambda w: split.make(
        w.keys, join(2), join_seen=w.at[w.keys.run_join(RUN)], dispatches=[dispatch()], waits=[]
    ),
    "note ended parts": lambda w: split.amend(
        w.keys, "q", request_seen=w.at[w.keys.run_in("q")], join=join(), join_seen=w.at[w.keys.run_join(RUN)]
    ),
    "close": lambda w: split.close(
        w.keys, out(0), join_seen=w.at[w.keys.run_join(RUN)], request="q", request_seen=w.at[w.keys.run_in("q")]
    ),
    "stop parts": lambda w: split.stop_parts(
        w.keys, RUN, join_seen=w.at[w.keys.run_join(RUN)], cancels={"q8": Request("cancel", run=RUN + ".0")}
    ),
    "give up": lambda w: split.give_up(w.keys, join(), "why", join_seen=w.at[w.keys.run_join(RUN)]),
    "forget": lambda w: forget(w.keys, JOB, job_seen=w.at[w.keys.job(JOB)], done_seen=w.at[w.keys.done(JOB)]),
}  # fmt: skip

RESTS_ON = {
    "fire": {"job", "done", "session"},
    "admit": {"in", "job", "session"},
    "advance": {"backfill", "job", "in", "session"},
    "advance, last fire": {"backfill", "job"},
    "forget a backfill": {"backfill"},
    "set aside": {"in"},
    "release": {"wait", "job", "session", "cmd"},
    "park": {"wait"},
    "finish": {"wait"},
    "take over": {"m", "c", "gone"},
    "re-route, lost": {"m", "c", "gone"},
    "re-route, drained": {"m", "c", "nodectl"},
    "renew": {"m", "c"},
    "cancel": {"in", "m", "c"},
    "cancel, accepted": {"in", "acc"},
    "expire, late": {"acc"},
    "expire, silent": {"acc", "beat"},
    "order": {"in", "c"},
    "drop": {"in"},
    "settle": {"settled", "chains", "gathered"},
    "give up what does not come": {"gathered"},
    "tell": {"alert", "gone"},
    "tell of a wait": {"alert", "wait"},
    "take the lead": {"last"},
    "alerts sent": {"sent"},
    "archive": {"out"},
    "note": {"job", "done"},
    "note an end": {"job", "done", "in"},
    "pass an end over": {"job", "done", "in"},
    "split a waiting run": {"other", "job"},
    "make parts": {"join", "session"},
    "note ended parts": {"in", "join"},
    "close": {"in", "join"},
    "stop parts": {"join"},
    "give up": {"join"},
    "forget": {"job", "done"},
}


@pytest.mark.parametrize("name", MOVES)
def test_a_move_happens_only_while_nothing_it_rests_on_has_changed(client: Client, keys: Keys, name: str) -> None:
    changes: dict[str, Callable[[World], object]] = {
        "in": lambda w: client.put(keys.run_in("q"), b"2"),
        "backfill": lambda w: client.put(keys.backfill("b1"), b"2"),
        "job": lambda w: client.put(keys.job(JOB), b"2"),
        "done": lambda w: client.put(keys.done(JOB), b"2"),
        "wait": lambda w: client.put(keys.run_wait(RUN), b"2"),
        "m": lambda w: client.put(keys.message("run.n", PLACE), b"2"),
        "c": lambda w: client.delete(keys.claim("run.n", PLACE)),
        "session": lambda w: client.delete(keys.session("alive")),
        "acc": lambda w: client.delete(keys.run_acc(RUN)),
        "beat": lambda w: client.put(keys.run_beat(RUN), b"2"),
        "gone": lambda w: client.put(keys.session("gone"), b"{}"),
        "nodectl": lambda w: client.put(keys.nodectl("n"), b"2"),
        "cmd": lambda w: client.put(keys.cmd("n", RUN), b"{}"),
        "settled": lambda w: client.put(keys.settled, b"2"),
        "gathered": lambda w: client.put(keys.run_chain("old"), b"2"),
        "chains": lambda w: client.put(keys.chains, b"2"),
        "other": lambda w: client.put(keys.run_wait(OTHER), b"2"),
        "join": lambda w: client.put(keys.run_join(RUN), b"2"),
        "out": lambda w: client.put(keys.out(RUN, 9), b"2"),
        "alert": lambda w: client.put(keys.alert(ALERT.id), b"2"),
        "sent": lambda w: client.put(keys.alert("old"), b"2"),
        "last": lambda w: client.put(keys.last_leader(0), b"2"),
        "leader": lambda w: (client.delete(keys.leader(0)), client.put(keys.leader(0), b"other")),
        "shards": lambda w: client.put(keys.shards, b"2"),
        "control": lambda w: client.put(keys.control, b'{"stop": true}'),
    }
    for change in (*RESTS_ON[name], "leader", "shards", "control"):
        client.delete_prefix(keys.root)
        world = World(client, keys)
        move = MOVES[name](world)
        changes[change](world)
        before = client.list(keys.root).kvs
        assert not world.send(move), f"{name} happened although {change} had changed"
        assert client.list(keys.root).kvs == before
    client.delete_prefix(keys.root)
    world = World(client, keys)
    move = MOVES[name](world)
    assert world.send(move)
    after = {kv.key: kv.value for kv in client.list(keys.root).kvs}
    assert all(after[key] == value for key, value in move.puts.items()) and not set(move.deletes) & set(after)
    assert not move.proof or move.proof in move.puts
    assert not world.send(move) or not move.puts, "a second time it is refused"


def test_two_moves_of_one_key_do_not_share_a_transaction(client: Client, keys: Keys) -> None:
    world = World(client, keys)
    with pytest.raises(Entangled):
        transaction(world.lead, [MOVES["admit"](world), MOVES["drop"](world)])
