"""Signs of life through a web that remembers: what is out of date writes nothing, and nobody is told a lie by it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from crony.domain.callback import Report, Token
from crony.errors import NotFound, Unavailable
from crony.etcd.batch import Batcher
from crony.lifecycle.complete import Told, complete
from crony.lifecycle.heartbeat import Sign, heartbeat
from crony.lifecycle.standing import NotTheirs
from crony.web import beats as gathering
from crony.web.beats import Beats
from crony.web.wiring import Web
from tests.helpers.callee import Callee

RUNNING = Told("running")


@pytest.fixture
def beats(web: Web) -> Iterator[Beats]:
    made = Beats(web.client, web.keys, web.hiding)
    yield made
    made.close()


def hear(beats: Beats, callee: Callee, sign: Sign = Sign(), token: Token | None = None, attempt: int = 0) -> Told:
    attempt = attempt or callee.attempt
    return asyncio.run(beats.hear(callee.run, attempt, token or callee.token, sign, archive=lambda: None))


def counted(web: Web, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The transactions that go to etcd from now on."""
    sent: list[Any] = []
    real = web.client.txn
    monkeypatch.setattr(web.client, "txn", lambda txn, **options: (sent.append(txn), real(txn, **options))[1])
    return sent


def test_who_is_remembered_costs_one_transaction_and_all_is_stored(
    web: Web, beats: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    callee = Callee(web.client, web.keys).waiting()
    sent = counted(web, monkeypatch)
    assert hear(beats, callee, Sign(40, "4 of 10")) == RUNNING and len(sent) == 2
    for percent in (50, 60, None):
        before = callee.beat()
        assert hear(beats, callee, Sign(percent)) == RUNNING
        beat = callee.beat()
        assert before is not None and beat is not None and beat.at != before.at, "it is stored when it is answered"
        assert (beat.percent, beat.message) == (percent or 60, "4 of 10")
    assert len(sent) == 5


def test_many_at_a_time_travel_together(web: Web, beats: Beats, monkeypatch: pytest.MonkeyPatch) -> None:
    callees = [Callee(web.client, web.keys).waiting() for _ in range(30)]
    for callee in callees:
        hear(beats, callee)
    sent, before = counted(web, monkeypatch), [callee.beat() for callee in callees]

    async def all_of_them() -> list[Told]:
        said = [beats.hear(each.run, 1, each.token, Sign(), archive=lambda: None) for each in callees * 2]
        return list(await asyncio.gather(*said))

    assert set(asyncio.run(all_of_them())) == {RUNNING}
    assert all(callee.beat() != last for callee, last in zip(callees, before, strict=True))
    together = [txn for txn in sent if txn._nested]
    assert together and len(sent) < 2 * len(callees), "each by itself would have been twice as many, two at a time more"


def test_what_somebody_else_did_is_neither_undone_nor_denied(web: Web, beats: Beats) -> None:
    callee = Callee(web.client, web.keys, retries=1).waiting()
    hear(beats, callee, Sign(10, "one"))
    heartbeat(web.client, web.keys, callee.run, 1, callee.token, Sign(20, "two"))  # through another web
    assert hear(beats, callee) == RUNNING
    beat = callee.beat()
    assert beat is not None and (beat.percent, beat.message) == (20, "two")
    complete(web.client, web.keys, callee.run, 1, callee.token, Report(False, reason="x"))
    for _ in range(2):
        assert hear(beats, callee, Sign(99)) == Told("ended", "failed")
        assert callee.places() == {"wait"}, "no sign of life comes after the end"
    web.client.delete(web.keys.run_wait(callee.run))
    second = Callee(web.client, web.keys, attempt=2, run=callee.run, node="n2").waiting()
    assert hear(beats, second) == RUNNING
    assert hear(beats, callee) == Told("ended", "failed"), "the first one is not taken for the second"
    assert hear(beats, second) == RUNNING


def test_being_remembered_gives_nobody_a_right(web: Web, beats: Beats, monkeypatch: pytest.MonkeyPatch) -> None:
    callee, other = Callee(web.client, web.keys, deadline=60).waiting(), Callee(web.client, web.keys).waiting()
    for each in (callee, other):
        assert hear(beats, each) == RUNNING
    before, genuine = web.client.list(web.keys.run).kvs, callee.token
    for token in (other.token, replace(genuine, secret=other.token.secret), replace(genuine, fence=genuine.fence - 1)):
        with pytest.raises(NotTheirs):
            hear(beats, callee, token=token)
    with pytest.raises(NotFound):
        hear(beats, callee, attempt=2)
    now = web.client.now
    monkeypatch.setattr(web.client, "now", lambda: now() + 119)
    assert hear(beats, callee) == RUNNING, "a minute after the deadline it may still speak"
    stored = web.client.list(web.keys.run).kvs
    monkeypatch.setattr(web.client, "now", lambda: now() + 121)
    with pytest.raises(NotTheirs):
        hear(beats, callee)
    assert web.client.list(web.keys.run).kvs == stored and len(stored) == len(before)


def test_with_etcd_away_nobody_is_told_that_he_was_heard(
    web: Web, beats: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    callee = Callee(web.client, web.keys).waiting()
    hear(beats, callee, Sign(10))
    last = callee.beat()

    def away(*_: Any, **__: Any) -> Any:
        raise Unavailable("etcd is away")

    with monkeypatch.context() as patched:
        patched.setattr(web.client, "txn", away)
        for _ in range(2):
            with pytest.raises(Unavailable):
                hear(beats, callee, Sign(20))
    assert callee.beat() == last
    assert hear(beats, callee, Sign(30)) == RUNNING
    closed = Beats(web.client, web.keys, web.hiding)
    hear(closed, callee)
    closed.close()
    with pytest.raises(Unavailable):
        hear(closed, callee)


def test_no_more_than_so_many_are_remembered(web: Web, beats: Beats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "REMEMBERED", 3)
    callees = [Callee(web.client, web.keys, more={"params": {"x": "y" * 5000}}).waiting() for _ in range(5)]
    for callee in callees * 2:
        assert hear(beats, callee) == RUNNING
    assert set(beats._known) == {callee.run for callee in callees[-3:]}
    assert not any(waits.record.envelope for waits in beats._known.values()), "an envelope may be large"
    assert isinstance(beats._batcher, Batcher)
