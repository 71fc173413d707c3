"""The job form: every kind of job is made and edited by it; nothing typed is lost, nothing it cannot say either."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import pytest

from crony.domain.job import parse
from crony.web import job_fields
from crony.web.wiring import Web
from tests.web.conftest import BASE, Browser, document, text_of

FORM = {**job_fields.DEFAULTS, "name": "team/report", "command": "/bin/report --all 'two words'", "mode": "form"}


def form(**changes: str) -> dict[str, str]:
    """A filled-in form as a browser sends it: unchecked boxes are absent."""
    fields = {**FORM, **changes}
    return {key: value for key, value in fields.items() if not (key in job_fields.FLAGS and value == "")}


class Sent(HTMLParser):
    """What a browser sends when the job form of a page is saved as it stands."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self._inside, self._area, self._choice = False, "", ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Controls and their values; a box or a radio only when it is on."""
        given = {name: value or "" for name, value in attrs}
        self._inside = self._inside or given.get("id") == "job-form"
        name = given.get("name", "")
        if not self._inside:
            return
        if tag == "textarea":
            self._area, self.found[name] = name, ""
        elif tag == "select":
            self._choice = name
        elif tag == "option" and self._choice and ("selected" in given or self._choice not in self.found):
            self.found[self._choice] = given["value"]
        elif tag == "input" and name:
            assert name not in self.found or given["type"] == "radio", f"{name} stands twice"
            if given.get("type") not in ("radio", "checkbox") or "checked" in given:
                self.found[name] = re.sub("[\\r\\n]", "", given["value"])

    def handle_data(self, data: str) -> None:
        """Text of an area."""
        if self._area:
            self.found[self._area] += data

    def handle_endtag(self, tag: str) -> None:
        """Where the form, an area or a choice ends."""
        if tag == "textarea" and self._area:
            self.found[self._area] = re.sub("\r\n?", "\n", self.found[self._area]).removeprefix("\n")
            self._area = ""
        elif tag == "select":
            self._choice = ""
        elif tag == "form":
            self._inside = False


def value_of(html: str, name: str) -> str:
    """The value of a field."""
    return Sent(html).found[name]


def test_a_filled_in_form_makes_a_job(web: Web, browser: Browser) -> None:
    fields = form(
        cron="30 1 * * 1-5", timezone="Asia/Shanghai", tags="money，night", env="LANG=C.UTF-8\nEMPTY=",
        params='{"region": "cn"}', retry_max="2", labels="zone=a, gpu=yes", overlap="allow",
    )  # fmt: skip
    answer = browser.post("/jobs/new", fields)
    assert answer.status_code == 303 and answer.headers["location"].endswith("?done=created")
    made = web.catalog.get("team/report").document
    assert made["action"]["command"] == ["/bin/report", "--all", "two words"]
    assert made["action"]["env"] == {"LANG": "C.UTF-8", "EMPTY": ""}
    assert made["tags"] == ["money", "night"] and made["params"] == {"region": "cn"}
    assert made["routing"]["labels"] == {"gpu": "yes", "zone": "a"} and made["retry"]["max"] == 2


def test_a_dialect_is_kept_and_the_preview_warns_and_says_what_is_an_example(web: Web, browser: Browser) -> None:
    fields = form(cron="0 H 1 ? * 2", dialect="quartz")
    preview = text_of(browser.post("/jobs/preview", fields).text)
    assert "Quartz counts weekdays from 1 = Sunday (write MON)" in preview and "H is an example here" in preview
    browser.post("/jobs/new", fields)
    view = web.catalog.get("team/report")
    assert view.document["schedule"]["dialect"] == "quartz"
    page = browser.get(f"/jobs/{view.id}/edit").text
    assert '<option value="quartz" selected>' in page and "H is an example here" not in page
    hidden = {"job": view.id} if f'name="job" value="{view.id}"' in page else {}
    assert "H is an example here" not in text_of(browser.post("/jobs/preview", fields | hidden).text)
    assert "warn" not in (refused := browser.post("/jobs/preview", form(cron="0 0 1 * * ?")).text)
    assert "dialect: quartz" in text_of(refused)


