"""Shell jobs: environment, output, endings; nothing is left behind, whoever dies."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from crony.domain.callback import Token
from crony.domain.outcome import Kind
from crony.domain.stamps import Source
from crony.workers.attempt import Verdict
from crony.workers.calling import Callback
from crony.workers.process import Process
from crony.workers.runners import shell
from tests.helpers import attempts
from tests.helpers.attempts import Aside
from tests.helpers.wait import until


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Process]:
    made = attempts.process(tmp_path)
    yield made
    made.keeper.close()


def run(parts: Process, action: dict, /, **changes: object) -> Verdict:
    return shell.run(attempts.attempt(parts, {"kind": "shell", **action}, **changes))


def gone(pid: int) -> bool:
    """No such process, or only its unreaped remains."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def pids(path: Path, count: int = 1) -> list[int]:
    return until(
        lambda: path.exists() and len(found := [int(x) for x in path.read_text().split()]) >= count and found,
        what="the shell writes its process ids",
    )


def test_output_and_error_are_apart(parts: Process) -> None:
    verdict = run(parts, {"command": ["sh", "-c", "echo one; echo two >&2; echo three; echo four > /dev/stderr"]})
    assert verdict == Verdict(Kind.SUCCEEDED, code=0)
    assert attempts.output(parts, Source.STDOUT) == b"one\nthree\n"
    assert attempts.output(parts, Source.STDERR) == b"two\nfour\n"


def test_arguments_are_passed_as_they_are(parts: Process) -> None:
    run(parts, {"command": ["printf", "%s|", "a b", "$HOME", "*", "-n", "", "é\n"]})
    assert attempts.output(parts) == "a b|$HOME|*|-n||é\n|".encode()


