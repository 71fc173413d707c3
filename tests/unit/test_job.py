"""Job documents: the normal form, every field, and everything that must be refused."""

from __future__ import annotations

import json
import time
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crony.domain.check import load_json
from crony.domain.job import DOCUMENT, Job, parse
from crony.domain.naming import parse_name
from crony.domain.params import PARAMS, parse_params
from crony.domain.placing import parse_labels
from crony.errors import Invalid

SHELL = {"kind": "shell", "command": ["date", "-u"]}
HTTP = {"kind": "http", "url": "https://example.org/close"}
PYTHON = {"kind": "python", "task": "app.tasks.close"}


def job(**changes: Any) -> dict[str, Any]:
    return {"name": "billing/close-day", "action": SHELL, **changes}


def shell(**changes: Any) -> dict[str, Any]:
    return job(action={**SHELL, **changes})


def script(**changes: Any) -> dict[str, Any]:
    return job(action={"kind": "shell", "script": "date", **changes})


def http(**changes: Any) -> dict[str, Any]:
    return job(action={**HTTP, **changes})


def grpc(**changes: Any) -> dict[str, Any]:
    return job(action={"kind": "grpc", "address": "billing:50051", "method": "billing.v1.Ledger/Close", **changes})


def python(**changes: Any) -> dict[str, Any]:
    return job(action={**PYTHON, **changes})


FULL = {
    "name": "billing/close-day",
    "description": "Closes **the day**.\n\nRunbook: …",
    "enabled": False,
    "paused_until": "2026-12-01T01:00:00+00:00",
    "tags": ["money", "每天"],
    "owner": "ops@example.org",
    "schedule": {"cron": "30 1 * * *", "timezone": "Asia/Shanghai", "dst": "once"},
    "misfire": {"after": "30s", "policy": "fire_all", "within": "6h"},
    "pause_after": 3,
    "overlap": "queue_all",
    "overlap_limit": 7,
    "action": {
        "kind": "http",
        "method": "POST",
        "url": "https://billing.internal:8443/close?x=%20",
        "headers": {"Authorization": "Bearer x"},
        "json": {"a": [1, None, 2.5]},
        "expect_status": [200, 202],
        "verify_tls": False,
    },
    "params": {"region": "cn"},
    "timeout": "20m",
    "retry": {"max": 2, "backoff": "fixed", "delay": "5s", "max_delay": "5m", "jitter": False, "elsewhere": False},
    "delivery": "at_least_once",
    "on_node_loss": "rerun",
    "on_cut": "continue",
    "routing": {
        "strategy": "hash",
        "labels": {"zone": "a"},
        "node": "n1",
        "exclude": ["n2"],
        "key": "region",
        "queue": None,
        "parts": 8,
    },
    "priority": 9,
    "limits": ["pool:reports", "pool:db"],
    "secrets": {"TOKEN": "billing-token"},
    "async": {"deadline": "2h", "heartbeat": "5m"},
    "after": {
        "on": "failure",
        "of": 1,
        "jobs": ["billing/open-day", "每天"],
        "within": "6h",
        "results": {
            "total": {"job": "每天", "fact": "result", "path": "sum.0"},
            "why": {"job": "每天", "fact": "reason"},
        },
    },
    "alerts": [{"on": ["failed", "recovered"], "to": ["feishu-ops", "ops@example.org"]}],
    "output": {"limit": "3MiB", "keep": 7},
}


def test_a_full_document_is_its_own_normal_form() -> None:
    parsed = parse(FULL)
    assert parsed.document() == FULL
    assert parse(parsed.document()) == parsed
    assert json.loads(json.dumps(parsed.document())) == FULL
    assert parsed.timeout == 1200
    assert parsed.misfire.within == 21600
    assert parsed.retry.payload()["delay"] == 5.0
    assert parsed.routing.labels == (("zone", "a"),)


def test_defaults() -> None:
    document = parse(job()).document()
    assert document == {
        "name": "billing/close-day",
        "description": "",
        "enabled": True,
        "paused_until": None,
        "tags": [],
        "owner": "",
        "schedule": None,
        "misfire": {"after": "1m", "policy": "fire_once", "within": "7d"},
        "pause_after": None,
        "overlap": "skip",
        "overlap_limit": 100,
        "action": {"kind": "shell", "command": ["date", "-u"], "env": {}},
        "params": {},
        "timeout": "1h",
        "retry": {
            "max": 0, "backoff": "exponential", "delay": "10s", "max_delay": "10m", "jitter": True, "elsewhere": True,
        },
        "delivery": "at_least_once",
        "on_node_loss": "rerun",
        "on_cut": "continue",
        "routing": {"strategy": "weighted", "labels": {}, "node": None, "exclude": [], "key": None, "queue": None,
                    "parts": None},
        "priority": 0,
        "limits": [],
        "async": None,
        "after": None,
        "secrets": {},
        "alerts": None,
        "output": None,
    }  # fmt: skip
    assert parse(document).document() == document