WRONG: tuple[tuple[dict[str, str], str, str], ...] = (
    ({"cron": "61 * * * *"}, "cron", "minute"),
    ({"schedule_kind": "every", "every": "5"}, "every", "duration"),
    ({"schedule_kind": "at", "at": "2026-12-01 09:00"}, "at", "RFC 3339"),
    ({"timezone": "Asia/Peking"}, "timezone", "zone"),
    ({"start": "2026-12-01"}, "start", "RFC 3339"),
    ({"count": "3"}, "count", "needs"),
    ({"jitter": "5"}, "jitter", "duration"),
    ({"name": "a\x08"}, "name", ""),
    ({"name": ""}, "name", ""),
    ({"command": "it's"}, "command", "quote"),
    ({"command": ""}, "command", "empty"),
    ({"shell_mode": "script"}, "script", "empty"),
    ({"cwd": "relative"}, "cwd", "absolute"),
    ({"env": "NOVALUE"}, "env", "="),
    ({"env": "LD_PRELOAD=x"}, "env", "may not be set"),
    ({"action_kind": "http", "url": "ftp://x"}, "url", "http"),
    ({"action_kind": "http", "url": "http://a/", "headers": "Host: b"}, "headers", "set by Crony"),
    ({"action_kind": "http", "url": "http://a/", "body_kind": "json", "body": "{"}, "body", "JSON"),
    ({"action_kind": "http", "url": "http://a/", "expect_status": "ok"}, "expect_status", "status codes"),
    ({"action_kind": "python", "task": "x"}, "task", "dotted"),
    ({"action_kind": "python", "task": "a.b", "args": "{}"}, "args", "list"),
    ({"params": "[1]"}, "params", "object"),
    ({"params": '{"a": 1, "a": 2}'}, "params", "twice"),
    ({"timeout": "soon"}, "timeout", "duration"),
    ({"retry_max": "many"}, "retry_max", "whole number"),
    ({"retry_max_delay": "1s"}, "retry_max_delay", "shorter"),
    ({"misfire_after": "0"}, "misfire_after", "duration"),
    ({"priority": "10"}, "priority", "between"),
    ({"labels": "zone"}, "labels", "="),
    ({"tags": "a,a"}, "tags", "twice"),
    ({"schedule_kind": "several", "several": "- {cron: 61 * * * *}"}, "several", "minute"),
    ({"schedule_kind": "several", "several": "{"}, "several", "YAML"),
    ({"schedule_kind": "several"}, "several", "list"),
    ({"schedule_kind": "several", "several": "a: b"}, "several", "list"),
    ({"calendars_include": "nosuch"}, "calendars_include", "nosuch"),
    ({"calendars_exclude": "A B"}, "calendars_exclude", "name"),
    ({"after_jobs": "no/such"}, "after_jobs", "there is not"),
    ({"after_jobs": "a\nb", "after_of": "number", "after_need": "3"}, "after_need", "between"),
    ({"after_jobs": "a", "after_within": "1s"}, "after_within", "between"),
    ({"after_jobs": "a", "after_results": "total: sum"}, "after_results", "cannot be read"),
    ({"after_jobs": "a\nb", "after_results": "total = result.sum"}, "after_results", "missing"),
    ({"run_group": "tape"}, "run_user", "missing"),
    ({"limit_memory": "2 GB"}, "limit_memory", "size"),
    ({"limit_files": "many"}, "limit_files", "whole number"),
    ({"exit_final": "0"}, "exit_final", "success"),
    ({"exit_success": "a"}, "exit_success", "whole numbers"),
    ({"action_kind": "http", "http_to": "service", "service": "A"}, "service", "service"),
    ({"action_kind": "http", "http_to": "service", "service": "a", "path": "x"}, "path", "slash"),
    ({"action_kind": "http", "url": "http://a/", "expect_pointer": "/a"}, "expect_equals", "missing"),
    ({"action_kind": "http", "url": "http://a/", "expect_equals": "ok"}, "expect_equals", "quotes"),
    (
        {"action_kind": "http", "url": "http://a/", "expect_equals": "1", "expect_pointer": "a"},
        "expect_pointer",
        "poi",
    ),
    ({"action_kind": "http", "url": "http://a/", "redirects": "11"}, "redirects", "between"),
    ({"action_kind": "http", "url": "http://a/", "ca": "/etc/ca.pem"}, "ca", "file"),
    ({"action_kind": "http", "url": "http://a/{{params.x}}"}, "url", "params.x"),
    ({"action_kind": "grpc"}, "rpc_address", "empty"),
    ({"action_kind": "grpc", "rpc_to": "service", "rpc_service": "A"}, "rpc_service", "service"),
    ({"action_kind": "grpc", "rpc_address": "a:1", "rpc_method": "x"}, "rpc_method", "method"),
    (
        {"action_kind": "grpc", "rpc_address": "a:1", "rpc_method": "a/b", "rpc_async": "1"},
        "rpc_async",
        "until when",
    ),
    ({"secrets": "PASSWORD=nosuch"}, "secrets", "nosuch"),
    ({"limits": "nosuch"}, "limits", "nosuch"),
    ({"strategy": "any", "node": "n1"}, "node", "does not go"),
    ({"exclude": "a\x08"}, "exclude", ""),
    ({"output_limit": "10MB"}, "output_limit", "is not a size"),
    ({"output_limit": "12"}, "output_limit", "between"),
    ({"output_keep": "7d"}, "output_keep", "whole number"),
    ({"alerts_by": "own", "alerts_recovered": "nosuch"}, "alerts_recovered", "nosuch"),
    ({"alerts_by": "own", "alerts_failed": "a@b.org", "alerts_waiting": "Q!"}, "alerts_waiting", ""),
    ({"alerts_by": "own", "alerts_late": "a@b.org"}, "alerts_later_than", "missing"),
    ({"alerts_by": "own", "alerts_longer_than": "1h"}, "alerts_too_long", "empty"),
    ({"delivery": "at_most_once", "on_node_loss": "rerun"}, "on_node_loss", "at most once"),
)  # fmt: skip


