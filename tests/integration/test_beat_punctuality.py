"""Late runs, missed fires, runs that take too long: told as their job says, once, by any leader, without a database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from crony.beat.duties import leftovers, punctuality, sending
from crony.clock import SYSTEM
from crony.domain.alert import Alert
from crony.domain.livejob import LiveJob
from crony.domain.outcome import Kind, SkipReason
from crony.domain.run import Beat
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, mod
from crony.lifecycle.alert import forget, tell_of
from tests.helpers.beat import Message, Stage, settled, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.feishu import SECRET, Bot, texts
from tests.helpers.feishu import feishu as bot_server
from tests.helpers.wait import until

PATIENCE = 30.0


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "EVERY", 0.1)
    monkeypatch.setattr(punctuality, "EVERY", 0.1)


@pytest.fixture
def place(etcd: EtcdServer, keys: Keys) -> Iterator[Stage]:
    with stage(etcd.endpoint, keys) as made:  # without a database all the way
        yield made


@pytest.fixture
def bot(place: Stage) -> Iterator[Bot]:
    with bot_server() as running:
        place.channel({"name": "ops", "kind": "feishu", "url": running.url, "secret": SECRET})
        yield running


def due(place: Stage, ago: int, *, times: int = 1, **fields: Any) -> LiveJob:
    """A job that was due so many seconds ago, and is not decided."""
    now = int(SYSTEM.wall())
    at = [{"at": datetime.fromtimestamp(now - ago + n, UTC).isoformat()} for n in range(times)]
    fields = {"misfire": {"after": "1d"}, **fields}
    return place.publish(schedule=at, done=now - ago - 10, **fields)


def asks(*on: str, **limits: str) -> list[dict[str, Any]]:
    return [{"on": list(on), "to": ["ops"], **limits}]


def kinds(place: Stage) -> dict[str, int]:
    """Alerts that lie in etcd, where they stay without a database."""
    found: dict[str, int] = {}
    for kv in place.client.list(place.keys.alert("")).kvs:
        kind = Alert.read(kv.value).kind
        found[kind] = found.get(kind, 0) + 1
    return found


def forget_the_alerts(place: Stage) -> None:
    """As when they were delivered: whoever tells of the same again would tell people again."""
    until(lambda: not place.client.count(place.keys.notice("")), PATIENCE, "the notices to go")
    place.client.delete_prefix(place.keys.alert(""))


def end(place: Stage, node: Any, message: Message, kind: str = Kind.SUCCEEDED, **facts: Any) -> None:
    node.end(message, node.claim(message), kind, started_at=SYSTEM.wall(), **facts)


def test_a_run_that_has_not_begun_in_time_is_told_once_by_any_leader_and_not_again_at_its_end(
    place: Stage, bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "EVERY", 0.2)
    first = place.lead()
    job = due(place, 40, alerts=asks("late", later_than="30s"), retry={"max": 1, "delay": "0s", "jitter": False})
    due(place, 40, alerts=asks("late", later_than="5m"))
    due(place, 40, alerts=asks("failed"))
    place.ask(place.publish(alerts=asks("late", later_than="5s")))  # by hand: no instant to be late for
    until(lambda: bot.titles, PATIENCE, "the card")
    assert bot.titles == [f"A run of {job.name} is late"] and "has not begun 4" in texts(bot.cards[0])
    forget_the_alerts(place)
    first.stop()
    node = place.node("n1")
    place.lead(centre="two")
    for kind in (Kind.FAILED, Kind.SUCCEEDED):
        until(lambda: [each for each in node.messages() if each.envelope.job == job.id], PATIENCE, "an attempt")
        (message,) = (each for each in node.messages() if each.envelope.job == job.id)
        assert message.envelope.late == 30.0
        end(place, node, message, kind)
    until(lambda: not place.client.count(f"{place.keys.root}run/told/"), PATIENCE, "the mark to go with the run")
    settled(lambda: len(bot.titles))
    assert bot.titles == [f"A run of {job.name} is late"] and "late" not in kinds(place)


def test_a_late_run_that_nobody_saw_alive_is_told_by_its_outcome(
    place: Stage, bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(punctuality, "EVERY", 3600.0)
    node = place.node("n1")
    place.lead()
    until(lambda: place.centres[0].centre.leader and place.centres[0].centre.leader.ready, PATIENCE, "the leader")
    settled(lambda: 0)  # its first look is over
    job = due(place, 40, alerts=asks("late", later_than="30s"), retry={"max": 1, "delay": "0s", "jitter": False})
    for kind in (Kind.FAILED, Kind.SUCCEEDED):
        until(node.messages, PATIENCE, "an attempt")
        (message,) = node.messages()
        end(place, node, message, kind)
    until(lambda: bot.titles, PATIENCE, "the card")
    assert "and began 4" in texts(bot.cards[0])
    settled(lambda: len(bot.titles))
    assert bot.titles == [f"A run of {job.name} is late"], "its second attempt is not late once more"


def test_a_run_that_takes_too_long_is_told_while_it_runs_and_once_for_all_its_attempts(place: Stage, bot: Bot) -> None:
    node = place.node("n1")
    first = place.lead()
    long, other = (
        place.publish(alerts=asks("too_long", longer_than=limit), retry={"max": 1, "delay": "0s", "jitter": False})
        for limit in ("5s", "1h")
    )
    place.ask(long), place.ask(other)
    until(lambda: len(node.messages()) == 2, PATIENCE, "the runs")
    claims = {message.envelope.job: (message, node.claim(message)) for message in node.messages()}
    message, fence = claims[long.id]
    until(lambda: bot.titles, PATIENCE, "the card")
    assert bot.titles == [f"A run of {long.name} takes too long"] and "for more than 5s" in texts(bot.cards[0])
    forget_the_alerts(place)
    first.stop()
    place.lead(centre="two")
    node.end(message, fence, Kind.FAILED)
    until(lambda: len(node.messages()) == 2, PATIENCE, "the second attempt")
    (again,) = (each for each in node.messages() if each.envelope.job == long.id)
    claim = json.loads(b'{"v":1,"count":1}') | {"incarnation": node.incarnation, "node": "n1", "at": SYSTEM.wall() - 60}
    place.client.put(place.keys.claim(again.queue, again.place), json.dumps(claim).encode())
    settled(lambda: len(bot.titles), still=1.0)
    assert bot.titles == [f"A run of {long.name} takes too long"] and "too_long" not in kinds(place)


def test_a_fire_that_became_no_run_is_told_where_its_job_or_a_rule_asks(place: Stage, bot: Bot) -> None:
    place.rule(name="missed", on=["missed"], to=["ops"], jobs=["ruled/*"])
    late = {"misfire": {"after": "10s", "policy": "skip"}}
    own = due(place, 40, times=3, alerts=asks("missed"), **late)
    due(place, 40, name="ruled/one", **late)
    due(place, 40, name="other/one", **late)
    due(place, 40, name="ruled/but-says-nobody", alerts=[], **late)
    due(place, 40, name="ruled/other-events", alerts=asks("failed"), **late)
    busy = place.publish(alerts=asks("missed"), overlap="skip", schedule={"every": "1s"})
    node = place.node("n1")
    place.centre(centre="one")
    place.centre(centre="two")
    until(lambda: len(place.skips(busy)) >= 2, PATIENCE, "fires in the way of another")
    skips = {out.run for (_, n), out in place.outs().items() if n == "0" and out.reason in list(SkipReason)}
    asked = {run for run in skips if run.split(".")[0] in (own.id, busy.id)}
    until(lambda: asked <= told(place), PATIENCE, "the alerts")
    until(lambda: place.client.count(place.keys.alert("missed.")) >= len(asked) + 1, PATIENCE, "the rule's")
    names = {Alert.read(kv.value).name for kv in place.client.list(place.keys.alert("missed.")).kvs}
    assert names == {own.name, busy.name, "ruled/one"}
    (one,) = [each for each in alerts(place) if each.name == own.name]
    assert "3 times" in one.reason and "decided too late" in one.reason
    until(lambda: "ruled/one did not run" in " ".join(map(texts, bot.cards)), PATIENCE, "the card")
    assert node.messages()


def alerts(place: Stage) -> list[Alert]:
    return [Alert.read(kv.value) for kv in place.client.list(place.keys.alert("")).kvs]


def told(place: Stage) -> set[str]:
    return {alert.run for alert in alerts(place) if alert.kind == "missed"}


def test_what_is_left_beside_a_run_that_is_over_goes(place: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "EVERY", 0.2)
    place.lead()
    run = place.ask(place.publish()).run
    until(lambda: run in place.waits(), PATIENCE, "it to wait for a node")
    of_it, left = place.keys.run_beat(run), place.keys.run_beat("j1.1.5")
    for key in (of_it, left):
        place.client.put(key, Beat(1.0, 5.0, "", 1).encode())
    until(lambda: place.client.get(left) is None, PATIENCE, "what was left to go")
    settled(lambda: 0, still=0.6)
    assert place.client.get(of_it) is not None


def test_an_alert_about_a_live_run_rests_on_where_it_is_and_on_nobody_having_told(place: Stage) -> None:
    keys, client = place.keys, place.client
    alert = Alert("late.j.1.5", "late", 1.0, "j", "n", "j.1.5")
    record, mark = keys.run_wait("j.1.5"), keys.run_told("j.1.5", "late")

    def attempt() -> bool:
        move = tell_of(keys, alert, mark=mark, seen={record: seen})
        txn = Txn().when(*(mod(key, revision) for key, revision in move.seen.items()))
        for key, value in move.puts.items():
            txn.put(key, value)
        return client.txn(txn).succeeded

    client.put(record, b"{}")
    seen = client.get(record).mod  # type: ignore[union-attr]
    client.put(record, b"{}")
    assert not attempt(), "it has gone on"
    seen = client.get(record).mod  # type: ignore[union-attr]
    assert attempt() and not attempt(), "told already"
    client.delete(keys.alert(alert.id))
    client.delete(keys.notice(alert.id))
    assert not attempt(), "told, and delivered since"
    assert forget({mark: 7}).seen == {mark: 7}
