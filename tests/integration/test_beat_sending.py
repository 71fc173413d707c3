"""Alerts reach people: as their job or the rules say, at least once, with MySQL, a provider or a leader away."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import pytest

from crony.beat import tails
from crony.beat.duties import rates, sending
from crony.clock import SYSTEM
from crony.domain import notice as notices
from crony.domain.alert import failure_rate, not_kept
from crony.domain.alert import test as a_test
from crony.domain.callback import Report, Token
from crony.domain.notice import notice
from crony.domain.outcome import Kind
from crony.domain.sealing import Cipher, new_secret_key
from crony.errors import Unavailable
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, mod
from crony.lifecycle.alert import ask_for_test, tell
from crony.lifecycle.complete import complete
from crony.lifecycle.enqueue import cancel
from crony.lifecycle.move import Move
from crony.lifecycle.notify import noted, over, too_many_failed
from crony.lifecycle.permit import permit, starting
from crony.store import output
from crony.store.alerts import list_alerts
from crony.store.db import Database
from tests.helpers.beat import Dying, FakeNode, Stage, settled, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.feishu import LIMITED, SECRET, TOKEN, Bot, texts
from tests.helpers.feishu import feishu as bot_server
from tests.helpers.mailbox import mailbox
from tests.helpers.wait import until

PATIENCE = 30.0
PASSWORD = "smtp-password-canary"
NODES: WeakKeyDictionary[Stage, FakeNode] = WeakKeyDictionary()
"""The node of each stage."""


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(sending, "EVERY", 0.1)
    monkeypatch.setattr(rates, "EVERY", 0.1)
    monkeypatch.setattr(tails, "PATIENCE", 0.0)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/crony.db", timeout=1)
    made.upgrade()
    yield made
    made.close()


@pytest.fixture
def place(etcd: EtcdServer, keys: Keys, database: Database) -> Iterator[Stage]:
    url = database.url.render_as_string(hide_password=False)
    with stage(etcd.endpoint, keys, database_url=url, console="https://crony.example.org") as made:
        yield made


@pytest.fixture
def bot(place: Stage) -> Iterator[Bot]:
    with bot_server() as running:
        place.channel({"name": "ops", "kind": "feishu", "url": running.url, "secret": SECRET})
        yield running


def by_mail(place: Stage, port: int, name: str = "mail", **fields: Any) -> None:
    place.channel({"name": name, "kind": "email", "host": "127.0.0.1", "port": port, "security": "none",
                   "from": "crony@example.org", **fields})  # fmt: skip


def fail(place: Stage, count: int = 1, kind: str = Kind.FAILED, job: Any = None, **fields: Any) -> list[str]:
    """So many runs of a job that end so."""
    node = NODES.get(place) or NODES.setdefault(place, place.node("n1"))
    job = job or place.publish(overlap="allow", **fields)
    asked = [place.ask(job).run for _ in range(count)]
    until(lambda: len(node.messages()) == count, PATIENCE, "the runs")
    for message in node.messages():
        node.end(message, node.claim(message), kind, reason="exit code 3")
    return asked


def nothing_waits(place: Stage) -> None:
    until(lambda: not place.client.count(place.keys.notice("")), PATIENCE, "the notices to go")


def results(database: Database, kind: str = "run_failed") -> list[dict[str, dict[str, Any]]]:
    return [alert.told for alert in list_alerts(database, limit=200).items if alert.kind == kind]


def test_a_job_says_whom_its_alerts_go_to_and_the_rules_say_it_for_the_others(
    place: Stage, bot: Bot, database: Database
) -> None:
    with mailbox() as box:
        by_mail(place, box.port, to=["oncall@example.org"])
        place.rule(name="all", on=["failed", "recovered"], to=["mail"])
        place.rule(name="billing", on=["failed"], to=["ops"], jobs=["billing/*"])
        place.lead()
        own = place.publish(overlap="allow", alerts=[{"on": ["failed"], "to": ["ops", "dev@example.org"]}])
        (one,) = fail(place, job=own)
        until(lambda: bot.titles and box.got, PATIENCE, "both messages")
        nothing_waits(place)
        assert bot.titles == [f"{own.name} failed"] and [who for _, who, _ in box.got] == [["dev@example.org"]]
        said = texts(bot.cards[0])
        assert one in said and "n1" in said and "exit code 3" in said
        assert f"https://crony.example.org/runs/{one}" in box.got[0][2].get_content()
        until(lambda: results(database) and results(database)[0], PATIENCE, "the row to say so")
        (told,) = results(database)
        assert {name: each["state"] for name, each in told.items()} == {"ops": "sent", "dev@example.org": "sent"}
        assert told["ops"]["said"] == "0 success" and "queued" in told["dev@example.org"]["said"]

        silent = place.publish(overlap="allow", alerts=[])
        fail(place, job=silent)
        fail(place, job=place.publish(overlap="allow", name="billing/x"))
        until(lambda: len(bot.titles) == 2 and len(box.got) == 2, PATIENCE, "what the rules say")
        nothing_waits(place)
        assert box.got[1][1] == ["oncall@example.org"] and bot.titles[1] == "billing/x failed"


def test_what_a_service_gives_up_after_its_own_retries_goes_out_at_once(place: Stage, bot: Bot) -> None:
    place.rule(name="all", on=["failed"], to=["ops"])
    place.lead()
    node = NODES.setdefault(place, place.node("n1"))
    job = place.publish(overlap="allow", retry={"max": 5, "delay": "1h"}, **{"async": {"deadline": "1h"}})
    for final in (False, True):
        run = place.ask(job, retries=5).run
        message = until(lambda run=run: next((m for m in node.messages() if m.run == run), None), PATIENCE, "the run")
        token = Token.new(message.queue, message.place)
        claim = starting(node.incarnation, 1, node=node.name, at=SYSTEM.wall(), secret=token.digest)
        fence = permit(place.client, place.keys, message.queue, message.place, node.claim(message), claim)
        assert fence
        report = Report(False, reason="no rates (after 3 tries)", final=final)
        complete(place.client, place.keys, run, 1, token.under(fence), report)
        if not final:
            until(lambda run=run: run in place.waits(), PATIENCE, "its next attempt to wait")
            cancel(place.client, place.keys, run)
    until(lambda: bot.titles, PATIENCE, "the card")
    nothing_waits(place)
    settled(lambda: len(bot.titles))
    (card,) = bot.cards
    assert bot.titles == [f"{job.name} failed"] and run in texts(card) and "no rates (after 3 tries)" in texts(card)


def test_the_first_success_after_a_failure_is_told_once_and_under_the_next_leader_too(place: Stage, bot: Bot) -> None:
    place.rule(name="all", on=["failed", "recovered"], to=["ops"])
    leader = place.lead()
    job = place.publish(overlap="allow")
    fail(place, kind=Kind.SUCCEEDED, job=job)
    fail(place, job=job)
    until(lambda: len(bot.titles) == 1, PATIENCE, "the failure")
    nothing_waits(place)
    leader.stop()
    place.lead()
    fail(place, 2, kind=Kind.SUCCEEDED, job=job)
    until(lambda: len(bot.titles) == 2, PATIENCE, "the recovery")
    nothing_waits(place)
    settled(lambda: len(bot.titles))
    assert bot.titles == [f"{job.name} failed", f"{job.name} works again"]
    assert not place.client.count(place.keys.lapse(""))


def test_a_refusal_with_status_200_and_a_rate_limit_are_tried_again(
    place: Stage, bot: Bot, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crony.notifications.feishu.RATE_PAUSE", 0.05)
    monkeypatch.setattr(sending, "LONGEST_PAUSE", 0.4)
    bot.answers = [LIMITED, (500, {}, {"code": 1500, "msg": "internal"}), (200, {}, b"oops"), LIMITED]
    place.rule(name="all", on=["failed"], to=["ops"])
    leader = place.lead()
    fail(place)
    until(lambda: bot.titles, PATIENCE, "the card")
    nothing_waits(place)
    assert bot.asked == 5 and len(bot.titles) == 1
    bot.always = (200, {}, {"code": 19024, "msg": "Key Words Not Found"})
    fail(place)
    until(lambda: "ops" in leader.status()["alert_channels_failing"], PATIENCE, "it to be said")
    assert "19024" in leader.status()["alert_channels_failing"]["ops"]
    nothing_waits(place)  # given up, and that is written down
    until(
        lambda: any(told.get("ops", {}).get("state") == "given_up" for told in results(database)), PATIENCE, "the row"
    )
    assert bot.asked == 5 + sending.REFUSALS
    bot.always = None
    place.channel({"name": "ops", "kind": "feishu", "url": bot.url, "secret": SECRET, "language": "zh"}, revision=2)
    fail(place)
    until(lambda: len(bot.titles) == 2, PATIENCE, "the next one")
    assert bot.titles[1].endswith("失败"), "what was edited counts at once, also where it rested"
    until(lambda: not leader.status()["alert_channels_failing"], PATIENCE, "all to be well")


def test_alerts_go_out_with_the_database_away_and_the_output_with_it(
    place: Stage, bot: Bot, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tails, "PATIENCE", 20.0)
    place.rule(name="all", on=["failed"], to=["ops"])
    place.lead()
    job = place.publish(overlap="allow")
    node = place.node("n1")
    run = place.ask(job).run
    until(node.messages, PATIENCE, "the run")
    output.append(database, run, 1, 0, b"first\n\x1b[31mtraceback: it broke\x1b[0m\n", final=True)
    node.run_all(Kind.FAILED)
    until(lambda: bot.titles, PATIENCE, "the card")
    assert "traceback: it broke" in texts(bot.cards[0]) and "[31m" not in texts(bot.cards[0])
    nothing_waits(place)
    until(lambda: not place.client.count(place.keys.alert("")), PATIENCE, "the alert to be in the database")
    lock = threading.Event()

    def away(self: object, *args: object, **options: object) -> None:
        lock.set()
        raise Unavailable("the database is away")

    monkeypatch.setattr(Database, "_attempts", away)
    place.ask(job)
    until(node.messages, PATIENCE, "the run")
    node.run_all(Kind.FAILED)
    until(lambda: len(bot.titles) == 2, PATIENCE, "the card without a database")
    nothing_waits(place)
    assert lock.is_set() and place.client.count(place.keys.alert("")) == 1, "the alert itself waits for the database"
    monkeypatch.undo()
    until(lambda: len(results(database)) == 2 and all(results(database)), PATIENCE, "the row, with what was sent")


def test_a_leader_killed_between_sent_and_noted_repeats_at_most_that_message(place: Stage, bot: Bot) -> None:
    place.rule(name="all", on=["failed"], to=["ops"])
    first = place.lead()
    prefix = place.keys.notice("")
    dying = Dying(first, lambda txn: any(prefix in key for key in set().union(*txn.writes())) and bool(bot.titles))
    fail(place, name="a")
    until(lambda: dying.dead, PATIENCE, "it to die before it has noted")
    assert bot.titles == ["a failed"] and place.client.count(prefix) == 1
    first.stop()
    fail_later = place.publish(overlap="allow", name="b")
    place.lead(centre="two")
    nothing_waits(place)
    fail(place, job=fail_later)
    until(lambda: "b failed" in bot.titles, PATIENCE, "the next")
    nothing_waits(place)
    assert bot.titles.count("a failed") == 2 and bot.titles.count("b failed") == 1


def test_a_storm_becomes_few_messages_and_a_provider_that_hangs_holds_up_nobody(
    place: Stage, bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "DEADLINE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        by_mail(place, silent.getsockname()[1], to=["a@example.org"])
        place.rule(name="all", on=["failed"], to=["mail", "ops"])
        leader = place.lead()
        bot.always = (503, {}, b"")
        fail(place, 40)
        until(lambda: place.client.count(place.keys.notice("")) == 40, PATIENCE, "all of them to wait")
        until(lambda: "503" in leader.status()["alert_channels_failing"].get("ops", ""), PATIENCE, "a try")
        bot.always = None
        until(lambda: "39 alerts" in bot.titles, PATIENCE, "the rest in one message")
        assert len(bot.titles) <= 4
        until(lambda: "not done after" in leader.status()["alert_channels_failing"].get("mail", ""), PATIENCE, "mail")
        until(lambda: place.client.count(place.keys.sender("mail")), PATIENCE, "it to be said in etcd")
        assert leader.centre.leader is not None and leader.centre.leader.ready
        monkeypatch.setattr(notices, "MOST", 5)
        until(lambda: place.client.count(place.keys.notice("")) == 5, PATIENCE, "the oldest to be given up")
        assert sum(thread.name == "crony-alerts-mail" for thread in threading.enumerate()) <= sending.LEFT + 1


def test_what_cannot_be_reached_is_given_up_with_its_reason(place: Stage, database: Database) -> None:
    other = Cipher([new_secret_key()])
    place.channel({"name": "locked", "kind": "feishu", "url": "https://open.feishu.cn/x"}, cipher=other)
    leader = place.lead()
    fail(place, alerts=[{"on": ["failed"], "to": ["gone"]}])
    until(lambda: results(database) and results(database)[0], PATIENCE, "the row")
    assert results(database)[0]["gone"]["said"] == "there is no channel gone"
    fail(place, alerts=[{"on": ["failed"], "to": ["locked"]}])
    until(lambda: "locked" in leader.status()["alert_channels_failing"], PATIENCE, "it to be said")
    assert "CRONY_SECRET_KEY does not have" in leader.status()["alert_channels_failing"]["locked"]
    forged = place.keys.obj("channel", "forged")
    place.client.put(forged, b'{"p":"{}","k":"x","s":"y"}')
    fail(place, alerts=[{"on": ["failed"], "to": ["forged"]}])
    until(lambda: [told for told in results(database) if "forged" in told], PATIENCE, "the row")
    odd = notice(not_kept(1, 5, SYSTEM.wall()), ["a@b.c\r\nRCPT TO:<d@e.f>"])
    place.client.put(place.keys.notice("evil"), odd.encode())
    until(lambda: place.client.get(place.keys.notice("evil")) is None, PATIENCE, "what names no destination to go")
    place.client.put(place.keys.notice("odd"), b"\xff")
    until(lambda: place.client.get(place.keys.notice("odd")) is None, PATIENCE, "what cannot be read to go")


def test_lost_nodes_other_leaders_and_failure_rates_are_told(place: Stage, bot: Bot, database: Database) -> None:
    place.rule(name="platform", on=["node_lost", "leader_changed"], to=["ops"])
    place.rule(name="rate", on=["failure_rate"], to=["ops"], rate={"above": 40, "least": 4}, jobs=["shop/*"])
    place.rule(name="each", on=["failure_rate"], to=["ops"], rate={"above": 90, "least": 3, "each_job": True})
    place.lead(centre="one").stop()
    first = place.lead(centre="two")
    until(lambda: bot.titles == ["Another centre leads"], PATIENCE, "the change")
    shop, other = place.publish(overlap="allow", name="shop/a"), place.publish(overlap="allow", name="other")
    fail(place, 2, job=shop)
    fail(place, 2, kind=Kind.SUCCEEDED, job=shop)
    until(lambda: any("shop" not in t and "Many runs fail: rate" in t for t in bot.titles), PATIENCE, "the rate")
    assert "2 of 4 runs failed within 10m (50 %)" in texts(bot.cards[-1])
    fail(place, 2, job=other)
    nothing_waits(place)
    first.stop()  # its successor counts what came before, and keeps to the cool-down
    place.lead(centre="two")
    fail(place, 1, job=other)
    until(lambda: "Many runs fail: other" in bot.titles, PATIENCE, "the rate of one job")
    fail(place, 4, job=shop)
    place.node("lost").vanish()
    until(lambda: "Node lost is lost" in bot.titles, PATIENCE, "the node")
    nothing_waits(place)
    rates_told = ["Many runs fail: other", "Many runs fail: rate"]
    assert sorted(bot.titles) == ["Another centre leads", *rates_told, "Node lost is lost"]


def test_no_secret_is_in_logs_or_etcd(place: Stage, bot: Bot, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("urllib3").setLevel(logging.WARNING)  # as the set-up of every role does
    with mailbox() as box:
        by_mail(place, box.port, user="u", password=PASSWORD, to=["a@example.org"])
        place.rule(name="all", on=["failed"], to=["ops", "mail"])
        leader = place.lead()
        bot.answers = [(200, {}, {"code": 19001, "msg": f"no bot at /hook/{TOKEN}, {SECRET}"})]
        fail(place)
        until(lambda: bot.titles and "mail" in leader.status()["alert_channels_failing"], PATIENCE, "both to be tried")
        told = b"".join(kv.key.encode() + kv.value for kv in place.client.list(place.keys.root).kvs)
        for secret in (PASSWORD, SECRET, TOKEN):
            assert secret not in caplog.text and secret not in str(leader.status()) and secret.encode() not in told


def test_a_test_alert_goes_the_whole_way_and_says_what_became_of_it(place: Stage, bot: Bot, database: Database) -> None:
    place.rule(name="nodes", on=["node_lost"], to=["ops"])
    place.lead()
    ask_for_test(place.client, place.keys, a_test("one", "ann", SYSTEM.wall()), None)
    until(lambda: results(database, "test") and results(database, "test")[0], PATIENCE, "the row")
    assert results(database, "test")[0]["ops"]["state"] == "sent" and bot.titles == ["Test alert"]
    ask_for_test(place.client, place.keys, a_test("two", "ann", SYSTEM.wall()), ["gone", "ops"])
    until(lambda: any("gone" in told for told in results(database, "test")), PATIENCE, "the row")
    assert bot.titles == ["Test alert"] * 2 and "asked for by ann" in texts(bot.cards[1])


def test_each_step_compares_what_it_rests_on(place: Stage) -> None:
    """Taken away, each of these compares lets a result be lost, a count go down or an alert be told twice."""
    client, keys, now = place.client, place.keys, SYSTEM.wall()

    def happens(move: Move) -> bool:
        txn = Txn().when(*(mod(key, seen) for key, seen in move.seen.items()))
        for key, value in move.puts.items():
            txn.put(key, value)
        for key in move.deletes:
            txn.delete(key)
        return client.txn(txn).succeeded

    def seen(key: str) -> int:
        found = client.get(key)
        return found.mod if found else 0

    alert = not_kept(1, 5, now)
    assert happens(tell(keys, alert))
    first, lies = seen(keys.notice(alert.id)), seen(keys.alert(alert.id))
    both = ["a", "b"]
    assert happens(noted(keys, alert.id, first, notice(alert, both).with_result("a", "sent", now, "", both)))
    assert not happens(noted(keys, alert.id, first, notice(alert, both))), "another leader noted something"
    assert not happens(over(keys, alert.id, first, alert, lies)), "what the other leader noted would be lost"
    client.put(keys.alert(alert.id), replace(alert, times=9).encode())
    second = seen(keys.notice(alert.id))
    assert not happens(over(keys, alert.id, second, alert, lies)), "its count has risen meanwhile"
    client.delete(keys.alert(alert.id))
    assert not happens(tell(keys, alert)), "people are being told of it"
    assert happens(over(keys, alert.id, second, alert, 0)) and not client.count(keys.notice(""))

    rate = failure_rate("r", "", "r", 5, 9, "10m", now)
    assert happens(too_many_failed(keys, rate, "r", "", 0, ["a"]))
    other = failure_rate("r", "", "r", 6, 9, "10m", now + 1)
    assert not happens(too_many_failed(keys, other, "r", "", 0, ["a"])), "another leader has told within the cool-down"