def test_an_error_stands_at_its_field_and_nothing_is_lost(web: Web, browser: Browser) -> None:
    for changes, field, words in WRONG:
        answer = browser.post("/jobs/new", form(description="keep <me>", owner="li@example.org", **changes))
        html = answer.text
        assert answer.status_code == 422 and f'id="{field}-error"' in html, changes
        assert words in text_of(html.split(f'id="{field}-error"')[1][:600]), changes
        assert "keep &lt;me&gt;</textarea>" in html and value_of(html, "owner") == "li@example.org", changes
    assert web.catalog.list().items == []


def test_what_belongs_to_no_field_is_said_above(web: Web, browser: Browser) -> None:
    web.catalog.create(document("team/report"), "test")
    answer = browser.post("/jobs/new", form())
    assert answer.status_code == 409 and "There is a job team/report already" in text_of(answer.text)
    assert value_of(answer.text, "command") == "/bin/report --all 'two words'"


def test_a_stale_edit_is_refused_and_kept(web: Web, browser: Browser) -> None:
    view = web.catalog.create(document("x"), "test")
    web.catalog.update(view.id, document("x", timeout="5m"), 1, "li")
    answer = browser.post(f"/jobs/{view.id}/edit", form(name="x", timeout="7m", revision="1"))
    assert answer.status_code == 409 and "changed by li" in text_of(answer.text)
    assert value_of(answer.text, "timeout") == "7m"
    assert web.catalog.get("x").document["timeout"] == "5m"


def test_the_form_of_a_job_saves_the_same_job(web: Web, browser: Browser) -> None:
    view = web.catalog.create(
        document("x", params={"a": [1, "ü"]}, tags=["t"], priority=3, routing={"strategy": "hash"}), "test"
    )
    html = browser.get(f"/jobs/{view.id}/edit").text
    values = job_fields.fields(view.document)
    assert values is not None and value_of(html, "revision") == "1"
    fields = {**form(**values), "revision": "1"}
    assert browser.post(f"/jobs/{view.id}/edit", fields).status_code == 303
    assert web.catalog.get("x").revision == 1  # the same document is no new revision
    assert "the same node for the job" in text_of(browser.get(f"/jobs/{view.id}").text)
    assert browser.post(f"/jobs/{view.id}/edit", fields | {"strategy": "best"}).status_code == 422