HTTP_DEFAULTS = {"headers": {}, "expect_status": None, "verify_tls": True}
FULL_SCRIPT = {"kind": "shell", "script": "date", "env": {"PATH": "/bin"}, "cwd": "/srv", "stdin": "x\n"}


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (HTTP, {**HTTP, **HTTP_DEFAULTS, "method": "GET"}),
        ({**HTTP, "body": "x"}, {**HTTP, **HTTP_DEFAULTS, "method": "POST", "body": "x"}),
        ({**HTTP, "method": "put"}, {**HTTP, **HTTP_DEFAULTS, "method": "PUT"}),
        (FULL_SCRIPT, {**FULL_SCRIPT, "interpreter": "/bin/sh"}),
        (PYTHON, {**PYTHON, "args": [], "kwargs": {}}),
        ({**PYTHON, "args": [1], "kwargs": {"a": None}}, {**PYTHON, "args": [1], "kwargs": {"a": None}}),
    ],
)
def test_actions(action: dict[str, Any], expected: dict[str, Any]) -> None:
    assert parse(job(action=action)).action == expected


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000/x",
        "http://127.0.0.1/",
        "http://10.0.0.7:9000/a/b?c=d&e=%2F",
        "https://[2001:db8::1]:8443/x",
        "http://svc",
        "http://my_service.namespace.svc.cluster.local/x",
        "https://xn--bcher-kva.example/",
        "HTTPS://Example.org/",
    ],
)
def test_urls_that_are_fine(url: str) -> None:
    assert parse(http(url=url)).action["url"] == url


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("a", "a"),
        ("x" * 200, "x" * 200),
        ("folder/sub folder/name", "folder/sub folder/name"),
        ("Ünïcode/每日结算", "Ünïcode/每日结算"),
        ("e\u0301", "é"),
        ("rocket 🚀", "rocket 🚀"),
        ("family 👨\u200d👩\u200d👧", "family 👨\u200d👩\u200d👧"),
        ("50% off", "50% off"),
        ("a.b_c-d:e@f", "a.b_c-d:e@f"),
        ("..a/b..", "..a/b.."),
        ("<script>alert(1)</script", "<script>alert(1)</script"),
    ],
)
def test_names(given_name: str, kept: str) -> None:
    assert parse(job(name=given_name)).name == kept


def test_names_differ_by_case() -> None:
    assert parse_name("A") != parse_name("a")


