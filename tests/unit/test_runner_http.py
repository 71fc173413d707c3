"""HTTP jobs: what is sent, what an answer means, and what it means when there is none."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from crony.domain.outcome import Kind
from crony.workers.attempt import Verdict
from crony.workers.process import Process
from crony.workers.runners import http
from crony.workers.runners.http_wire import Connections
from tests.helpers import attempts
from tests.helpers.attempts import Aside
from tests.helpers.etcd import free_ports
from tests.helpers.service import Asked, service, talker
from tests.helpers.wait import until


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Process]:
    made = attempts.process(tmp_path)
    yield made
    made.own("http", Connections).close()


def run(parts: Process, url: str, action: dict | None = None, /, **changes: object) -> Verdict:
    return http.run(attempts.attempt(parts, {"kind": "http", "url": url, **(action or {})}, **changes))


def ok(asked: Asked) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, b'{"rows": 3}'


def test_what_is_sent(parts: Process) -> None:
    with service(ok) as there:
        action = {"method": "POST", "headers": {"X-Mine": "1"}, "json": {"a": 1}}
        verdict = run(parts, f"{there.url}/x?y=1", action, params={"region": "eu"}, attempt=2)
    assert verdict == Verdict(Kind.SUCCEEDED, code=200, result={"rows": 3})
    (asked,) = there.asked
    assert (asked.method, asked.path, json.loads(asked.body)) == ("POST", "/x?y=1", {"a": 1, "region": "eu"})
    sent = {name: asked.headers.get(name) for name in ("x-mine", "x-crony-run", "x-crony-attempt", "x-crony-fence")}
    assert sent == {"x-mine": "1", "x-crony-run": "j1.1.1700000000", "x-crony-attempt": "2", "x-crony-fence": "77"}
    assert asked.headers["idempotency-key"] == "j1.1.1700000000"
    assert asked.headers["x-crony-fire-time"] == "2023-11-14T22:13:20+00:00"
    assert asked.headers["content-type"] == "application/json"
    assert "x-crony-part-index" not in asked.headers
    with service(ok) as there:
        run(parts, f"{there.url}/x", part=2, parts=3)
    (asked,) = there.asked
    assert (asked.headers["x-crony-part-index"], asked.headers["x-crony-part-total"]) == ("2", "3")
    assert b"HTTP 200 OK" in attempts.output(parts) and b'{"rows": 3}' in attempts.output(parts)


@pytest.mark.parametrize(
    ("action", "path", "body"),
    [
        ({}, "/?region=eu", b""),
        ({"method": "DELETE"}, "/?region=eu", b""),
        ({"method": "POST"}, "/", b'{"region": "eu"}'),
        ({"method": "PUT", "body": "é"}, "/?region=eu", "é".encode()),
        ({"method": "POST", "json": [1]}, "/?region=eu", b"[1]"),
    ],
)
def test_where_parameters_go(parts: Process, action: dict, path: str, body: bytes) -> None:
    with service(ok) as there:
        run(parts, there.url, action, params={"region": "eu"})
    assert (there.asked[0].path, there.asked[0].body) == (path, body)


@pytest.mark.parametrize(
    ("status", "expected", "kind"),
    [
        (204, None, Kind.SUCCEEDED),
        (404, None, Kind.FAILED),
        (500, None, Kind.FAILED),
        (404, [200, 404], Kind.SUCCEEDED),
        (200, [201], Kind.FAILED),
    ],
)
def test_status_decides(parts: Process, status: int, expected: list[int] | None, kind: Kind) -> None:
    with service(lambda asked: (status, {}, b"")) as there:
        verdict = run(parts, there.url, {"expect_status": expected})
    assert (verdict.kind, verdict.code) == (kind, status)


def test_redirects_are_not_followed(parts: Process) -> None:
    with service(lambda asked: (302, {"Location": "/elsewhere"}, b"")) as there:
        verdict = run(parts, there.url)
    assert (verdict.kind, verdict.code, len(there.asked)) == (Kind.FAILED, 302, 1)


def test_environment_proxies_and_netrc_are_ignored(
    parts: Process, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with service(ok) as there:
        assert run(parts, there.url).kind is Kind.SUCCEEDED
    assert "authorization" not in there.asked[0].headers


def test_not_connected_is_failed(parts: Process) -> None:
    (port,) = free_ports(1)
    verdict = run(parts, f"http://127.0.0.1:{port}/", {"method": "POST"})
    assert verdict.kind is Kind.FAILED
    assert "could not be sent" in verdict.reason and "refused" in verdict.reason


@pytest.mark.parametrize("url", ["nonsense", "http://", "ftp://127.0.0.1/", "http://127.0.0.1:99999/", "http://[::1"])
def test_bad_addresses_fail(parts: Process, url: str) -> None:
    assert run(parts, url).kind is Kind.FAILED


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", b"nonsense\r\n\r\n"],
)
def test_an_answer_lost_after_sending_is_unknown(parts: Process, answer: bytes) -> None:
    def script(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)

    with talker(script) as url:
        verdict = run(parts, url, {"method": "POST"})
    assert verdict.kind is Kind.UNKNOWN
    assert "after sending" in verdict.reason and len(verdict.reason.splitlines()) == 1


def test_the_deadline_is_for_all_of_it(parts: Process) -> None:
    def drip(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.sendall(b"X-A: 1\r\n")
            if stop.wait(0.05):
                return

    stop = threading.Event()
    with talker(drip) as url:
        verdict = run(parts, url, timeout=0.4)  # read by read it would never end
    stop.set()
    assert verdict.kind is Kind.TIMED_OUT
    assert "it was sent" in verdict.reason


def test_silence_times_out(parts: Process) -> None:
    hold = threading.Event()

    def script(connection: socket.socket) -> None:
        hold.wait(10)

    with talker(script) as url:
        verdict = run(parts, url, timeout=0.3)
    hold.set()
    assert verdict.kind is Kind.TIMED_OUT


def test_cancel(parts: Process) -> None:
    hold = threading.Event()
    asked = threading.Event()

    def script(connection: socket.socket) -> None:
        connection.recv(65536)
        asked.set()
        hold.wait(10)

    with talker(script) as url:
        target = attempts.attempt(parts, {"kind": "http", "url": url})
        aside = Aside(http.run, target)
        until(asked.is_set, what="the request arrives")
        target.cancel()
        verdict = aside.join(40)
    hold.set()
    assert verdict.kind is Kind.CANCELLED


@pytest.mark.parametrize("packed", [False, True])
def test_an_answer_is_capped_after_decompression(parts: Process, packed: bool) -> None:
    body = b"x" * (3 * 1024 * 1024)
    headers = {"Content-Encoding": "gzip"} if packed else {}
    with service(lambda asked: (200, headers, gzip.compress(body) if packed else body)) as there:
        verdict = run(parts, there.url)
    assert verdict.kind is Kind.SUCCEEDED
    kept = attempts.output(parts)
    assert kept.count(b"x") == http.BODY_LIMIT
    assert b"answer cut here" in kept


@pytest.mark.parametrize(
    ("kind", "body", "result"),
    [
        ("application/json", b'{"a": [1]}', {"a": [1]}),
        ("application/json", b"not json", None),
        ("text/plain", b'{"a": 1}', None),
        ("application/json", json.dumps("x" * 2000).encode(), None),
        ("application/json", b"[" * 400 + b"]" * 400, None),
        ("application/json", b'{"a": NaN}', None),
    ],
)
def test_a_small_json_answer_is_the_result(parts: Process, kind: str, body: bytes, result: object) -> None:
    with service(lambda asked: (200, {"Content-Type": kind}, body)) as there:
        assert run(parts, there.url).result == result


def test_a_bomb_takes_no_memory(parts: Process) -> None:
    def script(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n")
        packer = zlib.compressobj(9, wbits=31)
        while True:  # a GB becomes a MB, without end
            piece = packer.compress(bytes(1 << 24))
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))

    tracemalloc.start()
    try:
        with talker(script) as url:
            verdict = run(parts, url)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert verdict == Verdict(Kind.SUCCEEDED, code=200)
    assert most < (1 << 24) + 8 * http.BODY_LIMIT, "the service's own 16 MiB, and little beside"


# -- facts of the run in its texts ----------------------------------------------------------------

FACTS = {"region": "a/b ?&\r\nX-Evil: 1", "count": 3, "list": [1, "é"], "none": None, "spare": "s p", "dots": ".."}


def asked_with(parts: Process, action: dict, params: dict | None = None, **changes: object) -> Asked:
    with service(ok) as there:
        action = {**action, "url": there.url + action.get("url", "")}
        assert run(parts, action["url"], action, params=params or {}, **changes).kind is Kind.SUCCEEDED
    return there.asked[0]


def test_templates_in_url_and_headers_are_escaped_for_where_they_stand(parts: Process) -> None:
    params = {name: FACTS[name] for name in ("region", "count", "spare")}
    action = {
        "url": "/{{params.region}}/{{ run.id }}?n={{params.count}}&at={{run.fire_time}}",
        "headers": {"X-Region": "<{{params.region}}>", "X-Job": "{{job.name}} {{run.attempt}} {{{{"},
    }
    asked = asked_with(parts, action, params, name="日/终", attempt=2)
    assert asked.path == (
        "/a%2Fb%20%3F%26%0D%0AX-Evil%3A%201/j1.1.1700000000?n=3&at=2023-11-14T22%3A13%3A20%2B00%3A00&spare=s+p"
    ), "what no text names goes where it went before"
    assert asked.headers["x-region"] == "<a/b ?&%0D%0AX-Evil: 1>" and "x-evil" not in asked.headers
    assert asked.headers["x-job"] == "%E6%97%A5/%E7%BB%88 2 {{"


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ({"json": {"r": "{{params.region}}", "t": "n={{params.count}}", "n": "{{params.count}}",
                   "l": ["{{params.list}}"]}},
         {"r": FACTS["region"], "t": "n=3", "n": 3, "l": [[1, "é"]], "none": None}),
        ({"body": '{"r": "{{params.region}}", "l": {{params.count}}}', "headers": {"Content-Type": "application/json"}},
         {"r": FACTS["region"], "l": 3}),
        ({"body": "r={{params.region}}&n={{params.count}}",
          "headers": {"content-type": "application/x-www-form-urlencoded"}},
         b"r=a%2Fb+%3F%26%0D%0AX-Evil%3A+1&n=3"),
        ({"body": "<{{params.list}}|{{params.none}}>"}, '<[1,"é"]|>'.encode()),
    ],
    ids=["json", "text that is json", "form", "text"],
)  # fmt: skip
def test_templates_in_a_body(parts: Process, action: dict, body: object) -> None:
    params = {name: FACTS[name] for name in ("region", "count", "list", "none")}
    asked = asked_with(parts, {"method": "POST", **action}, params)
    assert (json.loads(asked.body) if isinstance(body, dict) else asked.body) == body


@pytest.mark.parametrize("url", ["/{{params.dots}}/x", "/a/{{params.dots}}", "/{{params.gone}}"])
def test_what_cannot_be_filled_in_is_not_sent(parts: Process, url: str) -> None:
    with service(ok) as there:
        verdict = run(parts, there.url + url, params={"dots": ".."})
    assert verdict.kind is Kind.FAILED and "could not be made" in verdict.reason
    assert there.asked == []


# -- what is expected -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "kind", "body", "why"),
    [
        ({"contains": "fine"}, "text/plain", b"all fine", ""),
        ({"contains": "é"}, "text/plain; charset=latin-1", b"\xe9", ""),
        ({"contains": "é"}, "text/plain; charset=no-such", "é".encode(), ""),
        ({"contains": "fine"}, "text/plain", b"no", "does not contain"),
        ({"pointer": "/a/1/b~1c", "equals": {"d": None}}, "", b'{"a": [0, {"b/c": {"d": null}}]}', ""),
        ({"pointer": "", "equals": 1}, "", b"1", ""),
        ({"pointer": "/a", "equals": True}, "", b'{"a": 1}', "another value"),
        ({"pointer": "/a/01", "equals": 1}, "", b'{"a": [1, 1]}', "nothing at /a/01"),
        ({"pointer": "/a", "equals": 1}, "", b"nonsense", "is not JSON"),
        ({"pointer": "/a", "equals": 1}, "", b"[" * 100_000, "is not JSON"),
        ({"pointer": "/a", "equals": 1}, "", b" " * 1_100_000 + b'{"a": 1}', "could not be looked at"),
    ],
)
def test_a_body_may_be_expected(parts: Process, expected: dict, kind: str, body: bytes, why: str) -> None:
    with service(lambda asked: (200, {"Content-Type": kind}, body)) as there:
        verdict = run(parts, there.url, {"expect_body": expected})
    assert (verdict.kind, verdict.code) == (Kind.FAILED if why else Kind.SUCCEEDED, 200)
    assert why in verdict.reason


@pytest.mark.parametrize(
    ("told", "seconds", "words"),
    [
        ("7", 7.0, "left alone for 7s"),
        ("7200", 7200.0, "left alone for 2h, `max_delay` allows 1m"),
        (formatdate(1_900_000_030, usegmt=True), 30.0, "left alone for 30s"),
        (formatdate(1_800_000_000, usegmt=True), 0.0, ""),
        ("-5", 0.0, ""),
        ("soon", 0.0, ""),
    ],
)
def test_retry_after(parts: Process, told: str, seconds: float, words: str) -> None:
    headers = {"Retry-After": told, "Date": formatdate(1_900_000_000, usegmt=True)}

    def script(connection: socket.socket) -> None:
        connection.recv(65536)
        lines = "".join(f"{name}: {text}\r\n" for name, text in headers.items())
        connection.sendall(f"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n{lines}\r\n".encode())

    with talker(script) as url:
        verdict = run(parts, url, retry={"max": 3, "max_delay": 60.0})
    assert (verdict.kind, verdict.code, verdict.retry_after) == (Kind.FAILED, 503, seconds)
    assert words in verdict.reason and ("left alone" in verdict.reason) == bool(words)
