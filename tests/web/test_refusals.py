"""Why input was refused is said in Chinese too: every message of the code has its text, and each is found again."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

import crony
from crony.errors import Conflict, CronyError, Invalid, NotFound
from crony.web import refusals
from tests.web.conftest import Browser, document, text_of

ROOT = Path(crony.__file__).parent
FILES = (
    "domain/check.py", "domain/job.py", "domain/placing.py", "domain/schedule.py", "domain/cron.py", "domain/action.py",
    "domain/http_action.py", "domain/grpc_action.py", "domain/template.py", "domain/shell_action.py",
    "domain/dialects.py", "domain/hashed.py", "domain/quartz.py", "domain/lint.py",
    "domain/durations.py", "domain/instants.py", "domain/window.py",
    "domain/calendar.py", "catalog/keeping.py", "catalog/objects.py", "catalog/calendars.py", "web/pages/calendars.py",
    "domain/pool.py", "domain/secret.py", "domain/sealing.py", "catalog/secrets.py",
    "web/pages/secrets.py", "web/pages/pools.py",
    "domain/channel.py", "domain/alerting.py", "catalog/channels.py", "web/pages/channels.py",
    "domain/zones.py", "web/app.py", "web/documents.py", "web/job_fields/reading.py", "web/job_fields/when.py",
    "web/job_fields/chain.py", "web/job_fields/shell.py", "web/job_fields/http.py", "web/pages/job_form.py",
    "catalog/jobs.py", "lifecycle/publish.py", "domain/backfill.py", "web/pages/backfills.py", "web/backfilling.py",
    "lifecycle/backfill.py", "domain/after.py", "catalog/chains.py", "domain/crontext.py",
    "domain/naming.py", "domain/params.py",
)  # fmt: skip
NAMES = {"hint", "why", "problem", "_HINT"}
"""Variables that hold a message on its way into an error."""


def _templates(node: ast.expr) -> Iterator[str]:
    """What an expression can say, with `%(a)s` for what is filled in; nothing for what another line writes out."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value:
        yield node.value.replace("%", "%%")
    elif isinstance(node, ast.JoinedStr):
        letters = iter(string.ascii_lowercase)
        yield "".join(
            part.value.replace("%", "%%") if isinstance(part, ast.Constant) else f"%({next(letters)})s"
            for part in node.values
        )
    elif isinstance(node, ast.IfExp):
        yield from _templates(node.body)
        yield from _templates(node.orelse)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield from (f"{text}%(z)s" for text in _templates(node.left))


def _spoken() -> set[str]:
    """Every message in the code that the job form may show."""
    found: set[str] = set()
    for file in FILES:
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
            given: list[ast.expr] = []
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("Invalid", "NoZone", "Conflict", "NoSecretKey", "NotFound", "Advice")
            ):
                said = {"Invalid": 1, "NoZone": 1, "Advice": 2}.get(node.func.id, 0)
                given = node.args[said : said + 1]
                given = given + [word.value for word in node.keywords if word.arg in ("hint", "why")]
            elif isinstance(node, ast.Assign) and {t.id for t in node.targets if isinstance(t, ast.Name)} & NAMES:
                given = [node.value]
            elif isinstance(node, ast.FunctionDef) and node.name == "_suggest":
                given = [each.value for each in ast.walk(node) if isinstance(each, ast.Return) and each.value]
            for expression in given:
                found.update(_templates(expression))
    return found


def test_every_message_of_the_form_has_a_chinese_one_and_none_is_left_over() -> None:
    spoken, known = _spoken(), set(refusals.templates("zh"))
    assert len(spoken) > 200
    assert sorted(spoken - known) == [], "without a Chinese text"
    assert sorted(known - spoken) == [], "said nowhere"


@pytest.mark.parametrize("template", sorted(_spoken()))
def test_each_message_is_found_again_by_its_template(template: str) -> None:
    filled = re.sub(r"%\(\w\)s", "7", template).replace("%%", "%")
    said = refusals.said(filled, "zh")
    assert re.search("[\u4e00-\u9fff]", said), said
    assert said.count("7") >= len(re.findall(r"%\(\w\)s", template)), "what was filled in stays"
    assert refusals.said(filled, "en") == filled