def test_environment_is_the_jobs_own(parts: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRONY_TOKEN", "secret-canary")
    monkeypatch.setenv("SOME_NODE_VARIABLE", "secret-canary")
    run(parts, {"command": ["env"], "env": {"GREETING": "hi"}}, params={"region": "eu", "n-2": [1]}, attempt=3)
    lines = dict(line.split("=", 1) for line in attempts.output(parts).decode().splitlines())
    for shells_own in ("PWD", "SHLVL", "_", "OLDPWD", "TZ"):
        lines.pop(shells_own, None)
    assert lines.pop("PATH") and lines.pop("HOME") and lines.pop("LANG") and lines.pop("USER")
    assert lines == {
        "GREETING": "hi",
        "CRONY_RUN_ID": "j1.1.1700000000",
        "CRONY_JOB": "j1",
        "CRONY_NAME": "tests/job",
        "CRONY_ATTEMPT": "3",
        "CRONY_FENCE": "77",
        "CRONY_FIRE_TIME": "2023-11-14T22:13:20+00:00",
        "CRONY_PARAM_REGION": "eu",
        "CRONY_PARAM_N_2": "[1]",
    }


def test_a_part_knows_which_it_is(parts: Process) -> None:
    run(parts, {"command": ["sh", "-c", "echo $CRONY_PART_INDEX of $CRONY_PART_TOTAL"]}, part=0, parts=3)
    assert attempts.output(parts) == b"0 of 3\n"


def test_no_descriptor_is_inherited(parts: Process, tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        run(parts, {"command": ["sh", "-c", "ls -l /proc/$$/fd"]})
    lines = attempts.output(parts).decode().splitlines()
    assert sorted(line.split(" -> ")[0].split()[-1] for line in lines if "->" in line) == ["0", "1", "2"]


def test_standard_input_and_directory(parts: Process, tmp_path: Path) -> None:
    run(parts, {"command": ["sh", "-c", "pwd; cat"], "stdin": "x" * 100_000 + "\n", "cwd": str(tmp_path)})
    assert attempts.output(parts) == f"{tmp_path}\n{'x' * 100_000}\n".encode()


def test_without_standard_input_reading_ends_at_once(parts: Process) -> None:
    assert run(parts, {"command": ["cat"]}).kind is Kind.SUCCEEDED


def test_script_with_an_interpreter(parts: Process) -> None:
    script = "import sys\nprint('from', sys.argv[1:])\nsys.exit(4)\n"
    verdict = run(parts, {"script": script, "interpreter": sys.executable})
    assert (verdict.kind, verdict.code, verdict.reason) == (Kind.FAILED, 4, "exit code 4")
    assert attempts.output(parts) == b"from []\n"


@pytest.mark.parametrize(
    ("action", "code", "reason"),
    [
        ({"command": ["sh", "-c", "exit 3"]}, 3, "exit code 3"),
        ({"command": ["no-such-command-anywhere"]}, 127, "exit code 127 (command not found)"),
        ({"command": ["/etc/passwd"]}, 126, "exit code 126 (cannot be executed)"),
        ({"command": ["sh", "-c", "kill -SEGV $$"]}, 139, "killed by signal SIGSEGV"),
        ({"command": ["sh", "-c", "kill -KILL $$"]}, 137, "killed by signal SIGKILL"),
    ],
)
def test_failures(parts: Process, action: dict, code: int, reason: str) -> None:
    assert run(parts, action) == Verdict(Kind.FAILED, reason, code)


@pytest.mark.parametrize(
    "action",
    [
        {"command": ["echo", "a\0b"]},
        {"command": []},
        {"command": ["true"], "cwd": "/no/such/directory"},
        {"command": ["true"], "env": {"A": "\0"}},
        {},
    ],
)
def test_what_cannot_start_fails_with_a_sentence(parts: Process, action: dict) -> None:
    verdict = run(parts, action)
    assert verdict.kind is Kind.FAILED
    assert verdict.reason


def test_timeout_ends_the_whole_group(parts: Process, tmp_path: Path) -> None:
    listed = tmp_path / "pids"
    script = f"sleep 600 & echo $$ $! > {listed}; wait"
    verdict = run(parts, {"command": ["sh", "-c", script]}, timeout=1.0)
    assert verdict.kind is Kind.TIMED_OUT
    assert "still running after 1 s" in verdict.reason
    assert all(gone(pid) for pid in pids(listed, 2))


def test_who_ignores_term_is_killed(parts: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "GRACE", 0.3)
    listed = tmp_path / "pids"
    loop = "while :; do sleep 0.05; done"
    script = f"trap '' TERM; (trap '' TERM; echo $$ > {listed}; {loop}) & {loop}"
    verdict = run(parts, {"command": ["sh", "-c", script]}, timeout=1.0)
    assert (verdict.kind, verdict.code) == (Kind.TIMED_OUT, 137)
    assert all(gone(pid) for pid in pids(listed))


def test_children_get_the_grace_too(parts: Process, tmp_path: Path) -> None:
    script = "(trap 'echo cleaned; exit 0' TERM; echo ready; while :; do sleep 0.02; done) & wait"
    verdict = run(parts, {"command": ["sh", "-c", script]}, timeout=1.0)
    assert verdict.kind is Kind.TIMED_OUT
    assert attempts.output(parts).endswith(b"cleaned\n")


def test_cancel(parts: Process) -> None:
    target = attempts.attempt(parts, {"kind": "shell", "command": ["sh", "-c", "echo begun; sleep 600"]})
    aside = Aside(shell.run, target)
    until(lambda: b"begun" in attempts.output(parts), what="the command begins")
    target.cancel()
    verdict = aside.join()
    assert (verdict.kind, verdict.code) == (Kind.CANCELLED, 143)


def test_what_is_left_in_the_group_ends_with_the_command(parts: Process, tmp_path: Path) -> None:
    listed = tmp_path / "pids"
    verdict = run(parts, {"command": ["sh", "-c", f"sleep 600 & echo $! > {listed}; echo done"]})
    assert verdict.kind is Kind.SUCCEEDED
    until(lambda: all(gone(pid) for pid in pids(listed)), what="the background process ends")
    assert attempts.output(parts) == b"done\n"


def test_output_is_capped(tmp_path: Path) -> None:
    parts = attempts.process(tmp_path, output_limit=10_000)
    script = "head -c 1000000 /dev/zero | tr '\\0' x"
    target = attempts.attempt(parts, {"kind": "shell", "command": ["sh", "-c", script]})
    assert shell.run(target).kind is Kind.SUCCEEDED
    assert target.output.truncated
    target.output.close()
    parts.keeper.close()
    kept = attempts.output(parts)
    cut = b"x" * 10_000 + b"\n[crony: output cut here, more than 10000 bytes; its end comes when it is over]\n"
    assert kept.startswith(cut) and kept.endswith(b"x" * 10_000)


_WORKER = """
    import sys
    from pathlib import Path
    from tests.helpers import attempts
    from crony.workers.runners import shell
    parts = attempts.process(Path(sys.argv[1]))
    for _ in range(3):
        shell.run(attempts.attempt(parts, {"kind": "shell", "command": ["true"]}))
    shell.run(attempts.attempt(parts, {"kind": "shell", "command": ["sh", "-c", sys.argv[2]]}))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_shell_dies_with_its_process(tmp_path: Path, how: signal.Signals) -> None:
    listed = tmp_path / "pids"
    script = f"trap '' TERM HUP INT; sleep 600 & echo $$ $! > {listed}; while :; do sleep 1; done"
    owner = subprocess.Popen([sys.executable, "-c", textwrap.dedent(_WORKER), str(tmp_path), script])
    try:
        found = pids(listed, 2)
        assert not any(gone(pid) for pid in found)
    finally:
        owner.send_signal(how)
        owner.wait()
    until(lambda: all(gone(pid) for pid in found), 5, "the shell and its child die")


def test_a_dead_keeper_is_replaced(parts: Process) -> None:
    run(parts, {"command": ["true"]})
    first = parts.keeper._child
    assert first is not None
    first.kill()
    first.wait()
    assert run(parts, {"command": ["echo", "on"]}).kind is Kind.SUCCEEDED
    assert parts.keeper._child is not None and parts.keeper._child.pid != first.pid


@pytest.mark.parametrize(
    ("codes", "code", "kind", "final"),
    [
        ({"success": [3]}, 3, Kind.SUCCEEDED, False),
        ({"success": [3]}, 4, Kind.FAILED, False),
        ({"success": [3], "final": [64]}, 64, Kind.FAILED, True),
    ],
)
def test_what_exit_codes_mean(parts: Process, codes: dict, code: int, kind: Kind, final: bool) -> None:
    verdict = run(parts, {"command": ["sh", "-c", f"exit {code}"], "exit_codes": codes})
    assert (verdict.kind, verdict.code, verdict.final) == (kind, code, final)


@pytest.mark.parametrize(
    ("limits", "script", "seen"),
    [
        ({"cpu": "1s"}, "while :; do :; done", "killed by signal SIGXCPU: more than its limit of cpu, 1s"),
        ({"memory": "64MiB"}, "head -c 200000000 /dev/zero | tail -n 1 | wc -c", "cannot allocate|exhausted"),
        ({"files": 16}, "ulimit -n", "16"),
        ({"file_size": "1KiB"}, "exec head -c 5000 /dev/zero > big", "SIGXFSZ: more than its limit of file_size, 1KiB"),
        ({"file_size": "1KiB"}, "head -c 5000 /dev/zero > big; exit $?", "code 153: more than its limit of file_size"),
        ({"processes": 7}, "ulimit -u 2>/dev/null || grep processes /proc/self/limits", "7"),
        ({}, "ulimit -c", "0"),
    ],
    ids=["cpu", "memory", "files", "file_size", "file_size of a child", "processes", "core"],
)
def test_limits(parts: Process, tmp_path: Path, limits: dict, script: str, seen: str) -> None:
    verdict = run(parts, {"script": script, "limits": limits, "cwd": str(tmp_path)})
    assert re.search(seen, f"{verdict.reason}\n{attempts.output(parts).decode()}", re.IGNORECASE), verdict


# -- what the node allows -------------------------------------------------------------------------

OTHER = "nobody"


@pytest.mark.parametrize(
    ("allow", "action", "why"),
    [
        ("/usr/bin/true", {"command": ["true"]}, ""),
        ("/usr/bin/*", {"command": ["/usr/bin/true", "x"]}, ""),
        ("/usr/**", {"command": ["/bin/true"]}, ""),
        ("/opt/**", {"command": ["true"]}, "is not among the programs"),
        ("/usr/*", {"command": ["true"]}, "is not among the programs"),
        ("/usr/bin/tru", {"command": ["true"]}, "is not among the programs"),
        ("/usr/bin/../bin/true", {"command": ["true"]}, "is not among the programs"),
        ("/opt/jobs/*", {"command": ["/opt/jobs/../../usr/bin/true"]}, "is n"),
        ("{folder}/*", {"command": ["{folder}/link"]}, "is not among the programs"),
        ("/usr/bin/true", {"command": ["./true"], "cwd": "/usr/bin"}, "is no program on this node"),
        ("/usr/bin/true", {"command": ["true"], "env": {"PATH": "/tmp"}}, "lets no job set PATH"),
        ("/usr/bin/true", {"command": ["true"], "env": {"LD_PRELOAD": "/tmp/x.so"}}, "may not be set by a job"),
        ("/usr/bin/true", {"script": "true"}, "runs no scripts"),
        ("/usr/bin/true,scripts", {"script": "true"}, ""),
        ("scripts", {"command": ["true"]}, "is not among the programs"),
    ],
)
def test_the_nodes_list_of_programs(tmp_path: Path, allow: str, action: dict, why: str) -> None:
    (tmp_path / "link").symlink_to("/usr/bin/true")

    def here(text: str) -> str:
        return text.replace("{folder}", str(tmp_path))

    parts = attempts.process(tmp_path, shell_allow=tuple(here(allow).split(",")))
    if "command" in action:
        action = {**action, "command": [here(part) for part in action["command"]]}
    verdict = run(parts, action)
    parts.keeper.close()
    assert verdict.kind is (Kind.REFUSED if why else Kind.SUCCEEDED), verdict
    assert why in verdict.reason


@pytest.mark.parametrize(
    ("users", "run_as", "why"),
    [
        ((), {"user": OTHER}, "CRONY_SHELL_USERS"),
        ((OTHER,), {"user": "root"}, "CRONY_SHELL_USERS"),
        ((OTHER,), {"user": "daemon"}, "CRONY_SHELL_USERS"),
        (("no-such-user",), {"user": "no-such-user"}, "there is no user"),
        ((OTHER,), {"user": OTHER, "group": "root"}, "is not in the group"),
        ((OTHER,), {"user": OTHER, "group": "no-such-group"}, "there is no group"),
    ],
)
def test_who_is_not_allowed(tmp_path: Path, users: tuple[str, ...], run_as: dict, why: str) -> None:
    verdict = run(attempts.process(tmp_path, shell_users=users), {"command": ["true"], "run_as": run_as})
    assert verdict.kind is Kind.REFUSED and why in verdict.reason


def test_only_root_runs_commands_as_somebody_else(parts: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: pwd.getpwnam(OTHER).pw_uid)
    verdict = run(parts, {"command": ["true"], "run_as": {"user": "backup"}})
    assert verdict.kind is Kind.REFUSED and "this node runs as nobody, so it cannot" in verdict.reason


def test_a_command_as_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = attempts.process(tmp_path, shell_users=(OTHER,))
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")  # that of the tests is closed to others
    target = attempts.attempt(parts, {"kind": "shell", "script": _WHO, "run_as": {"user": OTHER}}, deadline=60.0)
    token = Token.new("run.n1", "9.x").under(7)
    target.callback = Callback.of(target.envelope, token, api="http://127.0.0.1:9", now=0.0)
    verdict = shell.run(target)
    told = attempts.output(parts).decode().splitlines()
    assert verdict.accepted, (verdict, told)
    entry = pwd.getpwnam(OTHER)
    assert told[0] == f"{entry.pw_uid} {entry.pw_gid} {entry.pw_gid}"
    assert told[1] == f"{OTHER} {entry.pw_dir}"
    assert told[2] == "700 nobody, token 600 nobody", "the folder of its callback is its own"
    assert told[3:] == ["may not kill its minder", "done"]
    run(parts, {"command": ["id", "-un"]})
    parts.keeper.close()
    assert attempts.output(parts).decode().splitlines()[-1] == OTHER, "the first one allowed, where the job names none"


_WHO = """
echo "$(id -u) $(id -g) $(id -G)"
echo "$USER $HOME"
folder=$(dirname "$CRONY_CALLBACK_TOKEN_FILE")
echo "$(stat -c '%a %U' "$folder"), token $(stat -c '%a %U' "$CRONY_CALLBACK_TOKEN_FILE")"
kill -9 $PPID 2>/dev/null || echo "may not kill its minder"
touch "$CRONY_CALLBACK_ACCEPT_FILE"
echo done
"""


def test_a_command_sees_nothing_of_the_nodes_own(tmp_path: Path) -> None:
    source = textwrap.dedent("""
        import sys
        from pathlib import Path
        from tests.helpers import attempts
        from crony.workers import keeper_main
        from crony.workers.runners import shell
        parts = attempts.process(Path(sys.argv[1]), shell_users=("nobody", "root"))
        for user in ("nobody", "root"):
            script = "cat /proc/$PPID/environ /proc/self/environ; cat /proc/[0-9]*/environ | tr '\\0' '\\n'"
            if user == "root":
                script = "cat /proc/$PPID/environ /proc/self/environ; env"
            verdict = shell.run(attempts.attempt(parts, {"kind": "shell", "script": script, "run_as": {"user": user}}))
        assert keeper_main._libc.prctl(3, 0, 0, 0, 0) == 0, "others of its user cannot read its environment"
        parts.keeper.close()
    """)
    environ = {**os.environ, "CRONY_TOKEN": "secret-canary", "DATABASE_PASSWORD": "secret-canary"}
    subprocess.run([sys.executable, "-c", source, str(tmp_path)], env=environ, check=True, timeout=60)
    seen = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"CRONY_RUN_ID" in seen and b"secret-canary" not in seen


def test_a_node_hides_its_environment_from_its_own_user() -> None:
    source = textwrap.dedent("""
        import os, subprocess
        from crony.workers import keeper_main
        from crony.workers.keeper import hide
        os.setgroups([]), os.setgid(65534), os.setuid(65534)
        cat = ["cat", f"/proc/{os.getpid()}/environ"]
        keeper_main.prctl(4, 1)  # a change of user hides it as well
        print(b"secret-canary" in subprocess.run(cat, capture_output=True).stdout)
        hide()
        print(b"secret-canary" in subprocess.run(cat, capture_output=True).stdout)
        print(bool(os.readlink("/proc/self/ns/pid") and os.listdir("/proc/self/task")))
    """)
    environ = {**os.environ, "CRONY_TOKEN": "secret-canary"}
    done = subprocess.run([sys.executable, "-c", source], env=environ, check=True, timeout=60, capture_output=True)
    assert done.stdout.split() == [b"True", b"False", b"True"], "readable, hidden, and not from itself"


ESCAPES = {
    "a new session": "setsid sleep 600 &",
    "a double fork": "(setsid sh -c 'sleep 600 & echo $! >> {0}; setsid sleep 600' &) &",
    "who ignores signals": "setsid sh -c 'trap \"\" TERM HUP INT; echo $$ >> {0}; while :; do sleep 1; done' &",
    "a chain": "setsid sh -c 'setsid sh -c \"setsid sleep 600 & echo \\$\\$ >> {0}; sleep 600\" & sleep 600' &",
}


@pytest.mark.parametrize("ended", ["by itself", "timeout"])
@pytest.mark.parametrize("how", ESCAPES)
def test_nobody_gets_away(
    parts: Process, tmp_path: Path, how: str, ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "GRACE", 0.3)
    listed, mark = tmp_path / "pids", f"crony-test-{uuid4()}"
    wait = "while [ ! -s {0} ]; do sleep 0.02; done" if "{0}" in ESCAPES[how] else "sleep 0.1"
    script = f"{ESCAPES[how]}\n{wait}\n{'sleep 600' if ended == 'timeout' else ''}".replace("{0}", str(listed))
    verdict = run(parts, {"script": script, "env": {"MARK": mark}}, timeout=1.5)
    assert verdict.kind is (Kind.TIMED_OUT if ended == "timeout" else Kind.SUCCEEDED)
    assert bearing(mark) == [], "when the attempt has ended, nothing of it goes on"


@pytest.mark.parametrize("code", [0, 1])
def test_a_command_that_has_accepted_may_leave_somebody_who_answers(parts: Process, tmp_path: Path, code: int) -> None:
    listed = tmp_path / "pids"
    script = f"""
        sleep 600 & echo $! >> {listed}
        setsid sh -c 'echo $$ >> {listed}; exec sleep 600' > /dev/null 2>&1 &
        while [ "$(wc -l < {listed})" -lt 2 ]; do sleep 0.02; done
        touch "$CRONY_CALLBACK_ACCEPT_FILE"; exit {code}
    """
    target = attempts.attempt(parts, {"kind": "shell", "script": script}, deadline=60.0)
    token = Token.new("run.n1", "9.x").under(7)
    target.callback = Callback.of(target.envelope, token, api="http://127.0.0.1:9", now=0.0)
    assert shell.run(target).accepted == (code == 0)
    inside, outside = pids(listed, 2)
    until(lambda: gone(inside), 5, "what stayed in its session ends")
    assert gone(outside) == (code != 0)
    if code == 0:
        os.kill(outside, signal.SIGKILL)


def bearing(mark: str) -> list[str]:
    """Processes with this text in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes():
                found.append(path.parent.name)
    return found


def test_a_killed_minder_takes_its_command_along(parts: Process, tmp_path: Path) -> None:
    listed = tmp_path / "pids"
    verdict = run(parts, {"command": ["sh", "-c", f"echo $$ > {listed}; kill -9 $PPID; sleep 600"]})
    assert verdict.kind is Kind.LOST
    until(lambda: gone(pids(listed)[0]), 5, "the command dies")


def test_nothing_leaks(parts: Process) -> None:
    run(parts, {"command": ["true"]})
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        run(parts, {"script": "true", "stdin": "x"})
    assert len(os.listdir("/proc/self/fd")) == before