REFUSED: list[tuple[Any, str, str]] = [
    # wrong types and shapes
    (None, "", "must be a mapping"),
    ([], "", "must be a mapping"),
    ("name: x", "", "must be a mapping"),
    ({}, "name", "is missing"),
    ({"name": "x"}, "action", "is missing"),
    ({"name": None, "action": SHELL}, "name", "is missing"),
    (job(nmae="x"), "nmae", "did you mean name"),
    (job(schedules={"every": "5m"}), "schedules", "did you mean schedule"),
    (job(command=["x"]), "command", "is not a known field"),
    (job(id="x"), "id", "is not a known field"),
    (job(run_as="root"), "run_as", "is not a known field"),
    (job(**{"\x1b[31m": 1}), "\\x1b[31m", "is not a known field"),
    (job(**{"x" * 5000: 1}), "x" * 60 + "…", "is not a known field"),
    ({**job(), 5: 1}, "", "a field name that is not text"),
    (job(params={1: 2}), "params", "a field name that is not text"),
    (job(params={"a": {"b": {3: 1}}}), "params.a.b", "a field name that is not text"),
    (job(params={"a": object()}), "params.a", "a value of type object"),
    (job(params={"a": b"x"}), "params.a", "a value of type bytes"),
    (job(params={"a": date(2026, 1, 1)}), "params.a", "is a date"),
    (job(params={"a": {1, 2}}), "params.a", "a value of type set"),
    (job(schedule={"at": datetime(2026, 1, 1)}), "schedule.at", "has no offset"),
    # features to come
    (job(after={"on": "success"}), "after.jobs", "is missing"),
    (job(after={"jobs": []}), "after.jobs", "names no job"),
    (job(after={"jobs": "a"}), "after.jobs", "must be a list"),
    (job(after={"jobs": ["a"], "on": "sucess"}), "after.on", "must be one of success, failure, end"),
    (job(after={"jobs": ["a", "a"]}), "after.jobs[1]", "is given twice"),
    (job(after={"jobs": ["a"], "ids": ["j1", "j2"]}), "after.ids", "are not as many as the jobs"),
    (job(after={"jobs": ["a"], "of": 2}), "after.of", "must be between 1 and 1"),
    (job(after={"jobs": ["a"], "of": "most"}), "after.of", "must be one of all, any"),
    (job(after={"jobs": ["a"], "of": True}), "after.of", "must be a whole number"),
    (job(after={"jobs": ["a"], "within": "1s"}), "after.within", "must be between"),
    (job(after={"jobs": [f"a{number}" for number in range(21)]}), "after.jobs", "has 21 items"),
    (job(after={"jobs": ["a"], "results": ["x"]}), "after.results", "must be a mapping"),
    (job(after={"jobs": ["a"], "results": {"x": {"job": "b"}}}), "after.results.x.job", "is not among after.jobs"),
    (job(after={"jobs": ["a", "b"], "results": {"x": "sum"}}), "after.results.x.job", "is missing"),
    (job(after={"jobs": ["a"], "results": {"x": {"fact": "node"}}}), "after.results.x.fact", "must be one of"),
    (job(after={"jobs": ["a"], "results": {"x": {"fact": "run", "path": "y"}}}), "after.results.x.path", "for results"),
    (job(after={"jobs": ["a"], "results": {str(n): "" for n in range(21)}}), "after.results", "has 21 parameters"),
    (job(after={"job": ["a"]}), "after.job", "is not a known field"),
    (job(limits="pool:x"), "limits", "must be a list"),
    (job(limits=["reports"]), "limits[0]", "write pool:reports"),
    (job(limits=["pool:A b"]), "limits[0]", "is not the name of a pool"),
    (job(limits=["pool:a", "pool:a"]), "limits[1]", "is given twice"),
    (job(limits=[f"pool:{n}" for n in range(9)]), "limits", "at most 8"),
    (job(alerts=[{"on": ["late"], "to": ["ops"]}]), "alerts[0].later_than", "is missing"),
    (job(alerts=[{"on": ["late"], "to": ["ops"], "later_than": "1s"}]), "alerts[0].later_than", "must be between"),
    (job(alerts=[{"on": ["failed"], "to": ["ops"], "longer_than": "1m"}]), "alerts[0].longer_than", "is for the event"),
    (
        job(alerts=[{"on": ["too_long"], "to": ["ops"], "longer_than": limit} for limit in ("1h", "2h")]),
        "alerts[1].longer_than",
        "differs from",
    ),
    (job(pause_after={"failures": 3}), "pause_after", "must be a whole number"),
    (job(delivery="twice"), "delivery", "must be one of at_least_once, at_most_once"),
    (job(on_node_loss="ignore"), "on_node_loss", "must be one of rerun, fail, hold"),
    (job(delivery="at_most_once", on_node_loss="hold"), "on_node_loss", "not for a job that runs at most once"),
    (job(delivery="at_most_once", on_node_loss="rerun"), "on_node_loss", "write fail, or leave it out"),
    (job(delivery="at_most_once", retry={"max": 1}), "retry.max", "must be 0 for a job that runs at most once"),
    (job(on_cut="wait"), "on_cut", "must be one of continue, stop"),
    (job(routing={"strategy": "broadcast", "parts": 2}), "routing.parts", "does not go with the strategy broadcast"),
    (job(routing={"strategy": "broadcast", "key": "x"}), "routing.key", "belongs to the strategy hash"),
    (job(routing={"parts": 0}), "routing.parts", "must be between 1 and 1000"),
    (job(routing={"parts": 1001}), "routing.parts", "must be between 1 and 1000"),
    (job(routing={"parts": "4"}), "routing.parts", "must be a whole number"),
    (job(routing={"strategy": "least_busy", "key": "x"}), "routing.key", "belongs to the strategy hash"),
    (job(routing={"strategy": "hash", "key": ""}), "routing.key", "is empty"),
    (job(routing={"queue": "reports"}), "routing.queue", "belongs to the strategy any"),
    (job(routing={"strategy": "any", "queue": "a.b"}), "routing.queue", "is not the name of a queue"),
    (job(routing={"strategy": "any", "queue": ["a"]}), "routing.queue", "is not the name of a queue"),
    (job(routing={"strategy": "any", "labels": {"zone": "a"}}), "routing.labels", "does not go with the strategy any"),
    (job(routing={"strategy": "any", "node": "n1"}), "routing.node", "does not go with the strategy any"),
    (job(routing={"strategy": "any", "exclude": ["n1"]}), "routing.exclude", "does not go with the strategy any"),
    (http(expect_body="ok"), "action.expect_body", "must be a mapping"),
    (http(expect_body={}), "action.expect_body", "expects nothing"),
    (http(expect_body={"pointer": "/a"}), "action.expect_body.equals", "is missing"),
    (http(expect_body={"pointer": "a", "equals": 1}), "action.expect_body.pointer", "is not a JSON pointer"),
    (http(redirects=11), "action.redirects", "between 0 and 10"),
    (http(redirects=False), "action.redirects", "must be a whole number"),
    (http(redirects=""), "action.redirects", "must be a whole number"),
    (http(method=""), "action.method", "must be one of"),
    (http(method=[]), "action.method", "must be one of"),
    (grpc(tls={"ca": ""}), "action.tls.ca", "is not the name of a file"),
    (grpc(tls={"client_cert": []}), "action.tls.client_cert", "is not the name of a file"),
    (job(limits=0), "limits", "must be a list"),
    (job(limits={}), "limits", "must be a list"),
    (job(description="x" * 70_000), "description", "makes the document"),
    (http(ca="/etc/ca.pem"), "action.ca", "is not the name of a file"),
    (http(client_cert="../node.pem"), "action.client_cert", "is not the name of a file"),
    (http(ca="ca.pem", verify_tls=False), "action.ca", "says nothing beside"),
    (http(url="http://{{params.host}}/"), "action.url", "no parameter of this job"),
    (http(url="http://{{run.id}}/"), "action.url", "before its path"),
    (http(url="http://a.b/{{run.idd}}"), "action.url", "did you mean {{run.id}}"),
    (http(url="http://a.b/{{"), "action.url", "{{ without a name"),
    (http(headers={"A": "{{env.HOME}}"}), "action.headers.A", "is not known"),
    (http(body="{{ ''.__class__ }}"), "action.body", "is not known"),
    (http(json={"a": [{"b": "{{params.x}}"}]}), "action.json.a[0].b", "no parameter of this job"),
    (job(action={"kind": "grpc", "method": "a.B/C"}), "action.address", "one of address and service; it has neither"),
    (grpc(service="billing"), "action.address", "one of address and service; it has both"),
    (grpc(address=None, service="Billing!"), "action.service", "is not the name of a service"),
    (http(service="billing"), "action.url", "cannot stand beside `service`"),
    (http(url=None, service="billing", path="//evil/"), "action.path", "must begin with one slash"),
    (http(url=None, service="billing", path="/a#b"), "action.path", "has a fragment"),
    (http(path="/a"), "action.path", "goes with `service` only"),
    (grpc(address="https://a:1"), "action.address", "is not host:port"),
    (grpc(address="a"), "action.address", "is not host:port"),
    (grpc(address="a:0"), "action.address", "has a port outside 1-65535"),
    (grpc(address="unix:/x:1"), "action.address", "is not host:port"),
    (grpc(address="169.254.169.254:80"), "action.address", "which no job may call"),
    (grpc(address="[::ffff:10.0.0.1]:80"), "action.address", "hides another address"),
    (grpc(method="close"), "action.method", "is not the name of a method"),
    (grpc(handler="close"), "action.method", "needs exactly one of handler and method; it has both"),
    (grpc(method=None), "action.method", "needs exactly one of handler and method; it has neither"),
    (grpc(request=[1]), "action.request", "must be a mapping"),
    (grpc(metadata={"X-A": "1"}), "action.metadata.X-A", "is not a metadata name"),
    (grpc(metadata={"grpc-timeout": "1"}), "action.metadata.grpc-timeout", "is not a metadata name"),
    (grpc(metadata={"a-bin": "1"}), "action.metadata.a-bin", "is not a metadata name"),
    (grpc(metadata={"x-crony-run": "1"}), "action.metadata.x-crony-run", "is set by Crony itself"),
    (grpc(tls={"ca": "/etc/x"}), "action.tls.ca", "is not the name of a file"),
    (grpc(request={"a": ["{{env.x}}"]}), "action.request.a[0]", "is not known"),
    (grpc(tls={"server_name": "a b"}), "action.tls.server_name", "is not a host name"),
    (grpc(tls={"cert": "x"}), "action.tls.cert", "is not a known field"),
    (grpc(**{"async": True}), "action.async", "needs to know until when"),
    (grpc(method=None, handler="x", **{"async": True}), "action.async", "goes with `method` only"),
    (http(**{"async": True}), "action.async", "is not a known field"),
    (job(alerts={"on": ["failed"]}), "alerts", "must be a list"),
    (job(alerts=[{"on": ["failed"]}]), "alerts[0].to", "must be a list"),
    (job(alerts=[{"on": [], "to": ["ops"]}]), "alerts[0].on", "is empty"),
    (job(alerts=[{"on": ["failed"], "to": []}]), "alerts[0].to", "is empty"),
    (job(alerts=[{"on": ["node_lost"], "to": ["ops"]}]), "alerts[0].on[0]", "must be one of"),
    (job(alerts=[{"on": ["failed"], "to": ["a@b\r\nBcc: c@d.e"]}]), "alerts[0].to[0]", "is not an e-mail address"),
    (job(alerts=[{"on": ["failed"], "to": ["Ops"]}]), "alerts[0].to[0]", "is not the name of a channel"),
    (job(alerts=[{"on": ["failed"], "to": ["ops", "ops"]}]), "alerts[0].to[1]", "is given twice"),
    (job(**{"async": True}), "async", "must be a mapping"),
    (job(**{"async": {}}), "async.deadline", "is missing"),
    (job(**{"async": {"deadline": "500ms"}}), "async.deadline", "must be between 1s and 30d"),
    (job(**{"async": {"deadline": "31d"}}), "async.deadline", "must be between 1s and 30d"),
    (job(**{"async": {"deadline": "1h", "heartbeat": 5}}), "async.heartbeat", "must be a duration in text"),
    (job(**{"async": {"deadline": "1h", "heartbeat": "2h"}}), "async.heartbeat", "is longer than `deadline`"),
    (job(**{"async": {"deadline": "1h", "beat": "1m"}}), "async.beat", "is not a known field"),
    (shell(run_as="a b"), "action.run_as.user", "is not the name of an account"),
    (shell(run_as={"group": "tape"}), "action.run_as.user", "is missing"),
    (shell(run_as={"user": 0}), "action.run_as.user", "is not the name of an account"),
    (shell(limits={"memory": 512}), "action.limits.memory", "is not a size"),
    (shell(limits={"memory": "1MiB"}), "action.limits.memory", "between 16MiB"),
    (shell(limits={"cpu": "100ms"}), "action.limits.cpu", "between 1s and 30d"),
    (shell(limits={"cores": 2}), "action.limits.cores", "is not a known field"),
    (shell(exit_codes={"final": [0]}), "action.exit_codes.final", "which is success"),
    (shell(exit_codes={"success": [3], "final": [3]}), "action.exit_codes.final", "has 3 in it"),
    (shell(exit_codes={"success": [256]}), "action.exit_codes.success[0]", "between 0 and 255"),
    # names
    (job(name=""), "name", "is empty"),
    (job(name=5), "name", "must be text"),
    (job(name=True), "name", "must be text"),
    (job(name="x" * 201), "name", "at most 200"),
    (job(name="x" * 10_000), "name", "at most 200"),
    (job(name="/a"), "name", "empty, `.` or `..` part"),
    (job(name="a/"), "name", "empty, `.` or `..` part"),
    (job(name="a//b"), "name", "empty, `.` or `..` part"),
    (job(name=".."), "name", "empty, `.` or `..` part"),
    (job(name="a/../b"), "name", "empty, `.` or `..` part"),
    (job(name="./a"), "name", "empty, `.` or `..` part"),
    (job(name="a%2fb"), "name", "percent escape"),
    (job(name="a\0b"), "name", "control character (U+0000)"),
    (job(name="a\nb"), "name", "control character (U+000A)"),
    (job(name="a\x1b[2Jb"), "name", "control character (U+001B)"),
    (job(name="a\u2028b"), "name", "control character (U+2028)"),
    (job(name="a\u202eb"), "name", "changes text direction (U+202E)"),
    (job(name="a\u2066b"), "name", "changes text direction"),
    (job(name="a\u200bb"), "name", "invisible character (U+200B)"),
    (job(name="a\u200db"), "name", "invisible character (U+200D)"),
    (job(name="a\ufeffb"), "name", "invisible character (U+FEFF)"),
    (job(name="a\U000e0041b"), "name", "invisible character"),
    (job(name="a\ud800b"), "name", "half of a surrogate pair"),
    (job(name=" a"), "name", "begins or ends with a blank"),
    (job(name="a / b"), "name", "a blank beside a slash"),
    (job(name="task:app.tasks.x"), "name", "begins with task:"),
    (job(name="j0123456789abcdefghjk"), "name", "looks like an id"),
    # numbers and flags
    (job(priority=-1), "priority", "between 0 and 9"),
    (job(priority=10), "priority", "between 0 and 9"),
    (job(priority="5"), "priority", "must be a whole number"),
    (job(priority=True), "priority", "must be a whole number"),
    (job(priority=5.0), "priority", "must be a whole number"),
    (job(priority=None), "priority", "must be a whole number"),
    (job(priority=2**31), "priority", "between 0 and 9"),
    (job(priority=2**63), "priority", "beyond 64 bits"),
    (job(priority=-(2**63)), "priority", "beyond 64 bits"),
    (job(priority=10**5000), "priority", "beyond 64 bits"),
    (job(priority=float("nan")), "priority", "is not a finite number"),
    (job(priority=float("inf")), "priority", "is not a finite number"),
    (job(priority=1e309), "priority", "is not a finite number"),
    (job(params={"x": float("-inf")}), "params.x", "is not a finite number"),
    (job(timeout=5), "timeout", "must be a duration in text"),
    (job(timeout="5"), "timeout", "is not a duration"),
    (job(timeout="0s"), "timeout", "between 100ms and 30d"),
    (job(timeout="31d"), "timeout", "between 100ms and 30d"),
    (job(timeout=None), "timeout", "must be a duration in text"),
    (job(timeout=True), "timeout", "must be a duration in text"),
    (job(output="10MiB"), "output", "must be a mapping"),
    (job(output={"size": 1}), "output.size", "is not a known field"),
    (job(output={"limit": "10MB"}), "output.limit", "is not a size"),
    (job(output={"limit": True}), "output.limit", "must be a whole number"),
    (job(output={"limit": 1023}), "output.limit", "between 1024 and 67108864"),
    (job(output={"limit": "65MiB"}), "output.limit", "between 1KiB and 64MiB"),
    (job(output={"keep": 0}), "output.keep", "between 1 and 3650"),
    (job(output={"keep": "7d"}), "output.keep", "must be a whole number"),
    (job(retry={"max": -1}), "retry.max", "between 0 and 100"),
    (job(retry={"max": 101}), "retry.max", "between 0 and 100"),
    (job(retry={"max": "2"}), "retry.max", "must be a whole number"),
    (job(retry={"max": True}), "retry.max", "must be a whole number"),
    (job(retry=2), "retry", "must be a mapping"),
    (job(retry={"times": 2}), "retry.times", "is not a known field"),
    (job(retry={"backoff": "linear"}), "retry.backoff", "must be one of exponential, fixed"),
    (job(retry={"delay": "20m", "max_delay": "10m"}), "retry.max_delay", "is shorter than `delay`"),
    (job(retry={"jitter": "yes"}), "retry.jitter", "must be true or false"),
    (job(paused_until="2026-12-01T09:00:00"), "paused_until", "has no offset"),
    (job(paused_until=5), "paused_until", "must be a time in text"),
    (job(enabled="true"), "enabled", "must be true or false"),
    (job(enabled=1), "enabled", "must be true or false"),
    (job(misfire={"policy": "never"}), "misfire.policy", "must be one of fire_once, fire_all, skip"),
    (job(misfire={"after": "1h", "within": "1m"}), "misfire.within", "is shorter than `after`"),
    (job(misfire="skip"), "misfire", "must be a mapping"),
    (job(overlap="skipp"), "overlap", "did you mean skip"),
    (job(overlap=["skip"]), "overlap", "must be one of skip, queue_one, queue_all, cancel_previous, allow"),
    (job(overlap_limit=0), "overlap_limit", "between 1 and 1000"),
    (job(overlap="queue_all", overlap_limit="9"), "overlap_limit", "must be a whole number"),
    # texts
    (job(description="x" * 8193), "description", "at most 8192"),
    (job(description="é" * 4097), "description", "at most 8192"),
    (job(description="\u202e"), "description", "changes text direction"),
    (job(description="a\x07"), "description", "control character"),
    (job(owner="a\nb"), "owner", "control character"),
    (job(owner=5), "owner", "must be text"),
    (job(tags="money"), "tags", "must be a list"),
    (job(tags=["a", "a"]), "tags[1]", "is given twice"),
    (job(tags=["a,b"]), "tags[0]", "has a comma"),
    (job(tags=[""]), "tags[0]", "is empty"),
    (job(tags=[5]), "tags[0]", "must be text"),
    (job(tags=["x" * 65]), "tags[0]", "at most 64"),
    (job(tags=[str(i) for i in range(33)]), "tags", "at most 32"),
    (job(params=[]), "params", "must be a mapping"),
    (job(params={"x": "y" * PARAMS}), "params", "at most 32768"),
    (job(params={"": 1}), "params.", "is empty"),
    (job(params={"x": "y" * DOCUMENT}), "params", "at most 65536"),
    # routing
    (job(routing={"labels": {"zone": 1}}), "routing.labels.zone", "is not a label value"),
    (job(routing={"labels": {"a b": "x"}}), "routing.labels.a b", "is not a label name"),
    (job(routing={"labels": ["a"]}), "routing.labels", "must be a mapping"),
    (job(routing={"node": ""}), "routing.node", "is empty"),
    (job(routing={"node": "a\nb"}), "routing.node", "control character"),
    (job(routing={"exclude": "n1"}), "routing.exclude", "must be a list"),
    (job(routing="n1"), "routing", "must be a mapping"),
    # action: kind
    (job(action="date"), "action", "must be a mapping"),
    (job(action={}), "action.kind", "is missing"),
    (job(action={"kind": "Shell"}), "action.kind", "did you mean shell"),
    (job(action={"kind": 5}), "action.kind", "must be one of http, grpc, shell, python"),
    # action: http
    (job(action={"kind": "http"}), "action.url", "is missing"),
    (http(url="file:///etc/passwd"), "action.url", "must start with http"),
    (http(url="gopher://x/"), "action.url", "must start with http"),
    (http(url="ftp://x/"), "action.url", "must start with http"),
    (http(url="javascript:alert(1)"), "action.url", "must start with http"),
    (http(url="example.org/x"), "action.url", "must start with http"),
    (http(url="//example.org/x"), "action.url", "must start with http"),
    (http(url=""), "action.url", "is empty"),
    (http(url="http://"), "action.url", "has no host"),
    (http(url="http:///x"), "action.url", "has no host"),
    (http(url="http://user:pass@x/"), "action.url", "carries a user or password"),
    (http(url="http://user@x/"), "action.url", "carries a user or password"),
    (http(url="http://a@b#@c"), "action.url", "carries a user or password"),
    (http(url="http://x/#@evil"), "action.url", "has a fragment"),
    (http(url="http://x:0/"), "action.url", "a port outside"),
    (http(url="http://x:99999/"), "action.url", "is not a URL"),
    (http(url="http://x:/"), "action.url", "empty port"),
    (http(url="http://x:8a/"), "action.url", "is not a URL"),
    (http(url="http://2130706433/"), "action.url", "a number for a host"),
    (http(url="http://0x7f.1/"), "action.url", "a number for a host"),
    (http(url="http://0177.0.0.1/"), "action.url", "a number for a host"),
    (http(url="http://127.1/"), "action.url", "a number for a host"),
    (http(url="http://[::ffff:127.0.0.1]/"), "action.url", "hides another address"),
    (http(url="http://[64:ff9b::7f00:1]/"), "action.url", "hides another address"),
    (http(url="http://[2002:7f00:1::]/"), "action.url", "hides another address"),
    (http(url="http://[::]/"), "action.url", "which no job may call"),
    (http(url="http://0.0.0.0/"), "action.url", "which no job may call"),
    (http(url="http://169.254.169.254/latest"), "action.url", "which no job may call"),
    (http(url="http://[fe80::1]/"), "action.url", "which no job may call"),
    (http(url="http://[fe80::1%25eth0]/"), "action.url", "address"),
    (http(url="http://[x]/"), "action.url", ""),
    (http(url="http://example.org./"), "action.url", "a host name that is not one"),
    (http(url="http://a..b/"), "action.url", "a host name that is not one"),
    (http(url="http://ex%61mple.org/"), "action.url", "a host name that is not one"),
    (http(url="http://bücher.example/"), "action.url", "non-ASCII"),
    (http(url="http://x/a b"), "action.url", "blank"),
    (http(url="http://x\\@y/"), "action.url", "backslash"),
    (http(url="http://x/\r\nX: y"), "action.url", "control character"),
    (http(url="http://x/" + "a" * 5000), "action.url", "at most 4096"),
    (http(url=5), "action.url", "must be text"),
    (http(method="TRACE"), "action.method", "must be one of"),
    (http(method="GET\r\n"), "action.method", "must be one of"),
    (http(headers={"Host": "x"}), "action.headers.Host", "is set by Crony itself"),
    (http(headers={"content-length": "5"}), "action.headers.content-length", "is set by Crony itself"),
    (http(headers={"Transfer-Encoding": "x"}), "action.headers.Transfer-Encoding", "is set by Crony itself"),
    (http(headers={"X-Crony-Run": "x"}), "action.headers.X-Crony-Run", "is set by Crony itself"),
    (http(headers={"a b": "x"}), "action.headers.a b", "is not a header name"),
    (http(headers={"a:": "x"}), "action.headers.a:", "is not a header name"),
    (http(headers={"a\n": "x"}), "action.headers.a\\n", "is not a header name"),
    (http(headers={"A": "x\r\nB: y"}), "action.headers.A", "control character"),
    (http(headers={"A": "é"}), "action.headers.A", "non-ASCII"),
    (http(headers={"A": 5}), "action.headers.A", "must be text"),
    (http(headers={"A": "1", "a": "2"}), "action.headers.a", "is given twice"),
    (http(headers=[["A", "1"]]), "action.headers", "must be a mapping"),
    (http(body="x", json={}), "action.json", "cannot stand beside `body`"),
    (http(body=5), "action.body", "must be text"),
    (http(body="x" * 32769), "action.body", "at most 32768"),
    (http(expect_status=200), "action.expect_status", "must be a list"),
    (http(expect_status=[]), "action.expect_status", "is empty"),
    (http(expect_status=["200"]), "action.expect_status[0]", "must be a whole number"),
    (http(expect_status=[99]), "action.expect_status[0]", "between 100 and 599"),
    (http(verify_tls="no"), "action.verify_tls", "must be true or false"),
    # action: shell
    (job(action={"kind": "shell"}), "action.command", "it has neither"),
    (shell(script="date"), "action.command", "it has both"),
    (shell(command="date -u"), "action.command", "must be a list"),
    (shell(command=[]), "action.command", "names no program"),
    (shell(command=[""]), "action.command", "names no program"),
    (shell(command=["-x"]), "action.command", "names no program"),
    (shell(command=["date", 5]), "action.command[1]", "must be text"),
    (shell(command=["date\0"]), "action.command[0]", "NUL"),
    (shell(command=["x" * 32769]), "action.command[0]", "at most 32768"),
    (shell(command=["x" * 20_000, "y" * 20_000]), "action.command", "longer than 32768"),
    (shell(interpreter="/bin/sh"), "action.interpreter", "goes with `script` only"),
    (script(script=""), "action.script", "is empty"),
    (script(script="a\0b"), "action.script", "NUL"),
    (script(script="x" * 32769), "action.script", "at most 32768"),
    (script(script="x" * 1_000_000), "action", "at most 65536"),
    (script(interpreter="bash"), "action.interpreter", "is not the path of a program"),
    (script(interpreter="/bin/bash -x"), "action.interpreter", "is not the path of a program"),
    (script(interpreter="/bin/../x"), "action.interpreter", "is not the path of a program"),
    (script(interpreter=None), "action.interpreter", "is not the path of a program"),
    (script(cwd="srv"), "action.cwd", "is not an absolute path"),
    (script(cwd="/srv/../etc"), "action.cwd", "is not an absolute path"),
    (script(cwd="/srv\0"), "action.cwd", "control character"),
    (script(stdin=5), "action.stdin", "must be text"),
    (script(env=["A=1"]), "action.env", "must be a mapping"),
    (script(env={"LD_PRELOAD": "x"}), "action.env.LD_PRELOAD", "may not be set by a job"),
    (script(env={"PYTHONPATH": "x"}), "action.env.PYTHONPATH", "may not be set by a job"),
    (script(env={"BASH_ENV": "x"}), "action.env.BASH_ENV", "may not be set by a job"),
    (script(env={"CRONY_TOKEN": "x"}), "action.env.CRONY_TOKEN", "may not be set by a job"),
    (script(env={"A=B": "x"}), "action.env.A=B", "is not a variable name"),
    (script(env={"1A": "x"}), "action.env.1A", "is not a variable name"),
    (script(env={"Ä": "x"}), "action.env.Ä", "is not a variable name"),
    (script(env={"A\n": "x"}), "action.env.A\\n", "is not a variable name"),
    (script(env={"A": "x\ny"}), "action.env.A", "a line break"),
    (script(env={"A": "x\0"}), "action.env.A", "NUL"),
    (script(env={"A": 5}), "action.env.A", "must be text"),
    (script(comand="x"), "action.comand", "did you mean command"),
    # action: python
    (job(action={"kind": "python"}), "action.task", "is missing"),
    (python(task="close"), "action.task", "is not a dotted task name"),
    (python(task="os.system('x')"), "action.task", "is not a dotted task name"),
    (python(task="app..x"), "action.task", "is not a dotted task name"),
    (python(task="app.é"), "action.task", "is not a dotted task name"),
    (python(task="crony.run"), "action.task", "is Crony's own task"),
    (python(args={}), "action.args", "must be a list"),
    (python(kwargs=[]), "action.kwargs", "must be a mapping"),
    # schedule (more in test_schedule.py)
    (job(schedule={"cron": "61 * * * *"}), "schedule.cron", "minute: 61"),
    (job(schedule={"cron": "* * * * *" + "x" * 50_000}), "schedule.cron", "longer than 512"),
    (job(schedule={"cron": "* * * * *" + "x" * 100_000}), "schedule", "at most 65536"),
    (job(schedule={"cron": "* * * * *", "retry": 1}), "schedule.retry", "is not a known field"),
]  # fmt: skip