def test_translations_take_the_same_values() -> None:
    for english, chinese in refusals.templates("zh").items():
        assert set(re.findall(r"%\((\w)\)s", english)) == set(re.findall(r"%\((\w)\)s", chinese)), english


@pytest.mark.parametrize(
    ("error", "chinese"),
    [
        (Invalid("name", "is 2000 characters long; at most 200"), "name: 长度为 2000 个字符，最多 200 个"),
        (Invalid("schedule.cron", "day of week: `8` cannot be read"), "schedule.cron: 星期：无法识别 `8`"),
        (Invalid("", "the document is nested too deeply"), "文档嵌套过深"),
        (NotFound("There is no job a/b", why="it was deleted"), "没有作业 a/b。它已被删除"),
        (Invalid("x", "something nobody translated"), "x: something nobody translated"),
        (Conflict("There is a job a/b already", why="it is at revision 3, you edited 2"),
         "已经有名为 a/b 的作业。现在是版本 3，你编辑的是 2"),
        (CronyError("%(a)s % {", why="x" * 5000), "%(a)s % {。" + "x" * 5000),
    ],
    ids=range(7),
)  # fmt: skip
def test_sentences(error: CronyError, chinese: str) -> None:
    assert refusals.sentence(error, "zh") == chinese
    assert not re.search("[\u4e00-\u9fff]", refusals.sentence(error, "en"))


@pytest.mark.parametrize(
    ("changes", "english", "chinese"),
    [
        ({"name": ""}, "is empty", "不能为空 – 请填写内容，或省略该字段"),
        ({"cron": "61 * * * *"}, "minute: 61 is not between 0 and 59", "分：61 不在 0 到 59 之间 – 请用 0-59"),
        ({"cron": "* * *"}, "has 3 fields instead of five", "应为五个字段"),
        ({"timezone": "Asia/Shangai"}, "no time zone is called Asia/Shangai", "时区 – 是否想写 Asia/Shanghai？"),
        ({"timeout": "5 parsecs"}, "is not a duration", "不是时长 – 请写数字和单位"),
        ({"command": "echo 'it"}, "has a quote that is not closed", "引号没有闭合"),
        ({"params": "{"}, "is not JSON", "不是 JSON：第 1 行第 2 列"),
        ({"priority": "high"}, "must be a whole number", "必须是整数"),
        ({"labels": "zone"}, "has no `=` in `zone`", "`zone` 中缺少 `=`"),
        ({"env": "LD_PRELOAD=x"}, "may not be set by a job", "作业不得设置"),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else "",
)  # fmt: skip
def test_the_form_refuses_in_the_readers_language(
    browser: Browser, changes: dict[str, str], english: str, chinese: str
) -> None:
    fields = {
        "name": "a",
        "command": "date",
        "schedule_kind": "cron",
        "cron": "0 2 * * *",
        "timezone": "UTC",
        **changes,
    }
    first = browser.post("/jobs/new", fields)
    assert first.status_code == 422 and english in text_of(first.text).replace("&#39;", "'")
    browser.client.cookies.set("crony_lang", "zh")
    second = browser.post("/jobs/new", fields)
    assert second.status_code == 422 and chinese in text_of(second.text) and english not in text_of(second.text)


def test_the_preview_and_a_lost_race_are_in_chinese_too(browser: Browser, web: crony.web.wiring.Web) -> None:
    browser.client.cookies.set("crony_lang", "zh")
    preview = browser.post("/jobs/preview", {"schedule_kind": "cron", "cron": "@reboot"})
    assert "@reboot 在集群上没有意义" in text_of(preview.text)
    web.catalog.create(document("taken"), "ann")
    again = browser.post("/jobs/new", {"name": "taken", "command": "date"})
    assert again.status_code == 409 and "已经有名为 taken 的作业" in text_of(again.text)
    assert "请换一个名称，或编辑那个作业" in text_of(again.text)
