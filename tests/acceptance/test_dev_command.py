"""`crony dev` and the `crony` command beside it, with real processes: a newcomer's first five minutes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.helpers.dev import Dev, alive, running
from tests.helpers.wait import until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """One that runs through the module, asked for a port that is taken; Ctrl-C ends it, and all it started."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with running(tmp_path_factory.mktemp("dev"), "--port", port) as dev:
            dev.ready()
            assert f"port {port} is taken" in dev.text
            yield dev
            children = dev.children()
            assert len(alive(children)) == 4
            # At a terminal, Ctrl-C goes to a whole session. The children have their own: the supervisor alone gets it.
            assert all(os.getsid(pid) == pid for pid, _ in children.values())
            assert dev.stop(signal.SIGINT, timeout=25) == 0
            assert alive(children) == []
            assert "stopping" in dev.text and "was killed" not in dev.text
            done = dev.crony("job", "list")
            assert done.returncode == 8 and "no server answers" in done.stderr


def test_the_banner_tells_how_to_get_in(dev: Dev) -> None:
    link = re.search(r"sign in +(http://127\.0\.0\.1:\d+/signin/link/\S+)", dev.text)
    assert link
    page = requests.get(link[1], timeout=10)
    assert page.status_code == 200 and "password" in page.text.lower()
    assert re.search(r"etcd +\d+\.\d+\.\d+ from", dev.text) and "shell jobs run on it" in dev.text
    context = dev.folder / ".crony" / "cli.env"
    assert stat.S_IMODE(context.stat().st_mode) == 0o600
    assert stat.S_IMODE((dev.folder / ".crony").stat().st_mode) == 0o700
    secret = [dev.folder / ".crony" / "crony.db", *(dev.folder / ".crony" / "secrets").iterdir()]
    assert len(secret) > 4 and all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in secret)


def test_nothing_is_answered_to_strangers(dev: Dev) -> None:
    address = dev.says("web  ").split()[1]
    assert requests.get(f"{address}/api/v1/jobs", timeout=5).status_code == 401
    done = dev.crony("job", "list", "--api", address)
    assert done.returncode == 4 and "not signed in" in done.stderr


def test_commands_that_need_no_web_find_etcd_and_the_database_here(dev: Dev) -> None:
    assert "access" in dev.crony("doctor").stdout
    made = dev.crony("token", "create", "prometheus", "--scope", "viewer")
    assert (made.returncode, made.stdout.startswith("crony_")) == (0, True), made.stderr
    assert "/signin/link/" in dev.crony("user", "link").stdout
    assert dev.crony("queue", "list").returncode == 0


def test_a_second_start_hears_who_holds_the_directory(dev: Dev) -> None:
    second = Dev.start(dev.folder)
    assert second.ended(20) == 1
    assert f"pid {dev.popen.pid} holds it since" in second.text and "Traceback" not in second.text
    assert dev.popen.poll() is None


def test_a_job_from_the_command_line_runs_and_shows_its_output(dev: Dev) -> None:
    made = dev.crony("job", "create", "greet", "--shell", 'echo "hello $CRONY_PARAM_WHO"; echo 你好', "-p", "who=world")
    assert made.returncode == 0 and made.stdout.startswith("created greet (j")
    ran = dev.data("job", "run", "greet", "-p", "who=you", "--wait", "--timeout", "30")
    assert (ran["outcome"], ran["job_name"], ran["attempt"]) == ("succeeded", "greet", 1)
    text = until(lambda: dev.crony("run", "output", ran["id"]).stdout, 10, "the output to arrive")
    assert text == "hello you\n你好\n"
    assert [run["id"] for run in dev.data("run", "list", "--job", "greet")] == [ran["id"]]
    table = dev.crony("run", "get", ran["id"]).stdout
    assert "succeeded" in table and "greet" in table
    assert dev.crony("job", "get", "greet").stdout.count("who: world") == 1


def test_what_fails_shows_in_the_exit_code(dev: Dev) -> None:
    assert dev.crony("job", "create", "fails", "--shell", "echo no; exit 3").returncode == 0
    done = dev.crony("job", "run", "fails", "--wait")
    assert done.returncode == 6 and "failed" in done.stdout and "3" in done.stderr
    run = done.stdout.split()[0]
    assert dev.crony("run", "wait", run).returncode == 6
    told = until(lambda: dev.data("alert", "list", "--job", "fails"), 20, "the alert")
    assert [(alert["kind"], alert["run"]) for alert in told] == [("run_failed", run)]
    assert run in dev.crony("alert", "list").stdout


def test_waiting_may_end_before_the_run_does_and_a_run_can_be_cancelled(dev: Dev) -> None:
    assert dev.crony("job", "create", "long", "--shell", "echo begun; sleep 60").returncode == 0
    done = dev.crony("job", "run", "long", "--wait", "--timeout", "0.5")
    assert done.returncode == 7 and "has not ended" in done.stderr
    run = dev.data("run", "list", "--job", "long")[0]["id"]
    assert dev.crony("run", "cancel", run).returncode == 0
    assert dev.crony("run", "wait", run, "--timeout", "20").returncode == 6
    assert dev.data("run", "get", run)["outcome"] == "cancelled"


def test_an_idempotency_key_starts_one_run(dev: Dev) -> None:
    assert dev.crony("job", "create", "keyed", "--shell", "true").returncode == 0
    first = dev.data("job", "run", "keyed", "--idempotency-key", "monday")
    second = dev.data("job", "run", "keyed", "--idempotency-key", "monday")
    assert (first["created"], second["created"], second["run"]) == (True, False, first["run"])