@pytest.mark.parametrize(("document", "field", "why"), REFUSED, ids=range(len(REFUSED)))
def test_bad_documents_are_refused(document: Any, field: str, why: str) -> None:
    started = time.thread_time()
    with pytest.raises(Invalid) as caught:
        parse(document)
    assert time.thread_time() - started < 0.02  # of this thread: 10 ms, and some for a busy machine
    error = caught.value
    assert error.field == field
    assert why in str(error)
    assert error.hint, "says what to do"
    assert "\n" not in str(error)
    assert "\x1b" not in str(error)
    assert len(str(error)) < 600


def test_a_shared_queue_has_a_name() -> None:
    for part, queue in (({}, "any"), ({"queue": None}, "any"), ({"queue": "Reports_2"}, "Reports_2")):
        routing = parse(job(routing={"strategy": "any", **part})).document()["routing"]
        assert routing["queue"] == queue and parse(job(routing=routing)).document()["routing"] == routing


def test_null_switches_off_what_is_not_built() -> None:
    assert parse(job(after=None, limits=None, routing={"parts": None})) == parse(job())


def test_deep_documents_are_refused_not_followed() -> None:
    deep: Any = 1
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(Invalid, match="levels deep"):
        parse(job(params={"x": deep}))
    circle: dict[str, Any] = {}
    circle["self"] = circle
    with pytest.raises(Invalid, match="levels deep"):
        parse(job(params=circle))
    wide: Any = "x"
    for _ in range(12):
        wide = [wide] * 10  # ten to the twelfth values, if one followed it
    with pytest.raises(Invalid, match="more than 20000 values"):
        parse(job(params={"x": wide}))


