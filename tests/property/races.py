"""Scripted races around the life of a run, on a real etcd, by the real transactions: what is decided lands late.

Each race prepares a step from what is there, lets something else happen first, and then sends it. The intact code
refuses the late step; a build that compares less carries it out, and the judge says what that breaks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import kombu

from crony.domain import ids
from crony.domain.livejob import LiveJob
from crony.domain.outcome import Kind
from crony.domain.run import Done, Envelope, Wait, WaitReason
from crony.domain.signing import Sealer
from crony.etcd.client import Client
from crony.etcd.keys import Keys, prefix_end
from crony.etcd.txn import Txn, TxnResult, create
from crony.etcd.watch import Event, Watcher
from crony.lifecycle.admit import admit
from crony.lifecycle.archive import archive
from crony.lifecycle.end import end, outcome_of
from crony.lifecycle.fire import fire
from crony.lifecycle.move import Dispatch, Lead, Move, transaction
from crony.lifecycle.publish import publish
from crony.lifecycle.release import release
from crony.lifecycle.reroute import reroute
from crony.lifecycle.takeover import takeover
from crony.transport_etcd import claims
from crony.transport_etcd import message as wire
from crony.transport_etcd.claims import Delivery, Pick
from crony.transport_etcd.queue import Candidate
from crony.transport_etcd.settler import Settler
from tests.helpers.beat import CENTRE, Message, Stage
from tests.helpers.wait import until
from tests.property.judge import Finding
from tests.property.run_judge import RunJudge


class Board:
    """One namespace, one node, and the leader's part played by hand with the leader's own moves."""

    def __init__(self, endpoint: str, keys: Keys) -> None:
        self.stage = Stage(endpoint, keys)
        self.client, self.keys, self.endpoint = self.stage.client, keys, endpoint
        self.sealer = Sealer(CENTRE[0])
        self._events: list[Event] = []
        self._sequence = 0
        start = self.client.range(keys.root, count_only=True).revision
        self._watcher = Watcher(
            self.client,
            keys.root,
            prefix_end(keys.root),
            on_snapshot=None,
            on_events=lambda events, _: self._events.extend(events),
            from_revision=start + 1,
        ).start()
        self.client.put(keys.shards, b"{}")
        term = self.client.put(keys.leader(0), b"{}")
        self.lead = Lead(keys, create(keys.leader(0), term), self.seen(keys.shards))
        self.node = self.stage.node("n1")

    def close(self) -> None:
        """End it."""
        self._watcher.stop()
        self.stage.close()

    def findings(self) -> list[Finding]:
        """What the judge says of everything that happened."""
        marker = self.client.put(self.keys.settled, b"{}")
        until(lambda: self._watcher.revision >= marker, 20, "all of it to be seen")
        return RunJudge(self.keys).judge(self._events)

    def seen(self, key: str) -> int:
        """The revision of a key; 0: it is absent."""
        found = self.client.get(key)
        return found.mod if found else 0

    # -- the leader's steps, prepared and not sent ---------------------------------------------------------

    def step(self, move: Move) -> Txn:
        """A move as the transaction that the leader would send."""
        return transaction(self.lead, [move], control_seen=self.seen(self.keys.control))

    def envelope(self, live: LiveJob, run: str, **changes: Any) -> Envelope:
        """What the node is told to do."""
        facts = {"attempt": 1, "queue": self.node.queue, "incarnation": self.node.incarnation, "trigger": "schedule"}
        facts |= {"action": {"kind": "shell", "command": ["true"]}, "retry": {"max": 1}, **changes}
        return Envelope(run, live.id, live.name, live.generation, live.revision, **facts)

    def dispatch(self, envelope: Envelope) -> Dispatch:
        """Its message."""
        self._sequence += 1
        sealed = self.sealer.seal(envelope.payload()).decode()
        place = ids.place(0, int(time.time() * 1e6) + self._sequence, envelope.run)
        return Dispatch(envelope, place, wire.task_message("crony.run", envelope.run, [sealed], {}))

    def fire(self, live: LiveJob) -> Txn:
        """The decision of the job's next fire, from what is there now."""
        done = self.client.get(self.keys.done(live.id))
        assert done is not None
        upto = Done.read(done.value).upto_at + 60
        return self.step(
            fire(
                self.keys,
                live.id,
                job_seen=self.seen(self.keys.job(live.id)),
                done_seen=done.mod,
                done=Done(upto),
                dispatches=[self.dispatch(self.envelope(live, ids.fire_run_id(live.id, live.generation, upto)))],
            )
        )

    # -- what simply happens ---------------------------------------------------------------------------------

    def job(self) -> LiveJob:
        """A published job."""
        return self.stage.publish(schedule={"every": "1m"}, overlap="allow", retry={"max": 1})

    def fired(self, live: LiveJob | None = None) -> Message:
        """A run in the node's queue."""
        had = {message.place for message in self.node.messages()}
        assert self.client.txn(self.fire(live or self.job())).succeeded
        (message,) = [message for message in self.node.messages() if message.place not in had]
        return message

    def claimed(self, message: Message) -> Delivery:
        """The node's claim of it, by the transport's transaction."""
        held = self.client.get(self.keys.claim(message.queue, message.place))
        count = claims.Claim.read(held.value).count if held else 0
        seen = Candidate(message.place, message.seen, held.mod if held else 0, count, "", None)
        (found,) = claims.claim(self.client, self.keys, self.node.incarnation, [Pick(message.queue, seen)])
        assert found is not None
        return found

    def ended(self, message: Message, fence: int, kind: str = Kind.SUCCEEDED) -> None:
        """The end of an attempt, by whoever thinks that it holds this fence."""
        outcome = outcome_of(message.envelope, kind, ended_at=time.time(), fence=fence, node=self.node.name)
        end(self.client, self.keys, message.sealed, message.place, fence, outcome)

    def waiting(self, message: Message) -> str:
        """Its run fails once and waits for its second attempt; the run's id."""
        self.ended(message, self.claimed(message).fence, Kind.FAILED)
        return message.run


