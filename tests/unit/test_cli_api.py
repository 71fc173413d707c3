"""The command line's view of the API: every odd answer becomes one sentence and the right exit code."""

from __future__ import annotations

import json
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from crony.cli import here
from crony.cli.api import Api, Target, find, read_context
from crony.cli.follow import copy_output, wait_for
from crony.cli.main import run
from crony.errors import Conflict, CronyError, Forbidden, Invalid, NotFound, TimedOut, Unavailable, Unknown
from crony.settings import Settings

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(answer: Answer) -> Iterator[Api]:
    """An API whose server answers each request with `answer(handler)`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Api(Target(f"http://127.0.0.1:{server.server_port}", "crony_secret", "the test"), timeout=5.0)
    finally:
        server.shutdown()
        server.server_close()


def says(status: int, body: bytes, kind: str = "application/json", **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def problem(status: int, **facts: str) -> Answer:
    body = json.dumps({"type": "about:blank", "title": "Wrong", "status": status, **facts}).encode()
    return says(status, body, "application/problem+json")


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (401, Forbidden, 4),
        (403, Forbidden, 4),
        (404, NotFound, 3),
        (409, Conflict, 5),
        (412, Conflict, 5),
        (400, Invalid, 2),
        (413, Invalid, 2),
        (415, Invalid, 2),
        (422, Invalid, 2),
        (429, Unavailable, 8),
        (500, CronyError, 1),
        (502, Unavailable, 8),
        (503, Unavailable, 8),
        (504, TimedOut, 7),
    ],
)
def test_a_problem_becomes_the_error_of_its_kind(status: int, kind: type[CronyError], code: int) -> None:
    with serving(problem(status, detail="the detail", hint="the hint")) as api, pytest.raises(kind) as error:
        api.get("jobs")
    assert error.value.exit_code == code
    assert "the detail" in str(error.value)


def test_the_field_of_a_problem_is_named_once() -> None:
    with (
        serving(problem(422, detail="schedule.cron: minute 61 is out of range", field="schedule.cron")) as api,
        pytest.raises(Invalid) as error,
    ):
        api.call("POST", "jobs", body={})
    assert error.value.what == "schedule.cron: minute 61 is out of range"


@pytest.mark.parametrize(
    "answer",
    [
        says(200, b"<html>welcome</html>", "text/html"),
        says(200, b'{"items": [', "application/json"),
        says(302, b"", "text/html", Location="http://elsewhere.example/"),
        says(500, b"<html>oops</html>", "text/html"),
        says(404, b"[]", "application/json"),
        says(200, b"text", "text/plain"),
    ],
)
def test_a_server_that_is_not_ours_is_told_so(answer: Answer) -> None:
    with serving(answer) as api, pytest.raises(Unavailable, match="does not answer like Crony's API"):
        api.get("jobs")


def test_an_empty_answer_is_none() -> None:
    with serving(says(204, b"")) as api:
        assert api.call("DELETE", "jobs/x") is None


def test_the_token_goes_with_every_request_and_never_to_another_server() -> None:
    seen: list[str | None] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.headers["Authorization"])
        says(302, b"", "text/html", Location="http://127.0.0.1:9/stolen")(handler)

    with serving(answer) as api, pytest.raises(Unavailable, match="302"):
        api.get("jobs")
    assert seen == ["Bearer crony_secret"]


def test_a_lost_answer_to_a_write_is_unknown_and_to_a_read_is_not() -> None:
    def hang_up(handler: BaseHTTPRequestHandler) -> None:
        handler.connection.shutdown(socket.SHUT_RDWR)

    silent = threading.Event()
    with serving(hang_up) as api:
        with pytest.raises(Unknown, match="may have been carried out"):
            api.call("POST", "jobs/x:run", body={})
        with pytest.raises(Unavailable):
            api.get("jobs")
    with serving(lambda handler: silent.wait(5) and None) as api:
        with pytest.raises(Unknown):
            api.call("POST", "jobs/x:run", body={})
        silent.set()


def test_pages_are_followed_to_the_limit() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        start = int(handler.path.partition("cursor=")[2] or 0)
        page = {"items": [{"n": n} for n in range(start, start + 3)], "next_cursor": str(start + 3)}
        says(200, json.dumps(page).encode())(handler)

    with serving(answer) as api:
        assert [item["n"] for item in api.pages("runs", limit=7)] == list(range(7))


def test_waiting_bears_a_restart_and_ends_in_time() -> None:
    states = iter(["queued", None, None, "running", "ended"])

    def answer(handler: BaseHTTPRequestHandler) -> None:
        state = next(states)
        if state is None:
            problem(503, detail="restarting")(handler)
        else:
            says(200, json.dumps({"state": state, "outcome": "succeeded"}).encode())(handler)

    with serving(answer) as api:
        assert wait_for(api, "r")["outcome"] == "succeeded"
    with (
        serving(says(200, b'{"state": "running"}')) as api,
        pytest.raises(TimedOut, match=r"not ended after 0\.2 s \(it is running\)"),
    ):
        wait_for(api, "r", patience=0.2)


def test_output_is_copied_piece_by_piece(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    text = b"one\ntwo \x1b[31mred\x1b[0m\n\xff\xfe\n"

    def answer(handler: BaseHTTPRequestHandler) -> None:
        offset = int(handler.path.partition("offset=")[2])
        piece = text[offset : offset + 5]
        end = offset + len(piece)
        state = "complete" if end == len(text) else "open"
        says(200, piece, "text/plain; charset=utf-8", X_Next_Offset=str(end), X_Output_State=state)(handler)

    with serving(answer) as api:
        copy_output(api, "r", attempt=None, follow=False, raw=False)
    assert capfdbinary.readouterr().out == text


def test_output_is_followed_over_lines_that_break(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    events = [
        b'id: 4\nevent: output\ndata: {"text": "one\\n"}\n\n',
        b': alive\n\nid: 7\nevent: output\ndata: {"base64": "//4K"}\n\nid: 9\nevent: output\ndata: {"te',
        b'id: 11\nevent: output\ndata: {"text": "two\\n"}\n\nevent: end\ndata: {"state": "truncated"}\n\n',
    ]
    asked: list[tuple[str, str | None]] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append((handler.path, handler.headers["Last-Event-ID"]))
        body = events.pop(0)
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream; charset=utf-8")
        handler.send_header(
            "Content-Length", str(len(body) + (1 if events else 0))
        )  # the line breaks, but for the last
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    with serving(answer) as api:
        copy_output(api, "r/1", attempt=2, follow=True, raw=False)
    said = capfdbinary.readouterr()
    assert said.out == b"one\n\xff\xfe\ntwo\n" and b"longer than is kept" in said.err
    assert asked == [("/api/v1/runs/r%2F1/output?attempt=2&follow=true", last) for last in (None, "4", "7")]


def test_where_the_server_is(tmp_path: Path) -> None:
    context = tmp_path / "cli.env"
    context.write_text("# crony dev\nCRONY_API=http://127.0.0.1:8403\nCRONY_TOKEN=crony_dev\nCRONY_ETCD_ENDPOINTS=x\n")
    context.chmod(0o600)
    assert find(environ={}, context=context) == Target("http://127.0.0.1:8403", "crony_dev", str(context))
    assert find(environ={"CRONY_API": "https://h/"}, context=context) == Target("https://h", "", "CRONY_API")
    assert find("http://h:1", environ={"CRONY_TOKEN": "t"}, context=context) == Target("http://h:1", "t", "--api")
    # A token of ours does not go to an address that a file in the working directory names.
    assert find(environ={"CRONY_TOKEN": "mine"}, context=context).base == "http://127.0.0.1:8400"
    assert find(environ={}, context=tmp_path / "none") == Target("http://127.0.0.1:8400", "", "the default")


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o602])
def test_a_context_that_others_could_have_written_or_read_is_not_used(tmp_path: Path, mode: int) -> None:
    context = tmp_path / "cli.env"
    context.write_text("CRONY_API=http://evil.example\n")
    context.chmod(mode)
    assert stat.S_IMODE(context.stat().st_mode) == mode
    assert read_context(context) == {}


def test_commands_without_a_server_find_the_same_place(tmp_path: Path) -> None:
    context = tmp_path / "cli.env"
    url = f"sqlite:///{tmp_path}/a b/crony.db"
    context.write_text(
        f"CRONY_API=http://127.0.0.1:8403\nCRONY_TOKEN=t\nCRONY_ETCD_ENDPOINTS=http://e:1\nCRONY_DATABASE_URL='{url}'\n"
    )
    context.chmod(0o600)
    found = here.load(environ={"CRONY_LOG_LEVEL": "debug"}, context=context)
    assert (found.api, found.etcd_endpoints, found.database_url) == ("http://127.0.0.1:8403", ("http://e:1",), url)
    assert (found.token, found.log_level) == ("", "debug"), "the token is for the API alone"
    # What is meant for one platform never reaches another: all or none.
    for name in ("CRONY_API", "CRONY_NAMESPACE", "CRONY_DATABASE_URL"):
        mine = here.load(environ={name: "http://mine"}, context=context)
        assert mine.etcd_endpoints == Settings().etcd_endpoints and url not in (mine.database_url, mine.api)
    context.chmod(0o644)
    assert here.load(environ={}, context=context) == Settings()


def test_a_context_that_is_no_file_is_not_used(tmp_path: Path) -> None:
    assert read_context(tmp_path) == {}
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "binary").chmod(0o600)
    assert read_context(tmp_path / "binary") == {}


@pytest.mark.parametrize("live", [2, 1, None])
def test_a_pause_that_is_not_in_force_yet_is_told(
    live: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(says(202, json.dumps({"revision": 2, "live_revision": live}).encode())) as api:
        monkeypatch.setenv("CRONY_API", api.target.base)
        assert run(["job", "pause", "x"]) == 0
    told = capsys.readouterr()
    assert told.out == "paused x\n" and ("not in force yet" in told.err) is (live != 2)


def test_the_doctor_says_what_to_try_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRONY_ETCD_ENDPOINTS", "http://127.0.0.1:1")
    assert run(["doctor"]) == 1
    told = capsys.readouterr()
    assert (told.out + told.err).count("is it running") == 1 and told.out.count("127.0.0.1:1") == 1
