"""Transactions 11 and 12 on a real etcd: who ends an asynchronous attempt, and what everybody else is told."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from crony.domain.callback import Report, Token
from crony.domain.outcome import Kind
from crony.errors import NotFound
from crony.etcd.client import Client
from crony.etcd.errors import EtcdUnknown
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn
from crony.lifecycle import accept as accepting
from crony.lifecycle import complete as completing
from crony.lifecycle import heartbeat as beating
from crony.lifecycle.accept import CancelOrdered, Waiting
from crony.lifecycle.complete import Contradicted, Told, complete
from crony.lifecycle.end import Ended, Stale, end, outcome_of
from crony.lifecycle.heartbeat import Sign, heartbeat
from crony.lifecycle.standing import InCall, NotTheirs, Over, Waits, find
from tests.helpers.callee import Callee
from tests.helpers.etcd import EtcdServer

GOOD = Report(True, result={"rows": 3})
BAD = Report(False, reason="no\nspace \x1b[31mleft", code=28)


def done(callee: Callee, report: Report = GOOD, **options: object) -> Told:
    return complete(callee.client, callee.keys, callee.run, callee.attempt, callee.token, report, **options)  # type: ignore[arg-type]


def test_an_accepted_run_is_in_one_place_and_its_completion_ends_it_once(client: Client, keys: Keys) -> None:
    callee = Callee(client, keys).call()
    assert callee.places() == {"m", "c"}
    assert callee.accept() == Waiting() and callee.places() == {"acc"}
    assert callee.accept() == Waiting(), "an acceptance whose answer was lost is repeated"
    assert heartbeat(client, keys, callee.run, 1, callee.token) == Told("running")
    assert callee.places() == {"acc", "beat"}
    assert done(callee) == Told("ended", "succeeded")
    assert callee.places() == set()
    out = callee.outcome()
    assert (
        out is not None and out.final and (out.kind, out.result, out.fence) == ("succeeded", {"rows": 3}, callee.fence)
    )
    assert done(callee) == Told("ended", "succeeded"), "word for word the same: the same answer"
    for other in (replace(GOOD, result={"rows": 4}), BAD):
        with pytest.raises(Contradicted) as caught:
            done(callee, other)
        assert caught.value.members == {"outcome": "succeeded", "attempt": 1}
    assert callee.outcome() == out, "the first one stands"


def test_a_completion_that_overtakes_the_acceptance_ends_the_attempt(client: Client, keys: Keys) -> None:
    callee = Callee(client, keys).call()
    assert heartbeat(client, keys, callee.run, 1, callee.token, Sign(percent=5)) == Told("running")
    assert callee.places() == {"m", "c"}, "nobody counts silence yet, and nothing is kept"
    assert done(callee) == Told("ended", "succeeded") and callee.places() == set()
    late = callee.accept()
    assert isinstance(late, Stale) and late.found is not None and late.found.kind == "succeeded" and late.found.report
    outcome = outcome_of(callee.told, Kind.FAILED, ended_at=1.0, fence=callee.fence)
    assert not isinstance(end(client, keys, callee.sealed, callee.place, callee.fence, outcome), Stale)
    assert callee.outcome() == late.found and callee.places() == set()


def test_the_report_of_a_service_that_answered_as_usual_is_told_so(client: Client, keys: Keys) -> None:
    callee = Callee(client, keys).call()
    outcome = outcome_of(
        callee.told, Kind.FAILED, ended_at=1.0, fence=callee.fence, secret=callee.record.secret, reason="answered 500"
    )
    assert isinstance(end(client, keys, callee.sealed, callee.place, callee.fence, outcome), Ended)
    with pytest.raises(Contradicted) as caught:
        done(callee)
    assert caught.value.members == {"outcome": "failed", "attempt": 1}
    assert heartbeat(client, keys, callee.run, 1, callee.token) == Told("ended", "failed", cancel=True)


def test_a_failure_is_parked_for_the_leader_unless_it_is_final(client: Client, keys: Keys) -> None:
    callee = Callee(client, keys, retries=2).waiting()
    assert done(callee, BAD) == Told("ended", "failed")
    out, wait = callee.outcome(), callee.wait()
    assert out is not None and wait is not None
    assert (out.final, out.code, out.reason) == (False, 28, "no space [31mleft"), "one line that moves no cursor"
    assert (wait.reason, wait.finished, wait.outcome, wait.envelope) == ("ended", 1, "failed", callee.sealed)
    assert callee.places() == {"wait"} and done(callee, BAD) == Told("ended", "failed")
    final = Callee(client, keys, retries=2).waiting()
    assert done(final, replace(BAD, final=True)) == Told("ended", "failed")
    assert final.places() == set() and final.outcome().final  # type: ignore[union-attr]
    early = Callee(client, keys, retries=2).call()
    done(early, BAD)
    assert early.places() == {"wait"}


def test_a_stale_attempt_is_told_which_one_is_under_way(client: Client, keys: Keys) -> None:
    first = Callee(client, keys, retries=2).waiting()
    done(first, BAD)
    client.delete(keys.run_wait(first.run))
    second = Callee(client, keys, attempt=2, retries=2, run=first.run, node="n2").call()
    for _ in range(2):
        with pytest.raises(Contradicted) as caught:
            done(first)
        assert caught.value.members == {"outcome": "failed", "attempt": 2}
        assert heartbeat(client, keys, first.run, 1, first.token) == Told("ended", "failed")
        second.accept()
    with pytest.raises(NotTheirs):
        complete(client, keys, first.run, 2, first.token, GOOD)
    assert second.places() == {"acc"} and second.outcome() is None


def test_what_ended_long_ago_is_known_to_the_archive(client: Client, keys: Keys) -> None:
    callee = Callee(client, keys).waiting()
    done(callee)
    out = callee.outcome()
    assert out is not None
    client.delete(keys.out(callee.run, 1))
    with pytest.raises(NotFound):
        done(callee)
    kept = lambda: Over(out.kind, out.secret, out.report)  # noqa: E731
    assert done(callee, archive=kept) == Told("ended", "succeeded")
    with pytest.raises(Contradicted):
        done(callee, BAD, archive=kept)
    assert callee.places() == set() and callee.outcome() is None, "nothing comes back to life (A1)"


@pytest.mark.parametrize("state", ["in call", "accepted", "ended"])
def test_only_the_token_of_the_attempt_speaks_for_it(client: Client, keys: Keys, state: str) -> None:
    callee, other = Callee(client, keys).call(), Callee(client, keys).waiting()
    if state != "in call":
        callee.accept()
    if state == "ended":
        done(callee)
    token, before = callee.token, client.list(keys.run).kvs
    wrong = [
        replace(token, secret=other.token.secret), replace(token, secret=callee.record.secret[:43]), other.token,
        replace(token, queue="run.other"), replace(token, place="0" + token.place[1:]),
        Token(token.queue, other.place, token.fence, token.secret),
    ]  # fmt: skip
    if state != "ended":
        wrong.append(replace(token, fence=token.fence - 1))
    for each in wrong:
        for attempt in (1, 2):
            with pytest.raises((NotTheirs, NotFound)) as caught:
                complete(client, keys, callee.run, attempt, each, GOOD)
            assert callee.token.secret not in str(caught.value)
            with pytest.raises((NotTheirs, NotFound)):
                heartbeat(client, keys, callee.run, attempt, each)
    assert client.list(keys.run).kvs == before


def test_a_token_ends_a_minute_after_the_deadline(client: Client, keys: Keys) -> None:
    late, over = Callee(client, keys, deadline=-50).waiting(), Callee(client, keys, deadline=-70).waiting()
    assert done(late) == Told("ended", "succeeded"), "nobody has noticed yet: the work counts"
    with pytest.raises(NotTheirs):
        done(over)
    assert over.places() == {"acc"}


def test_an_acceptance_finds_the_cancel_that_was_ordered(client: Client, keys: Keys) -> None:
    callee = Callee(client, keys).call()
    client.put(keys.cmd(callee.node, callee.run), b"{}")
    assert heartbeat(client, keys, callee.run, 1, callee.token) == Told("running", cancel=True)
    assert callee.accept() == CancelOrdered() and callee.places() == {"m", "c"}
    assert done(callee) == Told("ended", "succeeded")
    assert client.get(keys.cmd(callee.node, callee.run)) is None, "the order goes with the run"


def test_nothing_is_written_once_the_record_has_changed(client: Client, keys: Keys) -> None:
    """Each transaction is built from what was found, then the world changes, then it is sent."""

    def change(what: str, callee: Callee) -> None:
        if what == "ended":
            client.delete(keys.run_acc(callee.run))
        elif what == "another attempt":
            client.put(keys.run_acc(callee.run), replace(callee.record, attempt=2).encode())
        elif what == "beat":
            client.put(keys.run_beat(callee.run), b"{}")
        elif what == "claim":
            client.put(keys.claim(callee.queue, callee.place), b"{}")
        elif what == "cancel":
            client.put(keys.cmd(callee.node, callee.run), b"{}")

    def built(what: str, callee: Callee) -> Txn:
        found = find(client, keys, callee.run, 1, callee.token)
        assert isinstance(found, InCall if what in ("accept", "early") else Waits)
        if what == "accept":
            return accepting.transaction(keys, callee.told, callee.place, callee.record)
        if what == "beat":
            assert isinstance(found, Waits)
            return beating.transaction(keys, callee.run, found, beating.Beat(1.0))
        outcome = completing._outcome(found, callee.token, BAD, BAD, 1.0)  # type: ignore[arg-type]
        return completing.transaction(keys, callee.token, found, outcome)  # type: ignore[arg-type]

    cases = [
        ("accept", "claim"), ("accept", "cancel"), ("early", "claim"), ("complete", "ended"),
        ("complete", "another attempt"), ("beat", "ended"), ("beat", "another attempt"), ("beat", "beat"),
    ]  # fmt: skip
    for what, event in cases:
        callee = Callee(client, keys, retries=1).call()
        if what not in ("accept", "early"):
            callee.accept()
        txn = built(what, callee)
        change(event, callee)
        before = client.list(keys.run).kvs
        assert not client.txn(txn).succeeded, f"{what} went through although: {event}"
        assert client.list(keys.run).kvs == before


class Forgetful(Client):
    """Every write of this client is carried out, and the answers to the first few are lost."""

    lost = 1

    def txn(self, txn: Txn, **options: object):  # type: ignore[no-untyped-def,override]
        """As of the client."""
        found = super().txn(txn)
        if not txn.read_only and self.lost:
            self.lost -= 1
            raise EtcdUnknown("the answer was lost")
        return found


def test_a_lost_answer_is_cleared_up(etcd: EtcdServer, client: Client, keys: Keys) -> None:
    with Forgetful([etcd.endpoint]) as forgetful:
        callee = Callee(client, keys).waiting()
        assert complete(forgetful, keys, callee.run, 1, callee.token, GOOD) == Told("ended", "succeeded")
        assert forgetful.lost == 0 and callee.places() == set()


def test_of_many_at_the_same_moment_one_ends_it_and_all_are_told_the_same(client: Client, keys: Keys) -> None:
    for early in (False, True) * 4:
        callee = Callee(client, keys, retries=1)
        callee.call() if early else callee.waiting()
        told: list[str] = []
        start = threading.Barrier(12)

        def speak(
            number: int, callee: Callee = callee, told: list[str] = told, start: threading.Barrier = start
        ) -> None:
            start.wait()
            try:
                if number % 4 == 0:
                    callee.accept()
                elif number % 4 == 1:
                    heartbeat(client, keys, callee.run, 1, callee.token, Sign(percent=number))
                else:
                    done(callee, GOOD if number % 2 else BAD)
                    told.append("good" if number % 2 else "bad")
            except Contradicted as error:
                told.append(f"not {'good' if number % 2 else 'bad'}: {error.outcome}")

        threads = [threading.Thread(target=speak, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        out = callee.outcome()
        assert out is not None
        won = "good" if out.kind == "succeeded" else "bad"
        lost = "not bad: succeeded" if won == "good" else "not good: failed"
        assert sorted(told) == sorted([won] * 3 + [lost] * 3)
        assert callee.places() == ({"wait"} if won == "bad" else set())
