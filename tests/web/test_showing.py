"""The small things pages are made of: times, durations, words, colours of output, drawings."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

import crony.web
from crony.domain.schedule import parse_schedule
from crony.web import ansi, formats, reasons, svg, words
from crony.web.guard import routing_path
from crony.web.i18n import translator
from crony.web.pages.common import local_path, without_done

ZH = translator("zh")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"), (0, "0 ms"), (0.0451, "45 ms"), (1, "1.0 s"), (9.96, "10.0 s"), (10, "10 s"), (59.6, "1 m"),
        (61, "1 m 1 s"), (3600, "1 h"), (7500, "2 h 5 m"), (90000, "1 d 1 h"), (-5, "−5.0 s"),
    ],
)  # fmt: skip
def test_durations_are_in_units_people_think_in(seconds: float | None, text: str) -> None:
    assert formats.duration(seconds) == text


def test_times_always_have_a_zone() -> None:
    assert formats.absolute(1795300000, "Asia/Shanghai") == "2026-11-22 06:26:40 +08:00 Asia/Shanghai"
    assert formats.absolute(1795300000, "UTC") == "2026-11-21 22:26:40 UTC"
    assert formats.absolute(1795300000, "../x") == "2026-11-21 22:26:40 UTC"
    assert formats.short(1, "America/New_York").endswith("-05:00")
    assert formats.relative(130, 0, translator("en")) == "in 2 m 10 s" and formats.relative(0, 5, ZH) == "5 秒前"


@pytest.mark.parametrize(
    ("schedule", "english", "chinese"),
    [
        (
            {"cron": "30 1 * * *", "timezone": "Asia/Shanghai"},
            "at 01:30 every day (Asia/Shanghai)",
            "每天 01:30 (Asia/Shanghai)",
        ),
        ({"cron": "*/5 * * * *"}, "every 5 minutes (UTC)", "每 5 分钟 (UTC)"),
        ({"cron": "0 */6 * * *"}, None, None),
        ({"cron": "5 */2 * * *"}, None, None),
        ({"cron": "0 * * * *"}, "every hour (UTC)", "每小时 (UTC)"),
        ({"cron": "0 9,18 * * 1,3"}, None, "周一、周三，09:00、18:00 (UTC)"),
        ({"cron": "0 0 1,15 * *"}, None, "每月 1、15 日，00:00 (UTC)"),
        ({"cron": "0 0 1 1 *"}, None, "1月，每月 1 日，00:00 (UTC)"),
        ({"cron": "7,37 8-20 * * *"}, None, None),
        ({"every": "90m"}, None, "每 1 小时 30 分钟"),
        ({"every": "1d"}, "every day", "每天"),
        (
            {
                "every": "1d",
                "start": "2030-01-01T00:00:00Z",
                "end": "2031-01-01T00:00:00+08:00",
                "count": 3,
                "jitter": "90s",
            },
            None,
            "每天，自 2030-01-01T00:00:00Z 起，2031-01-01T00:00:00+08:00 之前，最多 3 次，最多晚 1 分钟 30 秒",
        ),
        ({"at": "2030-01-01T00:00:00Z"}, "once at 2030-01-01T00:00:00Z", "一次，2030-01-01T00:00:00Z"),
    ],
    ids=str,
)
def test_schedules_are_said_in_both_languages(
    schedule: dict[str, str], english: str | None, chinese: str | None
) -> None:
    said = parse_schedule(schedule).describe()
    assert english is None or said == english
    found = words.localized(said, ZH, "zh")
    assert chinese is None or found == chinese
    assert " on " not in found and "every" not in found


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("exit code 127 (command not found)", "退出码 127（找不到命令）"),
        ("still running after 0.5 s; its processes were ended", "超过 0.5 秒仍未结束；进程已被结束"),
        ("its turn among 3 nodes, weight 100 of 250", "3 个节点轮到它，权重 100 / 250"),
        (
            "the request was not sent: no instance of billing that speaks http or https is registered",
            "未发送：没有已注册的 billing 实例支持 http or https",
        ),
        ("mail.example.org cannot be reached: Connection refused", "无法连接 mail.example.org：没有程序在监听"),
        ("exit code 1; something new", "exit code 1; something new"),
        ("%(n)s", "%(n)s"),
        ("", ""),
    ],
)
def test_reasons_are_said_in_chinese_or_left_whole(english: str, chinese: str) -> None:
    assert reasons.said(english, ZH, "zh") == chinese
    assert reasons.said(english, translator("en"), "en") == english


def test_a_sentence_nobody_translated_stays_english() -> None:
    assert words.localized("whenever the moon is full (UTC)", ZH, "zh") == "whenever the moon is full (UTC)"


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("<b>&\"'", "&lt;b&gt;&amp;&quot;&#x27;"),
        ("\x1b[1;31merr\x1b[0m ok", '<span class="ansi-bold ansi-red">err</span> ok'),
        ("\x1b[38;5;196mx\x1b[m\x1b[38;2;1;2;3my", "xy"),
        ("\x1b[42mx\x1b[49my", '<span class="ansi-bg-green">x</span>y'),
        ("a\x1b[2Jb\x1b[10;10Hc\x1b]8;;http://evil\x07d\x1b\\e", "abcde"),
        ("\x1b[31", "[31"),
        ("a\r\nb\rc\td", 'a\nb<span class="ansi-control">␍</span>c\td'),
        ("\x00\x7f", '<span class="ansi-control">␀</span><span class="ansi-control">␡</span>'),
        ("\x9b", '<span class="ansi-control">⟨U+009B⟩</span>'),
        ("\u202eabc\u2066", '<span class="ansi-control">⟨U+202E⟩</span>abc<span class="ansi-control">⟨U+2066⟩</span>'),
    ],
)  # fmt: skip
def test_output_is_escaped_and_only_colours_are_obeyed(text: str, html: str) -> None:
    assert str(ansi.to_html(text)) == html


def test_long_and_broken_sequences_take_no_time() -> None:
    for text in ("\x1b[" + "1;" * 50_000, "\x1b]" * 50_000, "\x1b" * 100_000, "\x1b[31m" * 20_000):
        assert "<script" not in ansi.to_html(text + "<script")


def test_a_sparkline_is_readable_without_colour() -> None:
    bars = [svg.Bar("succeeded", 1.0, "/runs/a", "ok"), svg.Bar("failed", 2.0, '/runs/"b', "<bad>")]
    drawn = str(svg.sparkline(bars, 'a "label"'))
    assert 'role="img"' in drawn and 'aria-label="a &quot;label&quot;"' in drawn
    assert "&lt;bad&gt;" in drawn and drawn.count("spark-notch") == 1 and "style=" not in drawn
    assert drawn.count("spark-none") == 18
    assert "spark-none" in str(svg.sparkline([], "none"))


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/api/v1/jobs/a%2Fb:run", "/api/v1/jobs/a%2Fb:run"),
        (b"/api/v1/jobs/a%2fb%3Arun", "/api/v1/jobs/a%2Fb%3Arun"),
        (b"/api/v1/jobs/100%25", "/api/v1/jobs/100%25"),
        (b"/jobs/%E4%B8%AD?x=1", "/jobs/中"),
        (b"/a%2Fb", "/a%2Fb"),
        (b"/x/%252F", "/x/%252F"),
    ],
)
def test_a_slash_inside_a_name_is_no_slash_of_the_path(raw: bytes, path: str) -> None:
    assert routing_path(raw) == path


@pytest.mark.parametrize(
    "target",
    ["", "runs", "http://x/", "//x", "///x", "/\\x", "\\\\x", "/a\tb", "/signin", "/signout?x", "/" + "a" * 3000],
)
def test_only_paths_of_this_console_are_gone_to(target: str) -> None:
    assert local_path(target) == "/jobs"


def test_an_old_notice_is_dropped_from_an_address() -> None:
    assert without_done("/jobs?q=a&done=paused&show=on") == "/jobs?q=a&show=on"
    assert without_done("/jobs?done=paused") == "/jobs" and local_path("/runs?show=bad") == "/runs?show=bad"


def test_vendored_files_are_those_that_the_list_names() -> None:
    folder = Path(crony.web.__file__).parent / "static" / "vendor"
    listed = dict(
        re.findall(r"^\| `([^`]+)` .* `([0-9a-f]{64})` \|$", (folder / "README.md").read_text(), re.MULTILINE)
    )
    present = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if file.suffix not in (".md", ".LICENSE")
    }
    assert listed == present
    assert {file.stem for file in folder.glob("*.LICENSE")} == {name.split("-")[0] for name in listed}