def test_the_document_is_taken_as_yaml_or_json(web: Web, browser: Browser) -> None:
    text = "name: y\nschedule: {every: 5m}\naction:\n  kind: shell\n  script: |\n    echo a\n    echo b\n"
    assert browser.post("/jobs/new", {"mode": "document", "text": text}).status_code == 303
    assert web.catalog.get("y").document["action"]["script"] == "echo a\necho b\n"
    json_text = '{"name": "z", "action": {"kind": "python", "task": "a.b"}}'
    assert browser.post("/jobs/new", {"mode": "document", "text": json_text}).status_code == 303
    page = browser.get(f"/jobs/{web.catalog.get('y').id}/edit?mode=document").text
    assert "script: |\n    echo a" in page


BAD: tuple[tuple[str, str], ...] = (
    ("name: [", "not YAML"), ("name: a\nname: b\n", "given twice"), ("a: &x [1]\nb: *x\n", "aliases"),
    ("!!python/object/apply:os.system [x]", "not YAML"), ("- a", "mapping"), ("", "mapping"),
    ("1: 2", "must be text"), ("name: x\naction: {kind: shell, command: [a]}\nuid: 0\n", "uid"),
    ('{"a": 1', "not JSON"),
    ("name: x\n\taction: y", "not YAML"),
)  # fmt: skip


def test_a_bad_document_is_kept_with_its_error(browser: Browser) -> None:
    for text, words in BAD:
        answer = browser.post("/jobs/new", {"mode": "document", "text": text})
        assert answer.status_code == 422 and words in text_of(answer.text), text
        shown = re.search(r'<textarea[^>]*name="text"[^>]*>\n(.*?)</textarea>', answer.text, re.DOTALL)
        assert shown and len(shown[1]) >= len(text), text


def test_the_preview_shows_ten_fires_with_offset_and_weekday(browser: Browser) -> None:
    headers = {"origin": BASE, "x-csrf-token": browser.csrf}
    fields = form(cron="30 1 * * 1-5", timezone="Asia/Shanghai")
    html = browser.client.post("/jobs/preview", data=fields, headers=headers).text
    assert html.count("<li>") == 10 and html.count("+08:00") >= 10 and "Mon" in html
    assert "at 01:30 on Monday to Friday (Asia/Shanghai)" in text_of(html)
    bad = browser.client.post("/jobs/preview", data=form(cron="<b>"), headers=headers).text
    assert "form-error" in bad and "<b>" not in bad


