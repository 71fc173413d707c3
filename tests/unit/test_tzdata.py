"""Time zone data: which release is in use, what a new one changes, and what is said of a zone that is gone."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from crony.domain import hint, tzdata, zones
from crony.domain.fires import fires_between, next_fire
from crony.domain.livejob import LiveJob
from crony.domain.run import Done
from crony.domain.schedule import parse_schedule, parse_schedules
from crony.domain.zones import NoZone, zone
from crony.web import reasons
from crony.web.i18n import translator
from tests.helpers.zone_files import TOWN, ZoneFiles, zone_files

START = int(datetime(2026, 7, 1, tzinfo=UTC).timestamp())
JOB = {"name": "a", "action": {"kind": "shell", "command": ["true"]}}


@pytest.fixture
def files(tmp_path: Path) -> Iterator[ZoneFiles]:
    with zone_files(tmp_path / "zoneinfo") as made:
        made.install("2001a", Town="Asia/Tokyo")
        zones.refresh()
        yield made


def hour(schedule: object) -> int:
    """UTC hour of the next fire."""
    found = next_fire(parse_schedules(schedule), START)
    assert found is not None
    return datetime.fromtimestamp(found, UTC).hour


def test_the_release_is_what_the_files_say(files: ZoneFiles, tmp_path: Path) -> None:
    machine = tzdata.look().split("+", 1)[1]
    assert tzdata.version() == f"2001a+{machine}" and re.fullmatch(r"\d{4}[a-z]+(\+.*)?", machine)
    (files.folder / "tzdata.zi").unlink()
    files.write("+VERSION", b"2002b\n")
    assert tzdata.look().startswith("2002b+")
    (files.folder / "+VERSION").unlink()
    files.write("UTC", b"TZif2 of nobody")
    unnamed = tzdata.look().split("+", 1)[0]
    assert re.fullmatch("sha256-[0-9a-f]{12}", unnamed)
    files.write("Crony/Other", b"TZif2 of somebody")
    assert tzdata.look().split("+", 1)[0] != unnamed, "other contents, another release"
    zoneinfo.reset_tzpath(to=[str(tmp_path / "nothing")])
    assert re.fullmatch(r"\d{4}[a-z]+", tzdata.look()), "the package's alone"


def test_what_is_parsed_follows_new_data(files: ZoneFiles) -> None:
    document = {"cron": "0 9 * * *", "timezone": TOWN}
    schedule, times = parse_schedule(document), zones.refresh()
    assert hour(document) == 0 and zones.refresh() == times, "nothing was installed"
    files.install("2002b", Town="Asia/Kolkata")
    assert hour(document) == 0, "nobody looked yet"
    assert zones.refresh() == times + 1 and tzdata.version().startswith("2002b")
    assert hour(document) == 3 and parse_schedule(document) == schedule
    fires = fires_between([schedule], START, START + 2 * 86400, 9)
    assert [datetime.fromtimestamp(fire, zoneinfo.ZoneInfo(TOWN)).isoformat()[11:] for fire in fires] == [
        "09:00:00+05:30"
    ] * 2, "the standard library follows as well"


def test_a_zone_that_is_gone_says_what_to_do_and_may_come_back(files: ZoneFiles) -> None:
    document = {"cron": "0 9 * * *", "timezone": TOWN}
    schedule = parse_schedule(document)
    files.install("2002b", Tower="Asia/Tokyo")
    zones.refresh()
    for ask in (lambda: schedule.next(START), lambda: schedule.count(START, START + 86400), lambda: zone(TOWN)):
        with pytest.raises(NoZone) as caught:
            ask()
        assert "did you mean Crony/Tower?" in str(caught.value)
    with pytest.raises(NoZone):
        parse_schedule(document)
    said = caught.value.what_to_do
    assert "(2002b" in said and "install other data there, or save the job with another zone" in said
    chinese = reasons.said(said, translator("zh"), "zh")
    assert TOWN in chinese and "是否想写 Crony/Tower？" in chinese
    files.install("2003c", Town="Asia/Tokyo")
    zones.refresh()
    assert schedule.next(START) is not None and parse_schedule(document) == schedule


def test_a_hint_is_good_for_its_revision_and_release_only(files: ZoneFiles) -> None:
    def hinted(schedule: object) -> Done:
        live = LiveJob.created("j1", {**JOB, "schedule": schedule}, now=START)
        return hint.hinted(live, Done(START), live.next_due(START), 7)

    zoned = {"cron": "0 9 * * *", "timezone": TOWN}
    plain = ({"cron": "0 9 * * *"}, {"every": "5m", "timezone": TOWN}, {"at": "2030-01-01T00:00:00Z"}, None)
    local, others = hinted(zoned), [hinted(schedule) for schedule in plain]
    assert hint.trusted(local, 7, 1) and not hint.timeless(local, 7, 1) and not hint.trusted(local, 8, 1)
    assert all(hint.timeless(each, 7, 1) and not hint.timeless(each, 8, 1) for each in others)
    mixed = LiveJob.created("j1", {**JOB, "schedule": zoned}, now=START).edited(
        {**JOB, "schedule": {"every": "5m"}}, revision=2, now=START + 60
    )
    assert not hint.timeless(hint.hinted(mixed, Done(START), mixed.next_due(START), 7), 7, 1), "the replaced one counts"
    files.install("2002b", Town="Asia/Tokyo")
    zones.refresh()
    assert not hint.trusted(local, 7, 1) and all(hint.trusted(each, 7, 1) for each in others)
    assert not hint.trusted(Done(START, due_seen=7), 7, 1), "a hint from before releases were kept"
