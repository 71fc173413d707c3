"""Secrets over the API, in the console and at the command line: taken in, never shown, refused where they would be."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest

from crony.catalog.jobs import Catalog
from crony.cli.main import run
from crony.domain.sealing import Cipher, new_secret_key
from crony.domain.secret import Secret, place_of
from crony.etcd.client import Client
from crony.lifecycle.publish_object import published
from crony.web.wiring import Web
from crony.workers.secrets import NoSecret, resolve
from tests.unit.test_cli_api import says, serving
from tests.web.conftest import Api, Browser, document, text_of

VALUE = "c4n4ry-zq7"
KEY, NEXT = new_secret_key(), new_secret_key()


@pytest.fixture
def web(web: Web) -> Web:
    """A web with a key."""
    web.catalog = Catalog(web.db, web.client, web.keys, web.sealer, Cipher([KEY]))
    return web


def _live(web: Web, name: str = "reports-db") -> Secret:
    found = published(web.client.get(web.keys.obj("secret", name)), Secret)
    assert found is not None
    return found


def test_a_secret_over_the_api(api: Api, api_as: Callable[[str], Api], web: Web) -> None:
    assert api_as("operator")("PUT", "secrets/reports-db", json={"value": VALUE}).status_code == 403
    assert api("PUT", "secrets/reports-db", json={}).json()["field"] == "value"
    made = api("PUT", "secrets/reports-db", json={"value": VALUE, "description": "for reports"})
    assert (made.status_code, made.headers["etag"], made.json()["live"]) == (200, '"1"', True)
    assert Cipher([KEY]).decrypt(_live(web).ciphertext, place_of("reports-db")) == VALUE
    missing = api("POST", "jobs", json=document("a", secrets={"DB_PASSWORD": "other"})).json()
    assert missing["field"] == "secrets.DB_PASSWORD" and "names the secret other" in missing["detail"]
    job = api("POST", "jobs", json=document("a", secrets={"DB_PASSWORD": "reports-db"}))
    assert job.status_code == 201 and job.json()["document"]["secrets"] == {"DB_PASSWORD": "reports-db"}
    about = api("PUT", "secrets/reports-db", json={"description": "x"}, headers={"if-match": '"1"'}).json()
    assert about["revision"] == 2 and _live(web).revision == 2
    assert Cipher([KEY]).decrypt(_live(web).ciphertext, place_of("reports-db")) == VALUE, "left out, it stays"
    assert api("PUT", "secrets/reports-db", json={"value": VALUE}, headers={"if-match": '"1"'}).status_code == 412
    versions = api("GET", "secrets/reports-db/versions").json()["items"]
    assert [item["document"] for item in versions] == [
        {"name": "reports-db", "description": "x"},
        {"name": "reports-db", "description": "for reports"},
    ]
    viewer = api_as("viewer")("GET", "secrets").json()
    assert [item["jobs"] for item in viewer["items"]] == [["a"]] and viewer["keys"] == list(Cipher([KEY]).key_ids)
    kept = api("DELETE", "secrets/reports-db")
    assert kept.status_code == 409 and "name it: a" in str(kept.json())
    assert api("DELETE", "jobs/a").status_code == api("DELETE", "secrets/reports-db").status_code == 204
    assert _live(web).deleted and _live(web).ciphertext == ""


def test_without_a_key_nothing_is_stored_and_the_old_key_is_given_up_by_rotation(api: Api, web: Web) -> None:
    api("PUT", "secrets/a", json={"value": VALUE})
    web.catalog = Catalog(web.db, web.client, web.keys, web.sealer)
    refused = api("PUT", "secrets/b", json={"value": VALUE})
    assert refused.status_code == 409 and "CRONY_SECRET_KEY" in refused.text and VALUE not in refused.text
    assert api("POST", "secrets:rotate").status_code == 409
    web.catalog = Catalog(web.db, web.client, web.keys, web.sealer, Cipher([NEXT]))
    failed = api("POST", "secrets:rotate").json()
    assert failed["renewed"] == [] and "does not have here" in failed["failed"]["secret a"]
    web.catalog = Catalog(web.db, web.client, web.keys, web.sealer, Cipher([NEXT, KEY]))
    assert api("POST", "secrets:rotate").json() == {"renewed": ["secret a"], "kept": 0, "failed": {}}
    assert api("POST", "secrets:rotate").json() == {"renewed": [], "kept": 1, "failed": {}}
    assert Cipher([NEXT]).decrypt(_live(web, "a").ciphertext, place_of("a")) == VALUE
    assert [v["action"] for v in api("GET", "secrets/a/versions").json()["items"]] == ["rotate", "create"]


def test_what_etcd_did_not_hear_of_is_published_by_the_reconcile(web: Web) -> None:
    with Client(["http://127.0.0.1:9"], timeout=0.3) as away:
        offline = Catalog(web.db, away, web.keys, web.sealer, Cipher([KEY]))
        assert not offline.secrets.save({"name": "a", "value": VALUE}, "ann").live
    keyless = Catalog(web.db, web.client, web.keys, web.sealer)
    assert keyless.reconcile_objects() == {"secret": ["a"]}, "ciphertexts are published without a key"
    assert Cipher([KEY]).decrypt(_live(web, "a").ciphertext, place_of("a")) == VALUE


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"secrets": {"P": "Reports DB"}}, "secrets.P", "not the name of a secret"),
        ({"secrets": {"a-b": "known"}}, "secrets.a-b", "not a variable name"),
        ({"secrets": {"LD_PRELOAD": "known"}}, "secrets.LD_PRELOAD", "may not be set by a job"),
        ({"secrets": {"P": "known"}, "action": {"kind": "shell", "script": "true", "env": {"P": "x"}}}, "secrets",
         "`env` has too"),
        ({"secrets": {"P": "known"}, "action": {"kind": "shell", "command": ["a", "{{secret.P}}"]}},
         "action.command[1]", "would be seen there"),
        ({"secrets": {"P": "known"}, "action": {"kind": "http", "url": "http://h.example/?p={{secret.P}}"}},
         "action.url", "would be seen there"),
        ({"secrets": {}, "action": {"kind": "http", "url": "http://h.example/", "headers": {"A": "{{secret.P}}"}}},
         "action.headers.A", "does not name"),
        ({"secrets": {"P": "known"}, "action": {"kind": "python", "task": "a.b", "args": ["{{secret.P}}"]}},
         "action.args[0]", "would be seen there"),
        ({"secrets": {"P": "known"}, "routing": {"strategy": "any"}}, "secrets", "nodes that hold the key"),
    ],
    ids=range(9),
)  # fmt: skip
def test_jobs_that_would_show_a_secret_are_refused(
    api: Api, web: Web, changes: dict[str, Any], field: str, words: str
) -> None:
    web.catalog.secrets.save({"name": "known", "value": VALUE}, "ann")
    answer = api("POST", "jobs", json=document("a", **changes))
    assert answer.status_code == 422 and answer.json()["field"] == field and words in answer.json()["detail"]


@pytest.mark.parametrize("value", ["abc", "x" * 16385, "nul\0nul", 12345678, ["c4n4ry-zq7"]])
def test_bad_values_are_refused_without_saying_them(api: Api, value: Any) -> None:
    answer = api("PUT", "secrets/a", json={"value": value})
    assert answer.status_code == 422 and answer.json()["field"] == "value"
    assert str(value)[:10] not in answer.text and api("GET", "secrets").json()["items"] == []


def test_a_secret_in_the_console(browser: Browser, browser_as: Callable[[str], Browser], api: Api) -> None:
    assert "No secrets" in text_of(browser.get("/secrets").text)
    bad = browser.post("/secrets/new", {"name": "Bad Name", "value": VALUE, "description": "d", "revision": "0"})
    assert bad.status_code == 422 and VALUE not in bad.text and 'value="Bad Name"' in bad.text
    made = browser.post("/secrets/new", {"name": "a", "value": VALUE, "description": "d", "revision": "0"})
    assert made.status_code == 303 and made.headers["location"] == "/secrets?done=secret"
    assert browser.post("/secrets/new", {"name": "a", "value": VALUE, "revision": "0"}).status_code == 409
    for page in ("/secrets", "/secrets/a"):
        assert VALUE not in browser.get(page).text and "crony1:" not in browser.get(page).text
    assert browser.post("/secrets/a", {"value": "", "description": "e", "revision": "1"}).status_code == 303
    assert api("GET", "secrets/a").json()["description"] == "e"
    assert browser.post("/secrets/rotate").headers["location"] == "/secrets?done=secret-rotated"
    form = {"name": "j", "command": "date", "revision": "0", "secrets": "P=a\nQ = a"}
    assert browser.post("/jobs/new", form).status_code == 303
    assert api("GET", "jobs/j").json()["document"]["secrets"] == {"P": "a", "Q": "a"}
    assert "P=a\nQ=a" in browser.get("/jobs/j/edit").text, "the form can say it"
    refused = browser.post("/jobs/new", {**form, "name": "k", "secrets": "P=gone"})
    assert refused.status_code == 422 and "names the secret gone" in text_of(refused.text)
    assert api("DELETE", "jobs/j").status_code == 204
    viewer = browser_as("viewer")
    assert 'name="value"' not in viewer.get("/secrets/a").text
    assert viewer.get("/secrets/new").status_code == 403
    browser.client.cookies.set("crony_lang", "zh")
    assert "密钥" in browser.get("/secrets").text
    assert browser.post("/secrets/a/delete").headers["location"] == "/secrets?done=secret-deleted"


def test_a_secret_at_the_command_line(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(handler: Any) -> None:
        size = int(handler.headers.get("content-length") or 0)
        kind = {"content-type": "application/json"} if size else {}
        path = handler.path.removeprefix("/api/v1/")
        found = api(handler.command, path, content=handler.rfile.read(size), headers=kind)
        says(found.status_code, found.content)(handler)

    class Input:
        def __init__(self, data: bytes) -> None:
            self.buffer = io.BytesIO(data)

        def isatty(self) -> bool:
            return False

    with serving(answer) as server:
        monkeypatch.setenv("CRONY_API", server.target.base)
        monkeypatch.setenv("CRONY_TOKEN", "crony_secret")
        monkeypatch.setattr("sys.stdin", Input(f"{VALUE}\n".encode()))
        assert run(["secret", "set", "a", "--description", "d"]) == 0
        assert run(["secret", "list"]) == 0 and run(["secret", "rotate"]) == 0
        monkeypatch.setattr("sys.stdin", Input(b"\xff\xfe"))
        assert run(["secret", "set", "b"]) == 2
        assert run(["secret", "set", "a", VALUE]) == 2, "a value is no argument"
        assert run(["secret", "delete", "a"]) == 0
    said = capsys.readouterr()
    assert "saved a as revision 1" in said.out and "0 encrypted anew, 1 had the newest key" in said.out
    assert VALUE not in said.out, said.out


def test_a_node_opens_what_its_key_opens_and_says_why_it_does_not(web: Web) -> None:
    def opened(name: str, *keys: str) -> dict[str, str]:
        return resolve(web.client, web.keys, Cipher(keys), {"P": "a", "Q": name}, patience=5)

    for name in ("a", "b", "gone"):
        web.catalog.secrets.save({"name": name, "value": f"{VALUE}-{name}"}, "ann")
    assert opened("b", NEXT, KEY) == {"P": f"{VALUE}-a", "Q": f"{VALUE}-b"}
    web.catalog.secrets.delete("gone", "ann")
    moved = Secret("moved", _live(web, "b").ciphertext, revision=1)
    web.client.put(web.keys.obj("secret", "moved"), web.sealer.seal(moved.payload()))
    for name, keys, words in (
        ("gone", [KEY], "there is no secret gone"), ("never", [KEY], "there is no secret never"),
        ("b", [NEXT], "cannot be opened on this node"), ("moved", [KEY], "moved from another place"),
    ):  # fmt: skip
        with pytest.raises(NoSecret, match=words) as refused:
            opened(name, *keys)
        assert VALUE not in str(refused.value)
    with Client(["http://127.0.0.1:9"], timeout=0.2) as away, pytest.raises(NoSecret, match="did not answer"):
        resolve(away, web.keys, Cipher([KEY]), {"P": "a"}, patience=0.5)