def test_the_document_is_copied() -> None:
    source = job(params={"list": [1]})
    parsed = parse(source)
    source["params"]["list"].append(2)
    assert parsed.params == {"list": [1]}


def test_times_made_by_yaml_are_taken() -> None:
    moment = datetime(2026, 12, 1, 9, tzinfo=UTC)
    assert parse(job(schedule={"at": moment})).document()["schedule"]["at"] == "2026-12-01T09:00:00+00:00"


def test_limits_are_exact() -> None:
    assert parse(job(description="x" * 8192))
    assert parse(script(script="x" * 32768))
    assert parse(shell(command=["x" * 32767]))
    room = PARAMS - len('{"x":""}')
    assert parse(job(params={"x": "y" * room}))
    with pytest.raises(Invalid):
        parse(job(params={"x": "y" * (room + 1)}))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("ab/.\0\u202e\ud800 5s", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=6,
)
KNOWN = st.sampled_from([*FULL, "after", "nmae", "async"])


@given(st.dictionaries(KNOWN, VALUES, max_size=4), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_document_is_read_or_refused(changes: dict[str, Any], full: bool) -> None:
    try:
        parsed = parse({**(FULL if full else job()), **changes})
    except Invalid as error:
        assert error.hint
    else:
        assert isinstance(parsed, Job)
        assert parse(parsed.document()) == parsed


FIELD_NAMES = st.text("abcdehklmnrstuvy_", max_size=8)


@given(
    st.sampled_from(["action", "schedule", "retry", "misfire", "routing"]),
    st.dictionaries(FIELD_NAMES, VALUES, min_size=1, max_size=3),
)
@settings(max_examples=200, deadline=None)
def test_any_section_is_read_or_refused(section: str, changes: dict[str, Any]) -> None:
    before = FULL[section]
    assert isinstance(before, dict)
    try:
        parse({**FULL, section: {**before, **changes}})
    except Invalid as error:
        assert error.field == "" or error.field.split(".")[0].split("[")[0] == section


# -- what others use by itself ---------------------------------------------------------------------


def test_params_and_labels_by_themselves() -> None:
    assert parse_params(None) == {}
    assert parse_labels({"zone": "a"}, "labels") == {"zone": "a"}
    with pytest.raises(Invalid) as caught:
        parse_params({"x": {1, 2}}, "params")
    assert caught.value.field == "params.x"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'{"a": 1, "a": 2}', "is given twice"),
        (b'{"a": {"b": 1, "b": 1}}', "is given twice"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "not a JSON number"),
        (b"[" * 100_000, "is nested too deeply"),
        (b"{} x", "is not JSON"),
        (b"\xef\xbb\xbf{}", "is not JSON"),
        ("{}".encode("utf-16"), "is not UTF-8"),
        (b"\xff", "is not UTF-8"),
        (b"", "is not JSON"),
        (b"1" * 10_000, "a number that is too long"),
        (b"x" * (1 << 21), "is larger than"),
    ],
)
def test_json_is_read_strictly(data: bytes, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        load_json(data)


def test_json_that_is_fine() -> None:
    assert load_json(b'{"a": [1, 2.5, "\\u00e9"]}') == {"a": [1, 2.5, "é"]}
    assert load_json("[]") == []