# -- the races -----------------------------------------------------------------------------------------------


def a_pause_is_saved_before_the_fire_lands(board: Board) -> None:
    live = board.job()
    late = board.fire(live)
    board.stage.edit(live, enabled=False)
    board.client.txn(late)


def a_fire_is_decided_twice(board: Board) -> None:
    live = board.job()
    first, second = board.fire(live), board.fire(live)
    board.client.txn(first)
    board.client.txn(second)


def the_node_is_lost_before_the_fire_lands(board: Board) -> None:
    late = board.fire(board.job())
    board.node.vanish()
    board.client.txn(late)


def a_request_is_admitted_twice(board: Board) -> None:
    live = board.job()
    asked = board.stage.ask(live)
    (request,) = board.stage.requests()
    envelope = board.envelope(live, asked.run, trigger="api")
    late = [
        board.step(
            admit(
                board.keys,
                request,
                request_seen=board.seen(board.keys.run_in(request)),
                job=(live.id, board.seen(board.keys.job(live.id))),
                dispatches=[board.dispatch(envelope)],
            )
        )
        for _ in range(2)
    ]
    for txn in late:
        board.client.txn(txn)


def a_waiting_run_is_released_twice(board: Board) -> None:
    live = board.job()
    message = board.fired(live)
    run = board.waiting(message)
    late = [
        board.step(
            release(
                board.keys,
                run,
                wait_seen=board.seen(board.keys.run_wait(run)),
                job=(live.id, board.seen(board.keys.job(live.id))),
                cancel_key=board.keys.cmd(board.node.name, run),
                dispatch=board.dispatch(message.envelope.next_attempt()),
            )
        )
        for _ in range(2)
    ]
    for txn in late:
        board.client.txn(txn)


def the_child_of_an_earlier_claim_ends_late(board: Board) -> None:
    message = board.fired()
    first = board.claimed(message)
    settler = Settler(board.client, board.keys)
    settler.release([first])
    assert settler.flush(10)
    settler.close(1.0)
    second = board.claimed(message)
    assert first.fence < second.fence
    board.ended(message, first.fence)


