"""The spool: a report that was promised arrives, once or word for word again, in order, whatever dies in between."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from crony_sdk import Completion, Conflict, Invalid, Undelivered
from crony_sdk.outbox import Outbox
from crony_sdk.spool import Directory, Report
from crony_sdk.testing import Attempt, FakePlatform

from tests.helpers.server import die_with_parent
from tests.helpers.service import Asked, service
from tests.helpers.wait import until, within

ROOT = Path(__file__).resolve().parents[2]


def files(spool: Path) -> list[Path]:
    return sorted(spool.glob("*.json"))


def reporter(script: str, spool: Path, attempts: list[Attempt]) -> subprocess.Popen[bytes]:
    """A process that runs `script` with `done`, the completions of these attempts, and a spool."""
    head = f"""
        import json, os, sys
        from crony_sdk import Completion
        from crony_sdk.outbox import Outbox
        from crony_sdk.spool import Directory
        box = Outbox(Directory({str(spool)!r}), pauses=(0.05, 0.5))
        with open(sys.argv[1]) as file:
            calls = json.load(file)
        done = [Completion.from_headers(call, spool=box) for call in calls]
    """
    calls = spool.with_name(f"calls-{time.monotonic_ns()}")
    calls.write_text(json.dumps([attempt.headers for attempt in attempts]))
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(script), str(calls)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "sdk")},
        stdout=subprocess.PIPE,
        preexec_fn=die_with_parent,
    )


def test_a_report_survives_the_process_and_the_outage(crony: FakePlatform, tmp_path: Path, successor: Outbox) -> None:
    spool = tmp_path / "spool"
    attempts = [crony.attempt() for _ in range(3)]
    crony.down()
    script = """
        for number, each in enumerate(done):
            each.log(f"text {number}\\n")
            assert not each.complete({"n": number}, patience=0.05).delivered
        print("promised", flush=True)
        sys.stdin.read()
    """
    process = reporter(script, spool, attempts)
    assert process.stdout is not None and process.stdout.readline() == b"promised\n"
    process.kill()
    process.wait()
    process.stdout.close()
    assert len(files(spool)) == 6
    assert {oct(path.stat().st_mode & 0o777) for path in files(spool)} == {"0o600"}
    assert spool.stat().st_mode & 0o777 == 0o700
    crony.up()
    successor.start()
    for number, attempt in enumerate(attempts):
        assert (attempt.wait(150).result, attempt.output) == ({"n": number}, f"text {number}\n".encode())
    until(lambda: not files(spool), what="an empty spool")


def test_killed_at_any_moment_a_promised_report_arrives(crony: FakePlatform, tmp_path: Path, successor: Outbox) -> None:
    """A process reports as fast as it can and is killed; a successor delivers all that it had been promised."""
    spool = tmp_path / "spool"
    attempts = [crony.attempt() for _ in range(400)]
    script = """
        for number, each in enumerate(done):
            each.complete(number, patience=0.5)
            print(number, flush=True)
    """
    process = reporter(script, spool, attempts)
    assert process.stdout is not None
    crony.lose_answers = 10_000  # every report is carried out, and has to be said again
    for _ in range(4):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    promised = 4 + len(process.stdout.read().splitlines())
    process.wait()
    process.stdout.close()
    crony.lose_answers = 0
    successor.start()
    for number, attempt in enumerate(attempts[:promised]):
        assert attempt.wait(150).result == number
    until(lambda: not files(spool), what="an empty spool")
    assert sum(attempt.ended for attempt in attempts) <= promised + 1


def test_processes_share_a_spool_and_each_report_is_sent_once(crony: FakePlatform, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    attempts = [crony.attempt() for _ in range(16)]
    crony.down()
    script = """
        for each in done:
            each.log("one\\n"), each.log("two\\n")
            each.complete(os.getpid(), patience=0)
        print("promised", flush=True)
        assert box.flush(60)
    """
    processes = [reporter(script, spool, attempts[start::2]) for start in range(2)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == b"promised\n"
    crony.up()
    for process in processes:
        assert process.wait(120) == 0
        assert process.stdout is not None
        process.stdout.close()
    assert all(attempt.wait(150).output == b"one\ntwo\n" for attempt in attempts)
    said = [(run, verb) for run, _, verb, _ in crony.reports]
    assert [said.count((attempt.run, "complete")) for attempt in attempts] == [1] * 16


def test_a_lane_is_sent_by_one_process_at_a_time(outbox: Outbox) -> None:
    store = outbox.store
    assert isinstance(store, Directory)
    with store.sole("a" * 24) as mine:
        assert mine
        child = os.fork()
        if child == 0:
            with store.sole("a" * 24) as its, store.sole("b" * 24) as other:
                os._exit(0 if (its, other) == (False, True) else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_no_other_process_sends_what_is_being_sent(outbox: Outbox) -> None:
    assert isinstance(outbox.store, Directory)
    spool, go = outbox.store.path, threading.Event()

    def answer(asked: Asked) -> tuple[int, dict[str, str], bytes]:
        go.wait(150)
        return 200, {"Content-Type": "application/json"}, b'{"state": "ended"}'

    with service(answer) as web:
        outbox.later(Report(f"{web.url}/api/v1/runs/r/attempts/1", "t", "complete", {}))
        until(lambda: web.asked)
        for path in files(spool):
            os.utime(path, (1, 1))  # old enough to look as if it had been left
        other = reporter("assert not box.flush(0.5)", spool, [])
        assert other.wait(60) == 0 and other.stdout is not None
        other.stdout.close()
        go.set()
        assert outbox.flush(50) and len(web.asked) == 1


def test_reports_of_an_attempt_keep_their_order_over_an_outage(crony: FakePlatform, outbox: Outbox) -> None:
    attempt, other = crony.attempt(), crony.attempt()
    done = Completion.from_headers(attempt.headers, spool=outbox)
    crony.unavailable = True
    for number in range(20):
        done.log(f"{number}\n")
    assert not done.complete(patience=0).delivered
    # Another attempt of the same platform does not wait for what is known to be away.
    with within(1, "a report during an outage"):
        assert not Completion.from_headers(other.headers, spool=outbox).complete(patience=30).delivered
    crony.unavailable = False
    assert attempt.wait(150).output.decode().split() == [str(number) for number in range(20)]
    assert other.wait(150).outcome == "succeeded"


def test_an_end_does_not_wait_for_text_that_cannot_be_taken(crony: FakePlatform, outbox: Outbox) -> None:
    """Crony ends runs with its database away; text needs it, and other attempts must not wait for either."""
    first, second = crony.attempt(), crony.attempt()
    done = Completion.from_headers(first.headers, spool=outbox)
    crony.takes_text = False
    done.log("text\n")
    done.complete(1, patience=0)
    with within(2, "another attempt"):
        assert Completion.from_headers(second.headers, spool=outbox).complete(2, patience=20).delivered
    assert first.wait(100).result == 1
    crony.takes_text = True
    assert outbox.flush(100)


def test_an_attempt_that_cannot_be_served_holds_no_other(outbox: Outbox) -> None:
    good = (200, {"Content-Type": "application/json"}, b'{"state": "ended"}')
    bad = (500, {"Content-Type": "application/problem+json"}, b"{}")
    late = (503, {"Content-Type": "application/problem+json", "Retry-After": "0"}, b"{}")
    with service(lambda asked: bad if "/bad/" in asked.path else late if "/late/" in asked.path else good) as web:
        for number in range(4):
            for run in ("bad", "late", "good"):
                outbox.later(Report(f"{web.url}/api/v1/runs/{run}/attempts/{number}", "t", "complete", {}))
        until(lambda: sum("/good/" in asked.path for asked in web.asked) == 4, 20, "the others to be delivered")
        assert not outbox.flush(0)


def test_a_refused_report_is_given_up_with_a_reason_and_the_next_ones_go_on(
    crony: FakePlatform, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    attempt = crony.attempt()
    crony.down()
    wrong = Report(attempt.headers["X-Crony-Callback"], attempt.headers["X-Crony-Token"], "log", {"text": 5})
    outbox.later(wrong)
    done = Completion.from_headers(attempt.headers, spool=outbox)
    done.complete(1, patience=0)
    crony.up()
    assert attempt.wait(150).result == 1
    assert outbox.flush(50)
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
        f"log of {attempt.run}/attempts/1 is given up: Crony answered 422: text is wrong"
    ]


def test_a_contradiction_is_final_also_when_it_comes_late(
    crony: FakePlatform, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    attempt = crony.attempt()
    done = Completion.from_headers(attempt.headers, spool=outbox)
    attempt.end("timed_out")
    with pytest.raises(Conflict) as caught:
        done.complete(1, patience=100)
    assert caught.value.outcome == "timed_out"
    late = crony.attempt()
    crony.down()
    Completion.from_headers(late.headers, spool=outbox).complete(1, patience=0)
    late.end("lost")
    crony.up()
    assert outbox.flush(150)
    until(lambda: "409: it has ended as lost" in caplog.text, 10, "the log to say why")


def test_what_is_not_crony_is_tried_again(outbox: Outbox) -> None:
    """Error pages of proxies, redirects, cut and senseless answers: nothing of this was said by Crony."""
    good = (200, {"Content-Type": "application/json"}, b'{"state": "ended", "outcome": "succeeded", "cancel": false}')
    answers: list[tuple[int, dict[str, str], bytes]] = [
        (200, {"Content-Type": "text/html"}, b"<h1>Welcome</h1>"),
        (404, {"Content-Type": "text/html"}, b"nothing here"),
        (302, {"Location": "http://127.0.0.1:1/"}, b""),
        (204, {}, b""),
        (200, {"Content-Type": "application/json"}, b'{"state": "en'),
        (502, {"Content-Type": "text/html"}, b""),
        (429, {"Content-Type": "application/problem+json", "Retry-After": "0"}, b"{}"),
        good,
    ]
    with service(lambda asked: answers.pop(0)) as web:
        headers = {"X-Crony-Run": "j1.1.2", "X-Crony-Attempt": "1", "X-Crony-Token": "t"}
        headers["X-Crony-Callback"] = f"{web.url}/api/v1/runs/j1.1.2/attempts/1"
        assert not Completion.from_headers(headers, spool=outbox).complete(patience=0.01).delivered
        until(lambda: not answers, 30, "every answer to be tried")
        assert {asked.path for asked in web.asked} == {"/api/v1/runs/j1.1.2/attempts/1:complete"}
        assert outbox.flush(5)


def test_the_platforms_wish_to_wait_is_kept(outbox: Outbox) -> None:
    asked_at: list[float] = []

    def answer(asked: Asked) -> tuple[int, dict[str, str], bytes]:
        asked_at.append(time.monotonic())
        if len(asked_at) == 1:
            return 503, {"Content-Type": "application/problem+json", "Retry-After": "1"}, b"{}"
        return 200, {"Content-Type": "application/json"}, b'{"state": "ended"}'

    with service(answer) as web:
        outbox.later(Report(f"{web.url}/api/v1/runs/r/attempts/1", "t", "complete", {}))
        until(lambda: len(asked_at) == 2)
        assert asked_at[1] - asked_at[0] >= 1.0


def test_what_nobody_takes_is_given_up_in_the_end(crony: FakePlatform, tmp_path: Path) -> None:
    store = Directory(tmp_path / "spool")
    box = Outbox(store, keep=0.2)
    crony.down()
    Completion.from_headers(crony.attempt().headers, spool=box).complete(patience=0)
    assert box.flush(100)
    box.close(0)


def test_log_text_is_dropped_when_the_spool_is_full_and_a_completion_is_not(
    crony: FakePlatform, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Directory(tmp_path / "spool")
    box = Outbox(store, limit=200_000)
    attempt = crony.attempt()
    crony.down()
    done = Completion.from_headers(attempt.headers, spool=box, numbered=True)
    for _ in range(40):
        done.log("x" * 16_000)
    assert store.size() < 250_000 and "the spool is full" in caplog.text
    assert not done.complete("safe", patience=0).delivered
    crony.up()
    assert attempt.wait(150).result == "safe"
    assert 150_000 < len(attempt.output) < 250_000
    box.close(0)


def test_a_disk_that_cannot_be_written_is_told_and_the_report_is_sent_without(
    crony: FakePlatform, outbox: Outbox, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    attempt, other = crony.attempt(), crony.attempt()
    Completion.from_headers(attempt.headers, spool=outbox).complete(1)
    assert attempt.result == 1 and "No space left on device" in caplog.text
    crony.down()
    with pytest.raises(Undelivered):
        Completion.from_headers(other.headers, spool=outbox).complete(1, patience=0.3)
    assert isinstance(outbox.store, Directory) and not list(outbox.store.path.glob("*.json"))


def test_a_file_that_cannot_be_read_is_put_aside(
    crony: FakePlatform, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(outbox.store, Directory)
    lane = Report("http://127.0.0.1:1/x", "t").lane
    (outbox.store.path / f"{lane}-00000000000000000001-end-1.json").write_bytes(b'{"callback": 5')
    os.utime(outbox.store.path / f"{lane}-00000000000000000001-end-1.json", (1, 1))
    outbox.start()
    until(lambda: list(outbox.store.path.glob("*.bad")), what="the file to be put aside")  # type: ignore[attr-defined]
    attempt = crony.attempt()
    Completion.from_headers(attempt.headers, spool=outbox).complete()
    assert attempt.ended


@pytest.mark.parametrize("mode", [0o750, 0o707, 0o777])
def test_a_directory_that_others_can_look_into_is_refused(tmp_path: Path, mode: int) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    spool.chmod(mode)
    with pytest.raises(Invalid, match="chmod 700"):
        Directory(spool)
    (tmp_path / "file").touch()
    with pytest.raises(Invalid, match="cannot be used"):
        Directory(tmp_path / "file")


def test_many_reports_at_once(crony: FakePlatform, outbox: Outbox) -> None:
    attempts = [crony.attempt() for _ in range(100)]
    threads = [
        threading.Thread(
            target=lambda each=each: Completion.from_headers(each.headers, spool=outbox).complete(each.run)
        )
        for each in attempts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [attempt.wait().result for attempt in attempts] == [attempt.run for attempt in attempts]
    assert outbox.flush(50)
