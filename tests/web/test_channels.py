"""Channels and alert rules over the API, in the console and at the command line; a canary: no secret comes back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from crony.catalog.jobs import Catalog
from crony.cli.main import run
from crony.domain.alerting import LiveRule
from crony.domain.channel import HIDDEN, SealedChannel
from crony.domain.notice import Doing, Notice
from crony.domain.sealing import Cipher, new_secret_key
from crony.lifecycle.publish_object import published
from crony.store.audit import list_entries
from crony.web.wiring import Web
from tests.helpers.feishu import SECRET, TOKEN, Bot, feishu
from tests.helpers.mailbox import mailbox
from tests.unit.test_cli_api import says, serving
from tests.web.conftest import Api, Browser, document, text_of

KEY, NEXT = new_secret_key(), new_secret_key()
PASSWORD = "c4n4ry-smtp-pw"
MAIL = {"kind": "email", "host": "smtp.example.org", "from": "crony@example.org", "user": "u", "password": PASSWORD}


@pytest.fixture
def web(web: Web) -> Web:
    """A web with a key."""
    web.catalog = Catalog(web.db, web.client, web.keys, web.sealer, Cipher([KEY]))
    return web


@pytest.fixture
def bot() -> Iterator[Bot]:
    with feishu() as running:
        yield running


def _live(web: Web, name: str) -> SealedChannel:
    found = published(web.client.get(web.keys.obj("channel", name)), SealedChannel)
    assert found is not None
    return found


def _nowhere(web: Web, *texts: str) -> None:
    """No secret in these texts, in the database or in etcd."""
    tables = ("objects", "object_versions", "audit")
    with web.db.engine.connect() as connection:
        told = "".join(str(row) for table in tables for row in connection.exec_driver_sql(f"SELECT * FROM {table}"))
    told += "".join(repr(kv.value) for kv in web.client.list(web.keys.root).kvs)
    for secret in (PASSWORD, SECRET, TOKEN):
        assert secret not in told and not any(secret in text for text in texts)


def test_a_channel_and_a_rule_over_the_api(api: Api, api_as: Callable[[str], Api], web: Web, bot: Bot) -> None:
    assert api_as("operator")("PUT", "channels/ops", json={}).status_code == 403
    assert api("PUT", "channels/ops", json={"kind": "feishu"}).json()["field"] == "url"
    made = api("PUT", "channels/ops", json={"kind": "feishu", "url": bot.url, "secret": SECRET})
    assert (made.status_code, made.headers["etag"], made.json()["live"]) == (200, '"1"', True)
    assert (
        made.json()["document"]["url"] == HIDDEN and _live(web, "ops").opened(Cipher([KEY])).secrets["secret"] == SECRET
    )
    again = api("PUT", "channels/ops", json={**made.json()["document"], "description": "x"})
    assert again.json()["revision"] == 2 and _live(web, "ops").opened(Cipher([KEY])).secrets["url"] == bot.url
    assert api("PUT", "channels/ops", json=again.json()["document"]).json()["revision"] == 2, "nothing changed"
    moved = api("PUT", "channels/ops", json={"kind": "feishu", "url": "https://evil.example.org/x"})
    assert moved.status_code == 422 and moved.json()["field"] == "secret"
    assert api("PUT", "channels/ops", json={**MAIL}).json()["field"] == "kind"

    rule = {"on": ["failed"], "to": ["gone"]}
    assert api("PUT", "alert-rules/all", json=rule).json()["field"] == "to[0]"
    made_rule = api("PUT", "alert-rules/all", json={"on": ["failed", "recovered"], "to": ["ops"]})
    assert made_rule.status_code == 200 and made_rule.json()["document"]["jobs"] == []
    live = published(web.client.get(web.keys.obj("alert-rule", "all")), LiveRule)
    assert live is not None and live.rule().to == ("ops",)
    missing = api("POST", "jobs", json=document("a", alerts=[{"on": ["failed"], "to": ["a@b.c"]}]))
    assert missing.status_code == 422 and missing.json()["field"] == "alerts[0].to[0]"
    job = api("POST", "jobs", json=document("a", alerts=[{"on": ["failed"], "to": ["ops"]}]))
    assert job.status_code == 201 and api("GET", "channels/ops").json()["jobs"] == ["a"]
    kept = api("DELETE", "channels/ops")
    assert kept.status_code == 409 and "rules name it: all" in kept.text
    assert api("DELETE", "alert-rules/all").status_code == 204
    assert "jobs name it: a" in api("DELETE", "channels/ops").text
    versions = api("GET", "channels/ops/versions").text
    _nowhere(web, made.text, again.text, moved.text, versions, api("GET", "channels").text, api("GET", "jobs/a").text)
    assert api("DELETE", "jobs/a").status_code == api("DELETE", "channels/ops").status_code == 204
    assert _live(web, "ops").deleted and not _live(web, "ops").ciphertext


def test_the_test_button_gives_the_providers_answer(api: Api, web: Web, bot: Bot) -> None:
    api("PUT", "channels/ops", json={"kind": "feishu", "url": bot.url, "secret": SECRET})
    assert api("POST", "channels/ops:test").json() == {"answer": "0 success"} and bot.titles == ["Test alert"]
    bot.always = (200, {}, {"code": 19022, "msg": f"Ip Not Allowed for {TOKEN}"})
    refused = api("POST", "channels/ops:test", json={})
    assert refused.status_code == 502 and "19022" in refused.text and "list of allowed addresses" in refused.text
    assert api("POST", "channels/ops:test", json={"to": "a@b.c"}).json()["field"] == "to"
    with mailbox() as box:
        plain = {"kind": "email", "host": "127.0.0.1", "port": box.port, "security": "none", "from": "c@example.org"}
        api("PUT", "channels/mail", json=plain)
        assert api("POST", "channels/mail:test").status_code == 502
        assert "queued" in api("POST", "channels/mail:test", json={"to": "me@example.org"}).json()["answer"]
        assert box.got[0][1] == ["me@example.org"]
    _nowhere(web, refused.text)
    assert [entry.action for entry in list_entries(web.db).items].count("channel.test") == 4


def test_keys_are_needed_and_can_be_changed(api: Api, web: Web) -> None:
    api("PUT", "channels/mail", json=MAIL)
    web.catalog = Catalog(web.db, web.client, web.keys, web.sealer)
    refused = api("PUT", "channels/other", json=MAIL)
    assert refused.status_code == 409 and "CRONY_SECRET_KEY" in refused.text and PASSWORD not in refused.text
    web.catalog = Catalog(web.db, web.client, web.keys, web.sealer, Cipher([NEXT]))
    lost = api("PUT", "channels/mail", json={**MAIL, "password": HIDDEN})
    assert lost.status_code == 422 and lost.json()["field"] == "password"
    web.catalog = Catalog(web.db, web.client, web.keys, web.sealer, Cipher([NEXT, KEY]))
    assert api("POST", "secrets:rotate").json()["renewed"] == ["channel mail"]
    assert _live(web, "mail").opened(Cipher([NEXT])).secrets == {"password": PASSWORD}


def test_a_test_alert_is_put_for_the_leader(api: Api, api_as: Callable[[str], Api], web: Web) -> None:
    assert api_as("operator")("POST", "alerts:test").status_code == 403
    assert api("POST", "alerts:test", json={"to": ["gone"]}).json()["field"] == "to[0]"
    ident = api("POST", "alerts:test").json()["id"]
    found = web.client.get(web.keys.notice(ident))
    assert found is not None and Notice.read(found.value).to is None
    assert web.client.get(web.keys.alert(ident)) is not None


def test_channels_in_the_console(
    browser: Browser, browser_as: Callable[[str], Browser], api: Api, web: Web, bot: Bot
) -> None:
    assert "No channels" in text_of(browser.get("/channels").text)
    for kind in ("email", "feishu"):
        assert f"kind: {kind}" in browser.get(f"/channels/new?kind={kind}").text
    text = "name: ops\nkind: feishu\nlanguage: zh\n"
    bad = browser.post("/channels/new", {"text": text, "revision": "0", "kind": "feishu", "secret": SECRET})
    assert bad.status_code == 422 and SECRET not in bad.text and "name: ops" in bad.text
    inside = browser.post("/channels/new", {"text": text + f"url: {bot.url}\n", "revision": "0", "kind": "feishu"})
    assert inside.status_code == 422 and TOKEN not in inside.text
    form = {"text": text, "revision": "0", "kind": "feishu", "url": bot.url, "secret": SECRET}
    made = browser.post("/channels/new", form)
    assert made.status_code == 303 and made.headers["location"] == "/channels/ops?done=channel"
    assert browser.post("/channels/new", form).status_code == 409
    sent = browser.post("/channels/ops/test")
    assert "0 success" in sent.text and bot.titles == ["测试告警"]
    bot.always = (200, {}, {"code": 19024, "msg": "Key Words Not Found"})
    assert "19024" in browser.post("/channels/ops/test").text
    web.client.put(web.keys.sender("ops"), Doing("it is <down>", 0.0).encode())
    pages = [browser.get(page).text for page in ("/channels", "/channels/ops", "/alerts")]
    assert "it is &lt;down&gt;" in pages[0]
    edited = browser.post("/channels/ops", {"text": text + "description: d\n", "revision": "1", "kind": "feishu"})
    assert edited.status_code == 303 and api("GET", "channels/ops").json()["document"]["description"] == "d"

    rule = "name: all\non: [failed]\nto: [ops]\n"
    assert (
        browser.post("/alert-rules/new", {"text": rule, "revision": "0"}).headers["location"] == "/channels?done=rule"
    )
    wrong = browser.post("/alert-rules/all", {"text": rule.replace("ops", "gone"), "revision": "1"})
    assert wrong.status_code == 422 and "gone" in wrong.text
    for language in ("en", "zh"):
        browser.client.cookies.set("crony_lang", language)
        for page in ("/channels", "/channels/ops", "/alert-rules/all", "/alert-rules/new"):
            assert browser.get(page).status_code == 200
    viewer = browser_as("viewer")
    assert 'name="secret"' not in viewer.get("/channels/ops").text and viewer.get("/channels/new").status_code == 403
    assert browser.post("/alert-rules/all/delete").headers["location"] == "/channels?done=rule-deleted"
    assert browser.post("/channels/ops/delete").headers["location"] == "/channels?done=channel-deleted"
    _nowhere(web, *pages, sent.text)


def test_the_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    asked: list[tuple[str, str, Any]] = []
    row = {"name": "ops", "kind": "feishu", "revision": 1, "live": True, "jobs": [], "sent_at": None, "failing": "away",
           "document": {"name": "ops", "kind": "feishu", "url": HIDDEN}, "answer": "0 success"}  # fmt: skip

    def answer(handler: Any) -> None:
        length = int(handler.headers.get("content-length") or 0)
        asked.append((handler.command, handler.path, yaml.safe_load(handler.rfile.read(length) or b"null")))
        listing = handler.command == "GET" and handler.path.count("/") == 3
        says(200, json.dumps({"items": [row]} if listing else row).encode())(handler)

    file = tmp_path / "ops.yaml"
    file.write_text(f"kind: feishu\nurl: https://open.feishu.cn/{TOKEN}\n")
    with serving(answer) as target:
        monkeypatch.setenv("CRONY_API", target.target.base)
        monkeypatch.setenv("CRONY_TOKEN", "crony_secret")
        for command in (["list"], ["get", "ops"], ["set", "ops", "-f", str(file)], ["test", "ops"], ["delete", "ops"]):
            assert run(["channel", *command]) == 0
        assert run(["channel", "set", "other", "-f", str(tmp_path / "none.yaml")]) == 2
    out = capsys.readouterr().out
    assert "away" in out and f"url: '{HIDDEN}'" in out and "sent: 0 success" in out and TOKEN not in out
    assert (
        asked[2][:2] == ("PUT", "/api/v1/channels/ops") and asked[2][2]["name"] == "ops" and TOKEN in asked[2][2]["url"]
    )
    assert asked[3][:2] == ("POST", "/api/v1/channels/ops:test")
