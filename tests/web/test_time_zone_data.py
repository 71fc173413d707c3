"""Time zone data in API, console and commands: which are in use, and a job whose zone is gone can be mended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from crony.cli.main import run
from crony.domain import tzdata, zones
from crony.domain.livejob import LiveJob
from crony.domain.run import Done
from crony.domain.shards import CentreFacts
from crony.domain.signing import peek
from crony.web.wiring import Web
from tests.helpers.zone_files import TOWN, ZoneFiles, zone_files
from tests.web.conftest import Api, Browser, document, text_of


@pytest.fixture
def files(tmp_path: Path) -> Iterator[ZoneFiles]:
    with zone_files(tmp_path / "zoneinfo") as made:
        made.install("2001a", Town="Asia/Tokyo")
        zones.refresh()
        yield made


def centre(web: Web, name: str, release: str, *, leads: bool = False) -> None:
    """A centre that says so of itself."""
    web.client.put(web.keys.centre(name), CentreFacts(name, version="0", tzdata=release).encode())
    if leads:
        web.client.put(web.keys.leader(0), f'{{"name": "{name}", "centre": "{name}"}}'.encode())
    web.live.forget()


def test_which_data_are_in_use_is_shown_everywhere(
    web: Web, api: Api, browser: Browser, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = tzdata.version()
    found = api.client.get("/version", headers=api.headers).json()
    assert (found["tzdata"], found["leader_tzdata"]) == (here, None)
    centre(web, "one", here, leads=True)
    assert api.client.get("/version", headers=api.headers).json()["leader_tzdata"] == here
    assert "different time zone data" not in browser.get("/nodes").text and here in browser.get("/nodes").text
    centre(web, "two", "1999a")
    assert [row["tzdata"] for row in api("GET", "centres").json()["items"]] == [here, "1999a"]
    assert "different time zone data" in browser.get("/nodes").text
    assert f"time zone data: web {here}; centre one {here}; centre two 1999a" in browser.get("/readyz?verbose=1").text
    monkeypatch.setenv("CRONY_ETCD_ENDPOINTS", ",".join(web.settings.etcd_endpoints))
    monkeypatch.setenv("CRONY_NAMESPACE", web.settings.namespace)
    run(["doctor"])
    out, err = capsys.readouterr()
    assert f"this machine has {here}; centre one has {here}; centre two has 1999a" in out
    assert "time zones: try install the same time zone data everywhere" in err


def test_a_job_whose_zone_is_gone_is_shown_and_can_be_mended(
    web: Web, api: Api, browser: Browser, files: ZoneFiles
) -> None:
    api("PUT", "calendars/days", json={"weekdays": ["mon"]})
    schedule = {"cron": "0 9 * * *", "timezone": TOWN, "calendars": {"include": ["days"]}}
    made = api("POST", "jobs", json=document("night/load", schedule=schedule)).json()
    assert made["live_revision"] == 1
    cursor = web.client.get(web.keys.done(made["id"]))
    assert cursor is not None
    earlier = Done(Done.read(cursor.value).upto_at - 100)
    web.client.put(web.keys.done(made["id"]), earlier.encode())
    files.install("2002b", Tower="Asia/Tokyo")
    web.health.forget()
    web.health()
    refused = api("POST", "jobs", json=document("other", schedule=schedule)).json()
    assert refused["field"] == "schedule.timezone" and "did you mean Crony/Tower?" in refused["hint"]
    page = browser.get(f"/jobs/{made['id']}")
    assert page.status_code == 200 and "Its schedule cannot be read here" in text_of(page.text)
    assert browser.get("/jobs").status_code == 200 and api("GET", "jobs").json()["items"][0]["next_fire_at"] is None
    assert api("POST", "jobs/night%2Fload:pause").json()["field"] == "schedule.timezone"
    assert api("PUT", "calendars/days", json={"weekdays": ["tue"]}).status_code == 202, "it follows once it is mended"

    zoned = {**schedule, "timezone": "Crony/Tower"}
    revision = api("GET", "jobs/night%2Fload").json()["revision"]
    mended = api("PUT", "jobs/night%2Fload", json=document("night/load", schedule=zoned),
                 headers={"if-match": f'"{revision}"'})  # fmt: skip
    assert mended.status_code == 200 and mended.json()["live_revision"] == revision + 1
    kv, cursor = web.client.get(web.keys.job(made["id"])), web.client.get(web.keys.done(made["id"]))
    assert kv is not None and cursor is not None
    live = LiveJob.read(peek(kv.value))
    before = live.replaced[-1]
    assert TOWN in before.schedule and before.until_at == live.since_at, "who has the zone can still tell"
    assert Done.read(cursor.value) == earlier, "nothing is passed over in silence"
    assert api("DELETE", "jobs/night%2Fload").status_code == 204


def test_it_can_be_deleted_as_well(web: Web, api: Api, files: ZoneFiles) -> None:
    made = api("POST", "jobs", json=document("a", schedule={"cron": "0 9 * * *", "timezone": TOWN})).json()
    files.install("2002b")
    zones.refresh()
    assert api("DELETE", "jobs/a").status_code == 204
    kv = web.client.get(web.keys.job(made["id"]))
    assert kv is not None and LiveJob.read(peek(kv.value)).deleted