def an_end_is_repeated_after_the_archive(board: Board) -> None:
    message = board.fired()
    fence = board.claimed(message).fence
    board.ended(message, fence)
    key = board.keys.out(message.run, 1)
    assert board.client.txn(board.step(archive({key: board.seen(key)}))).succeeded
    board.ended(message, fence, Kind.CANCELLED)


def celery_acks_a_run(board: Board) -> None:
    message = board.fired()
    url = f"etcd3://{board.endpoint.partition('://')[2]}/{board.keys.namespace}"
    with kombu.Connection(url) as connection:
        got = connection.default_channel.basic_get(message.queue)
        got.ack()
        assert connection.default_channel.link.settler.flush(10)


def the_node_is_back_before_the_takeover_lands(board: Board) -> None:
    message = board.fired()
    board.claimed(message)
    board.node.vanish()
    late = _takeover(board, message)
    board.node.appear()
    board.client.txn(late)


def the_node_ends_it_before_the_takeover_lands(board: Board) -> None:
    message = board.fired()
    fence = board.claimed(message).fence
    board.node.vanish()
    late = _takeover(board, message)
    board.ended(message, fence)
    board.client.txn(late)


def the_node_claims_before_the_reroute_lands(board: Board) -> None:
    message = board.fired()
    board.stage.control(board.node.name, drain=True)
    wait = Wait(message.run, message.sealed, 0, WaitReason.REROUTE.value, time.time())
    control = board.keys.nodectl(board.node.name)
    late = board.step(
        reroute(
            board.keys,
            message.queue,
            message.place,
            message_seen=message.seen,
            claim_seen=0,
            wait=wait,
            told=(control, board.seen(control)),
        )
    )
    board.claimed(message)
    board.client.txn(late)


def a_slow_web_publishes_after_a_fast_one(board: Board) -> None:
    live = board.job()
    second = LiveJob.created(live.id, live.job.document(), revision=2, now=time.time())
    third = LiveJob.created(live.id, live.job.document(), revision=3, now=time.time())

    def overtaken() -> None:
        publish(board.client, board.keys, board.stage.web, third)

    with Slow([board.endpoint]) as slow:
        slow.first = overtaken
        publish(slow, board.keys, board.stage.web, second)


class Slow(Client):
    """A client before whose first write something else happens."""

    first: Callable[[], None] | None = None

    def txn(self, txn: Txn, **options: Any) -> TxnResult:
        """As always; but first, once, what came meanwhile."""
        if not txn.read_only and self.first is not None:
            overtaken, self.first = self.first, None
            thread = threading.Thread(target=overtaken)
            thread.start()
            thread.join()
        return super().txn(txn, **options)


def _takeover(board: Board, message: Message) -> Txn:
    key = board.keys.claim(message.queue, message.place)
    outcome = outcome_of(message.envelope, Kind.LOST, ended_at=time.time(), fence=0, node=board.node.name)
    return board.step(
        takeover(
            board.keys,
            message.queue,
            message.place,
            incarnation=board.node.incarnation,
            message_seen=message.seen,
            claim_seen=board.seen(key),
            outcome=outcome,
            wait=Wait(message.run, message.sealed, 1, WaitReason.ENDED.value, time.time(), losses=1),
        )
    )


RACES: tuple[Callable[[Board], None], ...] = (
    a_pause_is_saved_before_the_fire_lands,
    a_fire_is_decided_twice,
    the_node_is_lost_before_the_fire_lands,
    a_request_is_admitted_twice,
    a_waiting_run_is_released_twice,
    the_child_of_an_earlier_claim_ends_late,
    an_end_is_repeated_after_the_archive,
    celery_acks_a_run,
    the_node_is_back_before_the_takeover_lands,
    the_node_ends_it_before_the_takeover_lands,
    the_node_claims_before_the_reroute_lands,
    a_slow_web_publishes_after_a_fast_one,
)

__all__ = ["RACES", "Board"]