SAYABLE: tuple[dict[str, Any], ...] = (
    {"schedule": {"cron": "0 2 * * *", "timezone": "Europe/Berlin", "dst": "both"}},
    {"schedule": {"every": "90s", "anchor": "2026-01-01T00:00:01Z"}},
    {"schedule": {"every": "90s", "after": "end"}},
    {"schedule": {"every": "1d", "start": "2030-01-01T00:00:00Z", "end": "2031-01-01T00:00:00Z", "count": 3}},
    {"schedule": {"cron": "0 0 * * *", "jitter": "1m30s"}},
    {"schedule": {"cron": "0 9 1 * *", "calendars": {"include": ["a", "b"], "exclude": ["c"], "closed": "next"}}},
    {"schedule": {"at": "2030-01-01T00:00:00+08:00", "timezone": "Asia/Shanghai"}},
    {"schedule": [{"every": "5m"}, {"cron": "0 2 * * *", "calendars": {"exclude": ["c"]}}]},
    {"schedule": None, "enabled": False, "paused_until": "2030-01-01T00:00:00Z", "pause_after": 3},
    {"action": {"kind": "shell", "script": "\n a\nb\n", "interpreter": "/bin/bash", "stdin": "x\n\n"}},
    {"action": {"kind": "shell", "command": ["sh", "-c", "echo a\necho 'b  c'\n"], "env": {"A": " padded ", "B": "="}}},
    {"action": {"kind": "shell", "command": ["a"], "run_as": {"user": "backup", "group": "tape"}, "cwd": "/srv",
                "limits": {"cpu": "10m", "memory": "2GiB", "files": 1024, "processes": 64, "file_size": "10GiB"},
                "exit_codes": {"success": [3], "final": [64, 65]}}},
    {"action": {"kind": "http", "method": "PUT", "url": "http://a/b?c=d", "json": {"x": [1, "{{run.id}}"]}}},
    {"action": {"kind": "http", "url": "http://a/", "expect_status": [200, 404]}},
    {"action": {"kind": "http", "service": "billing", "path": "/days/{{params.day}}", "body": "a\n", "method": "POST",
                "redirects": 3, "expect_body": {"contains": "well\ndone", "pointer": "/status", "equals": "closed"}},
     "params": {"day": 1}},
    {"action": {"kind": "http", "url": "https://a/", "ca": "a.pem", "client_cert": "b.pem",
                "expect_body": {"pointer": "", "equals": None}}},
    {"action": {"kind": "http", "url": "https://a/", "body": "text", "headers": {"Accept": "*/*", "X-A": ""}}},
    {"action": {"kind": "http", "url": "https://a/", "verify_tls": False}},
    {"action": {"kind": "grpc", "address": "a:1", "method": "b.C/D", "metadata": {"k": "v"}}},
    {"action": {"kind": "grpc", "address": "a:1", "handler": "x", "request": {},
                "tls": {"ca": "b.pem", "client_cert": "c.pem", "server_name": "d"}}},
    {"action": {"kind": "grpc", "address": "a:1", "handler": "x", "tls": True}},
    {"action": {"kind": "grpc", "service": "billing", "handler": "x"}},
    {"async": {"deadline": "1h"}, "action": {"kind": "grpc", "address": "a:1", "method": "C/D", "async": True}},
    {"action": {"kind": "python", "task": "a.b", "args": [1], "kwargs": {"a": None}}},
    {"misfire": {"policy": "fire_all"}, "retry": {"max": 3, "backoff": "fixed", "jitter": False}},
    {"tags": ["a b"], "owner": "li", "description": "<b>\n\n& more", "params": {"a": [1, "ü"]}, "priority": 3},
    {"after": {"jobs": ["a/b"]}},
    {"after": {"jobs": ["a", "b of c"], "of": "any", "on": "end", "within": "2h"}},
    {"after": {"jobs": ["a", "b of c"], "of": 2, "on": "failure", "results": {
        "all": {"job": "a"}, "sum": {"job": "b of c", "path": "rows.0.sum"}, "how": {"job": "a", "fact": "outcome"}}}},
    {"after": {"jobs": ["a"], "results": {"total": "sum.total", "all": {}}}},
    {"routing": {"exclude": ["n1", "n2"], "node": "n3", "labels": {"zone": "a", "gpu": "yes"}, "parts": 8}},
    {"routing": {"strategy": "hash", "key": "customer"}},
    {"routing": {"strategy": "any", "queue": "reports"}},
    {"routing": {"strategy": "broadcast"}},
    {"limits": ["pool:a", "pool:b"], "secrets": {"PASSWORD": "x", "TOKEN": "y"}},
    {"overlap": "queue_all", "overlap_limit": 5},
    {"delivery": "at_most_once", "on_cut": "stop"},
    {"on_node_loss": "hold"},
    {"alerts": []},
    {"output": {"limit": "2MiB", "keep": 30}},
    {"output": {"limit": "1500B", "keep": None}},
    {"alerts": [{"on": ["failed", "late"], "to": ["ops"], "later_than": "10m"},
                {"on": ["missed", "too_long"], "to": ["a"], "longer_than": "1h"}]},
    {"alerts": [{"on": ["failed", "recovered"], "to": ["ops", "li@example.org"]}, {"on": ["waiting"], "to": ["ops"]}]},
)  # fmt: skip


