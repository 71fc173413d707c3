"""`schedule explain`: likely mistakes, clock changes next to the fires, words in both languages, the command."""

from __future__ import annotations

import json
import re

import pytest

from crony.cli.main import run
from crony.domain.lint import advise
from crony.domain.schedule import parse_schedules
from crony.web import refusals
from crony.web.explaining import explain

NOW = 1_795_348_800  # 2026-11-22T12:00:00Z


@pytest.mark.parametrize(
    ("dialect", "text", "code", "fix"),
    [
        ("cron", "*/7 * * * *", "uneven_step", "every: 7m"),
        ("cron", "0 */5 * * *", "uneven_step", "divides 24"),
        ("cron", "0 0 */2 * *", "uneven_step", "every: 2d"),
        ("cron", "H/7 * * * *", "uneven_step", "every: 7m"),
        ("cron", "* 2 * * *", "every_minute", "write 0"),
        ("cron", "0 0 13 * 5", "either_day", "`*`"),
        ("cron", "0 0 31 * *", "short_months", "L"),
        ("cron", "0 0 30 * *", "short_months", "L"),
        ("cron6", "* 30 2 * * *", "every_second", "write 0"),
        ("cron6", "*/40 * * * * *", "uneven_step", "every: 40s"),
        ("quartz", "* 0/5 * * * ?", "every_second", "write 0"),
        ("quartz", "0 0/7 * * * ?", "uneven_step", "every: 7m"),
        ("quartz", "0 0 12 ? * 2-6", "numeric_weekday", "write MON-FRI"),
        ("quartz", "0 0 12 ? * 6#3", "numeric_weekday", "write FRI#3"),
        ("quartz", "0 0 12 ? * 2/3", "numeric_weekday", "write MON/3"),
        ("quartz", "0 0 12 * * ? 2020", "over", "later"),
        ("cron", "0 0 * * 6#3", "numeric_weekday", "write SAT#3"),
        ("cron", "0 0 * * 7L", "numeric_weekday", "write SUNL"),
        ("cron6", "0 0 0 * * 0#1,mon", "numeric_weekday", "write SUN#1,MON"),
    ],
)
def test_a_likely_mistake_is_named_with_its_fix(dialect: str, text: str, code: str, fix: str) -> None:
    (found,) = advise(parse_schedules({"cron": text, "dialect": dialect}), NOW)
    assert (found.code, found.field) == (code, "schedule.cron") and fix in found.hint
    for sentence in (found.problem, found.hint):
        assert re.search("[\u4e00-\u9fff]", refusals.said(sentence, "zh")), sentence


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        ("cron", "30 1 * * *"), ("cron", "*/5 9-17 * * mon-fri"), ("cron", "* 9-17 * * *"), ("cron", "0 */6 * * *"),
        ("cron", "0 0 L * *"), ("cron", "0 0 31 1,12 *"), ("cron", "0 0 13 * */5"), ("cron", "H H * * *"),
        ("cron", "0 0 1-31/2 * *"), ("cron", "0 0 30 1,4 *"),
        ("cron", "0 0 * * friL"), ("cron6", "*/10 * * * * *"), ("cron6", "0 0 0 * * 1"),
        ("quartz", "0 0/15 8-17 ? * MON-FRI"), ("quartz", "0 0 12 LW * ? 2026-2030"), ("quartz", "0 0 0 ? * FRI#2"),
    ],
)  # fmt: skip
def test_what_is_meant_as_written_is_left_alone(dialect: str, text: str) -> None:
    assert advise(parse_schedules({"cron": text, "dialect": dialect}), NOW) == []


def test_the_field_of_one_of_several_schedules_is_named() -> None:
    schedules = parse_schedules([{"every": "5m"}, {"at": "2020-01-01T00:00:00Z"}, {"cron": "*/7 * * * *"}])
    assert [found.field for found in advise(schedules, NOW)] == ["schedule[2].cron"]


def marks(document: dict[str, str], after: int, n: int) -> list[tuple[str, list[str]]]:
    """Local time and kinds of marks of the next fires."""
    found = explain({"schedule": {"timezone": "America/New_York", **document}}, n, after)
    return [(fire["local"][:16], [mark["kind"] for mark in fire["marks"]]) for fire in found["fires"]]


SPRING, AUTUMN = 1_772_863_200, 1_793_448_000  # noon to noon before the changes of 8 March and 1 November 2026


@pytest.mark.parametrize(
    ("document", "after", "expected"),
    [
        ({"cron": "30 2 * * *"}, SPRING, [("2026-03-07T02:30", []), ("2026-03-08T03:00", ["clocks", "shifted"]),
                                          ("2026-03-09T02:30", [])]),
        ({"cron": "30 2 * * *", "dst": "elapsed"}, SPRING, [("2026-03-07T02:30", []),
                                                            ("2026-03-09T02:30", ["clocks", "skipped"])]),
        ({"cron": "0 1 * * *"}, AUTUMN, [("2026-11-01T01:00", ["first"]), ("2026-11-02T01:00", ["clocks"])]),
        ({"cron": "30 1 * * *"}, AUTUMN, [("2026-11-01T01:30", ["first"]), ("2026-11-02T01:30", ["clocks"])]),
        ({"cron": "30 1 * * *", "dst": "both"}, AUTUMN, [("2026-11-01T01:30", ["first"]),
                                                         ("2026-11-01T01:30", ["clocks", "second"]),
                                                         ("2026-11-02T01:30", [])]),
        ({"cron": "0 2 * * *"}, AUTUMN, [("2026-11-01T02:00", ["clocks"]), ("2026-11-02T02:00", [])]),
        ({"every": "1d"}, AUTUMN, [("2026-10-31T20:00", []), ("2026-11-01T19:00", ["clocks"])]),
    ],
)  # fmt: skip
def test_clock_changes_are_marked(document: dict[str, str], after: int, expected: list[tuple[str, list[str]]]) -> None:
    assert marks(document, after, len(expected)) == expected


def test_words_in_both_languages_and_marks_in_the_one_asked_for() -> None:
    found = explain({"schedule": {"cron": "0 30 2 ? * SUN#2", "dialect": "quartz", "timezone": "America/New_York"}}, 1,
                    SPRING, "zh")  # fmt: skip
    assert found["words"] == {
        "en": "at 02:30 on the second Sunday of the month (America/New_York)",
        "zh": "每月第二个周日，02:30 (America/New_York)",
    }
    said = [mark["words"] for mark in found["fires"][0]["marks"]]
    assert said == ["自上一次以来时钟由 -05:00 变为 -04:00", "当天没有 02:30:00，改在空隙结束时触发"]


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    after = ["--tz", "Asia/Shanghai", "-n", "2", "--after", "2026-11-22T12:00:00Z"]
    assert run(["schedule", "explain", "0 30 1 ? * 2", "--dialect", "quartz", *after]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "周一，01:30 (Asia/Shanghai)"
    assert "2026-11-23T01:30:00+08:00  周一" in out and "请写 MON" in err
    assert run(["schedule", "explain", "H H * * *", "--lang", "en", "-o", "json", *after]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["example"] is True and len(found["fires"]) == 2
    assert run(["schedule", "explain", "H H * * *", "--job", "ja", "--lang", "en", *after]) == 0
    assert "at 17:20 every day (Asia/Shanghai)" in capsys.readouterr().out
    assert run(["schedule", "explain", "0 0 12 * * ?"]) == 2
    assert "dialect: quartz" in capsys.readouterr().err
