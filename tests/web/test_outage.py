"""With etcd or the database away the console says so, shows what it still knows, and never waits long or breaks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crony.clock import SYSTEM
from crony.errors import Unavailable
from crony.store import accounts, archive
from crony.web.shields import Shield
from crony.web.wiring import Web
from tests.helpers.etcd import EtcdServer
from tests.web.conftest import Api, Browser, document, text_of, web_settings
from tests.web.test_runs import RUN, outcome


@pytest.fixture
def web(own_etcd: EtcdServer, keys: Any, tmp_path: Path, template: Path) -> Iterator[Web]:
    """A web whose etcd may be stopped."""
    (tmp_path / "crony.db").write_bytes(template.read_bytes())
    parts = Web(web_settings(own_etcd.endpoint, keys.namespace, tmp_path, etcd_timeout=0.5))
    yield parts
    parts.close()


def test_without_etcd_history_and_definitions_are_shown_and_edits_are_kept(
    web: Web, own_etcd: EtcdServer, browser: Browser, api: Api
) -> None:
    view = web.catalog.create(document("team/report"), "test")
    archive.write(web.db, [outcome(kind="failed", reason="exit code 3")])
    own_etcd.stop()
    for path in ("/jobs", "/runs", f"/runs/{RUN}", f"/jobs/{view.id}", "/nodes", "/queues"):
        answer = browser.get(path)
        assert answer.status_code == 200 and "etcd is away" in text_of(answer.text), path
    assert "exit code 3" in browser.get("/runs").text and "team/report" in browser.get("/jobs").text
    assert browser.client.get("/readyz").status_code == 503 and browser.client.get("/readyz").text == "etcd: away\n"
    assert browser.client.get("/livez").status_code == 200

    saved = api("PUT", "jobs/team%2Freport", json=document("team/report", timeout="5m"), headers={"if-match": '"1"'})
    assert saved.status_code == 202 and saved.json()["revision"] == 2
    assert saved.json()["live_revision"] is None and saved.json()["live_from"] is None
    assert api("POST", "jobs/team%2Freport:run").status_code == 503
    assert browser.post(f"/jobs/{view.id}/run").status_code == 503
    refused = api("GET", "runs")
    assert refused.status_code == 503 and refused.headers["retry-after"]
    assert api("GET", "runs?state=ended").status_code in (200, 503)
    metrics = api.client.get("/metrics", headers=api.headers).text
    assert 'crony_up{part="etcd"} 0.0' in metrics and 'crony_up{part="database"} 1.0' in metrics


def test_pages_do_not_wait_for_what_is_known_to_be_away(
    web: Web, own_etcd: EtcdServer, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crony.web.shields.PAUSE", 600.0)
    own_etcd.stop()
    browser.get("/jobs")
    asked = web.client.cluster.endpoints[0].failures
    for path in ("/jobs", "/runs", "/nodes", "/queues"):
        browser.get(path)
    assert web.client.cluster.endpoints[0].failures == asked, "nobody asks again what has just not answered"


def take_away(web: Web, folder: Path) -> None:
    """Make the database really unreachable: its file is gone, and nothing can be opened in its place."""
    web.db.close()
    for file in folder.glob("crony.db*"):
        file.unlink()
    (folder / "crony.db").mkdir()


def test_without_the_database_those_signed_in_still_see_what_is_live(
    web: Web, browser: Browser, api: Api, tmp_path: Path
) -> None:
    archive.write(web.db, [outcome()])
    assert browser.get("/jobs").status_code == 200  # the session is known now
    take_away(web, tmp_path)
    web.health.forget()
    for path in ("/jobs", "/runs", "/nodes", "/queues"):
        answer = browser.get(path)
        assert answer.status_code == 200 and "The database is away" in text_of(answer.text), path
    web.client.put(web.keys.out(RUN, 1), outcome().encode())
    web.live.forget()
    assert "team/report" in browser.get("/runs").text and browser.get(f"/runs/{RUN}").status_code == 200
    assert browser.post("/signout").status_code == 503
    assert browser.get("/account").status_code == 503 and "Traceback" not in browser.get("/account").text
    assert api("GET", "jobs").status_code == 503
    page = browser.client.post("/signin", data={"name": "a", "password": "b"}, headers={"origin": "http://crony.test"})
    assert page.status_code == 503 and "cannot be used now" in page.text


def test_a_web_starts_without_both_and_becomes_ready(own_etcd: EtcdServer, keys: Any, tmp_path: Path) -> None:
    own_etcd.stop()
    parts = Web(web_settings(own_etcd.endpoint, keys.namespace, tmp_path, etcd_timeout=0.3))
    assert parts.health().away == ["etcd"] and not accounts.has_users(parts.db)
    parts.close()


def test_a_shield_asks_again_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    shield, calls = Shield(), []

    def work() -> None:
        calls.append(1)
        raise Unavailable("away")

    for _ in range(3):
        with pytest.raises(Unavailable):
            shield.call(work)
    assert len(calls) == 1
    now = SYSTEM.monotonic()
    monkeypatch.setattr("crony.web.shields.SYSTEM", type("Later", (), {"monotonic": staticmethod(lambda: now + 60)}))
    assert shield.call(lambda: "back") == "back"