def test_jobs_from_a_file_and_conflicts(dev: Dev) -> None:
    text = """
jobs:
  - name: file/one
    schedule: {cron: "30 1 * * *", timezone: Asia/Shanghai}
    action: {kind: shell, script: "true"}
  - name: file/two
    action: {kind: http, url: "http://127.0.0.1:9/"}
"""
    made = dev.data("job", "create", "-f", "-", text=text)
    assert [job["name"] for job in made] == ["file/one", "file/two"]
    again = dev.crony("job", "create", "-f", "-", text=text)
    assert again.returncode == 5 and "file/one" in again.stderr and "0 of 2" in again.stderr
    refused = dev.crony("job", "create", "wrong", "--shell", "true", "--cron", "61 * * * *")
    assert refused.returncode == 2 and "schedule.cron" in refused.stderr
    assert dev.crony("job", "get", "file/three").returncode == 3
    assert dev.crony("job", "pause", "file/one").returncode == 0
    listed = {job["name"]: job["enabled"] for job in dev.data("job", "list", "file/")}
    assert listed == {"file/one": False, "file/two": True}
    assert dev.crony("job", "resume", "file/one").returncode == 0
    assert dev.crony("job", "delete", "file/one", "file/two", "--yes").returncode == 0
    assert dev.data("job", "list", "file/") == []


def test_a_crontab_comes_over_once(dev: Dev) -> None:
    crontab = "MAILTO=me\n# Says hello\n*/5 * * * * echo hello\n@reboot start\n0 9 * * 1-5 cat %good%morning\n"
    first = dev.crony("import", "crontab", "-", "--timezone", "Europe/Berlin", "-o", "json", text=crontab)
    assert first.returncode == 0 and "line 4" in first.stderr
    report = json.loads(first.stdout)
    assert [(job["line"], job["result"]) for job in report["jobs"]] == [(3, "created"), (5, "created")]
    assert [problem["line"] for problem in report["problems"]] == [4]
    again = dev.crony("import", "crontab", "-", "--timezone", "Europe/Berlin", "-o", "json", text=crontab)
    assert [job["result"] for job in json.loads(again.stdout)["jobs"]] == ["known already"] * 2
    assert len(dev.data("job", "list", "crontab/")) == 2
    strict = dev.crony("import", "crontab", "-", "--strict", text="bad line here\n1 1 1 1 1 true\n")
    assert strict.returncode == 2 and len(dev.data("job", "list", "crontab/")) == 2


def test_the_node_is_there_and_can_be_taken_out(dev: Dev) -> None:
    assert [(node["name"], "shell" in node["kinds"]) for node in dev.data("node", "list")] == [("dev", True)]
    assert "dev" in dev.crony("node", "list").stdout
    assert dev.crony("node", "cordon", "dev").returncode == 0
    until(lambda: "cordoned" in dev.crony("node", "list").stdout, 10, "the node to show as cordoned")
    assert dev.crony("node", "uncordon", "dev").returncode == 0
    assert dev.crony("node", "set", "nobody", "--weight", "1").returncode in (0, 3)


def test_a_child_that_dies_is_started_again_and_work_goes_on(dev: Dev) -> None:
    pid, _ = dev.children()["centre"]
    os.kill(pid, signal.SIGKILL)
    dev.says("the centre was ended by SIGKILL")
    until(lambda: dev.children().get("centre", (pid, 0))[0] != pid, 10, "another centre")
    assert dev.crony("job", "create", "after", "--shell", "true").returncode == 0
    assert dev.data("job", "run", "after", "--wait", "--timeout", "120")["outcome"] == "succeeded"


def test_ctrl_c_once_more_waits_for_nobody(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "18402") as dev:
        dev.ready()
        assert dev.crony("job", "create", "long", "--shell", "sleep 60").returncode == 0
        run = dev.data("job", "run", "long")["run"]
        until(lambda: dev.data("run", "get", run)["state"] == "running", 20, "the run to start")
        children = dev.children()
        dev.popen.send_signal(signal.SIGINT)
        dev.says("stopping")
        assert dev.stop(signal.SIGINT, timeout=8) == 0
        assert alive(children) == []


def test_a_killed_supervisor_leaves_nothing_and_the_next_start_is_measured_and_lost_nothing(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "18401") as first:
        first.ready()
        assert first.crony("job", "create", "every-second", "--every", "1s", "--shell", "true").returncode == 0
        first.says("every-second")
        children = first.children()
        first.popen.kill()
        until(lambda: alive(children) == [], 10, "the children to die with their supervisor")
    with running(tmp_path, "--demo", "--port", "18401", "--exit-after", "17") as dev:
        dev.ready()
        children = dev.children()
        assert sorted(children) == ["centre", "etcd", "node", "web"]
        assert dev.ended(90) == 0, dev.text + dev.logs()
    figures = json.loads(dev.lines[-1])
    assert list(figures) == ["fires", "dispatched", "skipped", "succeeded", "failed", "lost", "doubled"]
    assert figures["lost"] == figures["doubled"] == 0, "the fires of the time between are accounted for too"
    assert figures["fires"] == figures["dispatched"] + figures["skipped"] >= 6 + 17
    assert figures["succeeded"] + figures["failed"] == figures["dispatched"]
    assert figures["skipped"] >= 1, "the slow job overlaps itself"
    assert re.search(r"succeeded +demo/tick +\d+\.\d\ds  dev  attempt 1", dev.text)
    assert re.search(r"failed, retry +demo/flaky", dev.text) and re.search(
        r"succeeded +demo/flaky .* attempt 2", dev.text
    )
    assert re.search(r"skipped +demo/slow +overlap", dev.text)
    assert "not known beforehand: the fires of demo/after-the-end were judged by the ends they follow" in dev.text
    assert re.search(r"succeeded +demo/after-the-end", dev.text) and "not due, yet fired" not in dev.text
    assert alive(children) == []