def test_what_a_form_can_say_goes_there_and_back_through_a_browser(browser: Browser) -> None:
    for changes in SAYABLE:
        full = parse(document("x") | changes).document()
        values = job_fields.fields(full)
        assert values is not None, changes
        assert parse(job_fields.document(values)).document() == full, changes
        typed = form(**values | {"name": ""})  # refused, so the page comes back with all that was typed
        shown = Sent(browser.post("/jobs/new", typed).text).found
        assert {name: shown.get(name) for name in typed} == typed, changes
        assert shown.keys() - typed.keys() <= {"_csrf", "mode"}, changes


def test_what_a_form_cannot_say_is_edited_as_a_document(web: Web, browser: Browser) -> None:
    web.catalog.create(document("a"), "test")
    for index, changes in enumerate(
        (
            {"tags": ["a，b"]},
            {"action": {"kind": "shell", "command": ["a\r\nb"]}},
            {"action": {"kind": "shell", "script": "a\r\nb"}},
            {"after": {"jobs": ["a"], "results": {"x=y": "total"}}},
        )
    ):
        assert job_fields.fields(document("x") | changes) is None, changes
        view = web.catalog.create(document(f"x{index}") | changes, "test")
        html = browser.get(f"/jobs/{view.id}/edit").text
        assert 'name="text"' in html and "more than the form can show" in html, changes


def test_alerts_written_otherwise_are_sent_to_the_same(web: Web) -> None:
    alerts = [{"on": ["recovered"], "to": ["a@b.org"]}, {"on": ["failed", "recovered"], "to": ["c@b.org", "a@b.org"]}]
    values = job_fields.fields(document("x", alerts=alerts))
    assert values is not None
    assert job_fields.document(values)["alerts"] == [
        {"on": ["failed"], "to": ["c@b.org", "a@b.org"]}, {"on": ["recovered"], "to": ["a@b.org", "c@b.org"]},
    ]  # fmt: skip


def test_every_field_has_a_place_for_its_error_that_is_open(
    web: Web, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught: dict[str, Any] = {}
    page = web.render.env.get_template("job_form/page.html")
    keeping = SimpleNamespace(render=lambda values: caught.update(values) or "")
    monkeypatch.setattr(web.render, "env", SimpleNamespace(get_template=lambda name: keeping))
    browser.post("/jobs/new", form(name=""))
    for field in job_fields.DEFAULTS:
        html = page.render(caught | {"wrong": field, "zones": [], "often": []})
        assert html.count(f'id="{field}-error"') == 1, field
        within = html.partition(f'id="{field}-error"')[0].rpartition("<details")[2]
        assert "</details>" in within or " open>" in within, f"{field} is wrong where nobody looks"


def test_the_form_offers_what_there_is(web: Web, browser: Browser) -> None:
    web.catalog.create(document("billing/close-day"), "test")
    web.catalog.pools.save({"name": "reports", "limit": 2}, "test")
    html = browser.get("/jobs/new").text
    for field, name in (("after_jobs", "billing/close-day"), ("limits", "reports")):
        offered = html.split(f'data-append="{field}"')[1].split("</select>")[0]
        assert f'<option value="{name}">' in offered
    assert 'data-append="secrets"' not in html, "nothing to choose from: no choice"


def test_a_job_without_a_schedule_says_what_it_follows(web: Web, browser: Browser) -> None:
    follows = "it runs after other jobs, or when somebody starts it"
    web.catalog.create(document("a", schedule=None), "test")
    view = web.catalog.create(
        document("b", schedule=None, after={"jobs": ["a"]}, alerts=[], **{"async": {"deadline": "2h"}}), "test"
    )
    page = text_of(browser.get(f"/jobs/{view.id}").text)
    assert follows in page and "Answered later, within 2h" in page and "Alerts to nobody" in page
    assert follows not in text_of(browser.get(f"/jobs/{web.catalog.get('a').id}").text)
    for after, said in (("a", True), (" ", False)):
        preview = text_of(browser.post("/jobs/preview", form(schedule_kind="none", after_jobs=after)).text)
        assert (follows in preview) is said
    for path in (f"/jobs/{view.id}/edit", f"/jobs/{view.id}/edit?mode=document"):
        assert follows in text_of(browser.get(path).text)
