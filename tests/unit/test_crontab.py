"""Crontab files: what each line means, and that no line is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crony.catalog.crontab import CrontabResult, parse_crontab
from crony.catalog.crontab_names import harmless
from crony.domain.job import parse
from crony.errors import Invalid

EXAMPLE = Path(__file__).parents[2] / "examples" / "crontab"


def one(text: str, **options: Any) -> dict[str, Any]:
    result = parse_crontab(text, **options)
    assert result.problems == []
    assert len(result.jobs) == 1
    return result.jobs[0]


def keys(result: CrontabResult) -> list[str]:
    return [next(tag for tag in job["tags"] if tag.startswith("crontab:")) for job in result.jobs]


def test_the_example_imports_whole() -> None:
    result = parse_crontab(EXAMPLE.read_text())
    assert result.problems == []
    assert not result.system
    assert len(result.jobs) == 40
    assert len({job["name"] for job in result.jobs}) == 40
    assert len(set(keys(result))) == 40
    assert {job["schedule"]["timezone"] for job in result.jobs} == {"UTC", "Asia/Shanghai", "America/New_York"}
    for job in result.jobs:
        assert parse(job).name == job["name"]


def test_a_line() -> None:
    assert one("# Nightly dump\n15  2 * * *\t/opt/bin/backup.sh --full\n") == {
        "name": "crontab/backup",
        "description": "Nightly dump",
        "tags": ["crontab", keys(parse_crontab("15 2 * * * /opt/bin/backup.sh --full"))[0]],
        "schedule": {"cron": "15 2 * * *", "timezone": "UTC"},
        "overlap": "allow",
        "timeout": "1d",
        "action": {"kind": "shell", "script": "/opt/bin/backup.sh --full", "interpreter": "/bin/sh"},
    }


@pytest.mark.parametrize(
    ("command", "script", "stdin"),
    [
        ("mail -s x you%Hello%you", "mail -s x you", "Hello\nyou\n"),
        ("mail -s x you %Hello%", "mail -s x you", "Hello\n"),
        ("cat%", "cat", ""),
        (r"date +\%F", "date +%F", None),
        (r"echo 100\%%100\% sure", "echo 100%", "100% sure\n"),
        ("echo 'a # b'", "echo 'a # b'", None),
    ],
)
def test_percent(command: str, script: str, stdin: str | None) -> None:
    action = one(f"* * * * * {command}")["action"]
    assert action["script"] == script
    assert action.get("stdin") == stdin


def test_settings_apply_to_the_lines_after_them() -> None:
    result = parse_crontab(
        "* * * * * first\n"
        "SHELL=/bin/bash\nPATH = /usr/bin:/bin\n'LANG'='C.UTF-8'\nMAILTO=ops@example.org\nHOME=/srv/app\nEMPTY=\n"
        "* * * * * second\n"
        'CRON_TZ=Asia/Tokyo\nMAILTO=""\n'
        "* * * * * third\n",
        default_timezone="Europe/Berlin",
    )
    first, second, third = result.jobs
    assert result.problems == []
    assert result.lines == [1, 8, 11]
    assert result.settings == [2, 3, 4, 5, 6, 7, 9, 10]
    assert first["action"] == {"kind": "shell", "script": "first", "interpreter": "/bin/sh"}
    assert first["schedule"]["timezone"] == "Europe/Berlin"
    assert second["action"]["interpreter"] == "/bin/bash"
    assert second["action"]["cwd"] == "/srv/app"
    assert second["action"]["env"] == {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "MAILTO": "ops@example.org",
        "HOME": "/srv/app",
        "EMPTY": "",
    }
    assert second["owner"] == "ops@example.org"
    assert third["schedule"]["timezone"] == "Asia/Tokyo"
    assert "owner" not in third


def test_a_bad_zone_or_shell_stops_the_lines_below_until_it_is_right() -> None:
    result = parse_crontab("CRON_TZ=Mars/Base\n* * * * * a\nCRON_TZ=UTC\n* * * * * b\nSHELL=bash\n* * * * * c\n")
    assert [job["name"] for job in result.jobs] == ["crontab/b"]
    assert [problem.line for problem in result.problems] == [1, 2, 5, 6]
    assert "CRON_TZ on line 1" in result.problems[1].why


def test_a_variable_that_jobs_may_not_set_is_reported() -> None:
    result = parse_crontab("PYTHONPATH=/x\nRANDOM_DELAY=soon\n* * * * * a\n")
    assert [(problem.line, problem.text) for problem in result.problems] == [
        (1, "PYTHONPATH=/x"),
        (2, "RANDOM_DELAY=soon"),
    ]
    assert "imported without it" in result.problems[0].why
    assert "env" not in result.jobs[0]["action"]


def test_a_random_delay_is_a_jitter_of_the_lines_below() -> None:
    result = parse_crontab("0 1 * * * a\nRANDOM_DELAY=30\n0 2 * * * b\nRANDOM_DELAY=0\n0 3 * * * c\n")
    assert [job["schedule"].get("jitter") for job in result.jobs] == [None, "30m", None]


SYSTEM = """# /etc/crontab
SHELL=/bin/sh
17 *\t* * *\troot\tcd / && run-parts --report /etc/cron.hourly
25 6 * * *  www-data  /usr/bin/php /srv/app/cron.php
@daily root /usr/sbin/logrotate /etc/logrotate.conf
"""


@pytest.mark.parametrize("system", [True, None])
def test_user_column(system: bool | None) -> None:
    result = parse_crontab(SYSTEM, system=system)
    assert result.system
    assert result.problems == []
    assert [job["owner"] for job in result.jobs] == ["root", "www-data", "root"]
    assert [job["action"]["script"] for job in result.jobs] == [
        "cd / && run-parts --report /etc/cron.hourly",
        "/usr/bin/php /srv/app/cron.php",
        "/usr/sbin/logrotate /etc/logrotate.conf",
    ]
    assert "user:www-data" in result.jobs[1]["tags"]


@pytest.mark.parametrize(
    ("text", "system"),
    [
        ("* * * * * git pull\n0 * * * * git gc\n", False),
        ("* * * * * backup now\n", False),
        ("* * * * * root /x\n* * * * * /opt/y z\n", False),
        ("* * * * * root /x\n* * * * * backup /y\n", True),
        ("# m h dom mon dow user command\n* * * * * app /opt/x\n", True),
        ("# m h  dom mon dow   command\n* * * * * app /opt/x\n", False),
        ("", False),
    ],
)
def test_guessing_the_user_column(text: str, system: bool) -> None:
    assert parse_crontab(text).system is system


def test_a_missing_user_is_a_problem() -> None:
    result = parse_crontab("* * * * * /opt/x y\n* * * * * root\n", system=True)
    assert [problem.line for problem in result.problems] == [1, 2]
    assert "is not a user name" in result.problems[0].why
    assert "command: is missing" in result.problems[1].why


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("@reboot /opt/x", "no meaning on a cluster"),
        ("@every_minute /opt/x", "@every is not cron"),
        ("61 * * * * x", "minute: 61 is not between 0 and 59"),
        ("0 0 30 2 * x", "never fires"),
        ("* * * *", "neither five fields and a command"),
        ("* * * * *", "command: is missing"),
        ("@daily", "command: is missing"),
        ("* * * * * %only input", "is empty before its first %"),
        ("garbage", "neither five fields and a command"),
        ("H H * * * x", "`h` means nothing here"),
        ("* * * * * a\0b", "NUL"),
        ("* * * * * " + "x" * 40_000, "at most 32768"),
        ("* * * * * \udcff", "surrogate"),
    ],
)
def test_problems_name_the_line(line: str, why: str) -> None:
    result = parse_crontab(f"* * * * * before\n\n{line}\n* * * * * after\n")
    assert [job["name"] for job in result.jobs] == ["crontab/before", "crontab/after"]
    (problem,) = result.problems
    assert problem.line == 3
    assert why in problem.why
    assert problem.text.isprintable()
    assert len(problem.text) <= 201


def test_the_minus_that_silences_syslog_is_accepted() -> None:
    assert one("-*/5 * * * * x")["schedule"]["cron"] == "*/5 * * * *"


def test_comments() -> None:
    result = parse_crontab(
        "# A heading of the file\n\n# m h dom mon dow command\n# Two lines\n# about it\n* * * * * a\n"
        "# 0 5 * * * /opt/disabled\n* * * * * b\n#####\n* * * * * c\n   # indented\n  * * * * *   d\n"
    )
    assert [job.get("description") for job in result.jobs] == ["Two lines\nabout it", None, None, "indented"]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/usr/local/bin/backup-mysql --database shop", "crontab/backup-mysql"),
        ("cd /srv/app && ./bin/close_day.py --all", "crontab/close_day"),
        ("test -x /usr/sbin/anacron || run-parts /etc/cron.daily", "crontab/run-parts"),
        ("[ -x /a ] && nice -n 5 /opt/x.sh", "crontab/x"),
        ("sudo -u www-data php /var/www/occ files:scan", "crontab/occ-files-scan"),
        ("flock -n /run/lock/x.lock /opt/push-metrics", "crontab/push-metrics"),
        ("FOO=1 BAR=2 /usr/bin/env python3 -m tool.report weekly", "crontab/tool.report-weekly"),
        ("timeout 30m rsync -a /x /y", "crontab/rsync"),
        ("certbot renew --quiet", "crontab/certbot-renew"),
        ("sleep 5", "crontab/command"),
        ("'unmatched", "crontab/unmatched"),
        ("/opt/每日/结算", "crontab/command"),
    ],
)
def test_names(command: str, name: str) -> None:
    assert one(f"* * * * * {command}")["name"] == name


def test_names_that_collide_keep_the_first_and_mark_the_others() -> None:
    text = "0 1 * * * psql -f a\n0 2 * * * psql -f b\n0 3 * * * psql -f c\n"
    names = [job["name"] for job in parse_crontab(text).jobs]
    assert names[0] == "crontab/psql"
    assert len(set(names)) == 3
    assert all(name.startswith("crontab/psql-") for name in names[1:])
    assert [job["name"] for job in parse_crontab(text).jobs] == names


def test_importing_again_is_recognised() -> None:
    before = parse_crontab("0 1 * * * a\n@daily b\n* * * * * c\n* * * * * c\n")
    after = parse_crontab(
        "LANG=C\n# new comment\n* * * * *\tc\n0  1 * * * a\n\n0 0 * * * b\n* * * * * c\n* * * * * new\n"
    )
    assert len(set(keys(before))) == 4, "equal lines run twice and are two jobs"
    assert set(keys(before)) < set(keys(after))


def test_a_file_that_is_none() -> None:
    with pytest.raises(Invalid, match="is larger than"):
        parse_crontab("x\n" * 30_000)
    with pytest.raises(Invalid) as caught:
        parse_crontab("", default_timezone="Mars/Base")
    assert caught.value.field == "timezone"


LINES = st.sampled_from(EXAMPLE.read_text().splitlines()) | st.text(
    "0159*/,- \t@%\\#=abAB'\"\0\u202e\udc80é\x1b", max_size=30
)


@given(st.lists(LINES, max_size=15), st.sampled_from([None, True, False]), st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=200, deadline=None)
def test_no_line_is_lost(lines: list[str], system: bool | None, end: str) -> None:
    """Every line that is not blank and no comment is a job, a setting or a problem, exactly once."""
    text = end.join(lines)
    result = parse_crontab(text, system=system)
    rows = text.replace("\r\n", "\n").split("\n")
    meant = [number for number, row in enumerate(rows, 1) if row.strip(" \t") and not row.strip(" \t").startswith("#")]
    found = sorted([*result.lines, *result.settings, *(problem.line for problem in result.problems)])
    assert found == meant
    assert len(result.jobs) == len(result.lines)
    assert len({job["name"] for job in result.jobs}) == len(result.jobs)
    for job in result.jobs:
        assert parse(parse(job).document())
    assert parse_crontab(text, system=system) == result


def test_harmless_keeps_all_but_the_command() -> None:
    for job in parse_crontab(EXAMPLE.read_text()).jobs:
        tame = harmless(job)
        assert {**tame, "action": None} == {**job, "action": None}
        assert parse(tame)
        assert set(tame["action"]) == {"kind", "script", "interpreter"}
        first, *rest = tame["action"]["script"].split("\n")
        assert first.startswith("echo 'would run: ")
        assert all(line in ("date -u", "echo done") or line.startswith("sleep ") for line in rest)


def test_harmless_quotes_what_it_shows() -> None:
    tame = harmless({"name": "x", "action": {"kind": "shell", "script": "echo '; rm -rf /\n$(reboot)'"}})
    assert tame["action"]["script"].split("\n")[0] == "echo 'would run: echo '\"'\"'; rm -rf /'"
