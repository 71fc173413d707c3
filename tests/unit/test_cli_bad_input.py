"""What people mistype: a sentence that says what is wrong, the right exit code, nothing on stdout, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

NOBODY = "http://127.0.0.1:9"
"""The discard port: nothing listens there."""


def crony(*arguments: str, cwd: Path, text: str | bytes = b"", **environ: str) -> subprocess.CompletedProcess[bytes]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CRONY_")}
    return subprocess.run(
        [sys.executable, "-m", "crony", *arguments],
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), **environ},
        input=text.encode() if isinstance(text, str) else text,
        capture_output=True,
        timeout=30,
    )


FILES: dict[str, bytes] = {
    "tabs.yaml": b"name: a\naction:\n\tkind: shell\n",
    "twice.yaml": b"name: a\nname: b\n",
    "star.yaml": b"name: a\nschedule:\n  cron: */5 * * * *\n",
    "alias.yaml": b"a: &x [1]\nb: *x\n",
    "anchor.yaml": b"a: &x 1\n",
    "tag.yaml": b"a: !!python/object/apply:os.system [id]\n",
    "deep.yaml": b"[" * 5000,
    "text.yaml": b"only words\n",
    "empty.yaml": b"",
    "comment.yaml": b"# nothing\n",
    "binary.yaml": bytes(range(256)) * 20,
    "nul.yaml": b"name: a\0b\n",
    "utf16.yaml": "name: a\n".encode("utf-16"),
    "infinite.yaml": b"name: a\npriority: 1e999\n",
    "bad.json": b'{"name": "a",}',
    "twice.json": b'{"name": "a", "name": "b"}',
    "nan.json": b'{"priority": NaN}',
    "deep.json": b"[" * 100_000,
    "large.yaml": b"a: " + b"x" * (9 * 1024 * 1024),
}

CASES: list[tuple[str, int, str]] = [
    ("", 2, "Usage"),
    ("--no-such-flag", 2, "no such option"),
    ("jbo list", 2, "did you mean"),
    ("job lst", 2, "did you mean"),
    ("job list --no-such-flag", 2, "no such option"),
    ("job list -o yaml", 2, "json"),
    ("job list --limit 0", 2, "0"),
    ("job list --limit many", 2, "many"),
    ("job list --api nonsense", 2, "not the address of a server"),
    ("job list --api ftp://host", 2, "not the address of a server"),
    ("job list --api http://user:secret@host", 2, "not the address of a server"),
    ("job list --api http://host:99999", 2, "not the address of a server"),
    ("job create", 2, "NAME"),
    ("job create x", 2, "exactly one of"),
    ("job create x --shell a --http http://h/", 2, "exactly one of"),
    ("job create x --shell a --cron @daily --every 5m", 2, "exclude each other"),
    ("job create x --shell a --timezone UTC", 2, "--cron"),
    ("job create x --shell a --count 3", 2, "--count belongs to a schedule"),
    ("job create x --shell a --method GET", 2, "--http"),
    ("job create x --grpc billing:1", 2, "where and what"),
    ("job create x --grpc billing:1/a.B/C --method GET", 2, "--method belongs to --http"),
    ("job create x --grpc billing:1/a.B/C --body {", 2, "--body"),
    ("""job create x --command "'a" """, 2, "no closing quotation"),
    ("job create x --shell a --retries many", 2, "many"),
    ("job create x --shell a -p novalue", 2, "KEY=VALUE"),
    ("job create x --shell a -p k:={bad", 2, "not JSON"),
    ("job create x --shell a -p k=1 -p k=2", 2, "twice"),
    ("job create x --http http://h/ --body @missing.txt", 2, "missing.txt"),
    ("job create x -f some.yaml", 2, "the file says everything"),
    ("job create -f missing.yaml", 2, "No such file"),
    ("job create -f .", 2, "is a directory"),
    ("job create -f tabs.yaml", 2, "line 3"),
    ("job create -f twice.yaml", 2, "line 2"),
    ("job create -f star.yaml", 2, "in quotes"),
    ("job create -f alias.yaml", 2, "anchors"),
    ("job create -f anchor.yaml", 2, "anchors"),
    ("job create -f tag.yaml", 2, "tag"),
    ("job create -f deep.yaml", 2, "too deeply"),
    ("job create -f text.yaml", 2, "not a job document"),
    ("job create -f empty.yaml", 2, "is empty"),
    ("job create -f comment.yaml", 2, "not a job document"),
    ("job create -f binary.yaml", 2, "binary"),
    ("job create -f nul.yaml", 2, "binary"),
    ("job create -f utf16.yaml", 2, "UTF-8"),
    ("job create -f infinite.yaml", 2, "too large"),
    ("job create -f bad.json", 2, "line 1"),
    ("job create -f twice.json", 2, "twice"),
    ("job create -f nan.json", 2, "NaN"),
    ("job create -f deep.json", 2, "JSON"),
    ("job create -f large.yaml", 2, "8 MiB"),
    ("job create -f -", 2, "is empty"),
    ("job get", 2, "NAME"),
    ("job get .", 2, "name"),
    ("job delete x", 2, "--yes"),
    ("job run x --timeout 5", 2, "--wait"),
    ("job run x --priority high", 2, "high"),
    ("run output x --attempt 0", 2, "0"),
    ("node set x", 2, "Say what to change"),
    ("node set x --weight 1001", 2, "1001"),
    ("node weight x 1001", 2, "1001"),
    ("node weight x heavy", 2, "heavy"),
    ("node cordon", 2, "NAME"),
    ("import crontab", 2, "FILE"),
    ("import crontab missing", 2, "No such file"),
    ("import crontab .", 2, "is a directory"),
    ("import crontab binary.yaml", 2, "binary"),
    ("import crontab text.yaml --dry-run", 2, "line 1"),
    ("import crontab empty.yaml --dry-run", 2, "no job lines"),
    ("import crontab text.yaml --timezone Mars/Base --dry-run", 2, "timezone"),
    ("import crontab text.yaml --timezone ../../etc/passwd --dry-run", 2, "timezone"),
    ("token create x", 2, "--scope"),
    ("token create x --scope king", 2, "king"),
    ("token create x --scope node", 2, "CRONY_DATABASE_URL"),
    ("db upgrade", 2, "CRONY_DATABASE_URL"),
    ("flower", 2, "FLOWER_BASIC_AUTH"),
    ("keys new --save .", 2, "exists already"),
    ("keys new --save no/such/folder", 2, "No such file"),
    ("dev --port 0", 2, "0"),
    ("dev --exit-after 0", 2, "0"),
    ("dev --exit-after soon", 2, "soon"),
    ("dev --data-dir text.yaml", 2, "not a directory"),
    ("worker --concurrency 0", 2, "0"),
    (f"job list --api {NOBODY}", 8, "no server answers"),
    (f"job get x --api {NOBODY}", 8, "no server answers"),
    (f"job create x --shell a --api {NOBODY}", 8, "no server answers"),
    (f"run wait x --api {NOBODY} --timeout nan", 2, "--timeout"),
    ("job list --api http://no-such-host.invalid", 8, "no server answers"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("cli")
    for name, content in FILES.items():
        (made / name).write_bytes(content)
    return made


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, tuple[int, str, str]]:
    """Every case, run in one process: a new interpreter for each would take a minute."""
    script = folder / "all.py"
    script.write_text(
        "import contextlib, io, json, shlex, sys\n"
        "from crony.cli.main import run\n"
        "out = {}\n"
        "for line in json.loads(sys.argv[1]):\n"
        "    stdout, stderr = io.StringIO(), io.StringIO()\n"
        "    sys.stdin = io.TextIOWrapper(io.BytesIO(b''))\n"
        "    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):\n"
        "        code = run(shlex.split(line))\n"
        "    out[line] = (code, stdout.getvalue(), stderr.getvalue())\n"
        "print(json.dumps(out))\n"
    )
    import json

    lines = json.dumps([line for line, _, _ in CASES])
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CRONY_", "FLOWER_"))}
    done = subprocess.run(
        [sys.executable, str(script), lines],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, tuple[int, str, str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(("line", "code", "says"), CASES, ids=[line or "nothing" for line, _, _ in CASES])
def test_bad_input_is_refused_in_a_sentence(
    outcomes: dict[str, tuple[int, str, str]], line: str, code: int, says: str
) -> None:
    got, stdout, stderr = outcomes[line]
    assert got == code, stderr
    assert says.lower() in stderr.lower()
    assert stdout == ""
    assert "Traceback" not in stderr and "unexpected error:" not in stderr
    assert len(stderr.splitlines()) <= 8 or line == ""
    assert "secret" not in stderr or line == ""


def test_the_real_process_says_the_same(folder: Path) -> None:
    done = crony("job", "create", "-f", "twice.yaml", cwd=folder)
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"line 2" in done.stderr and b"Traceback" not in done.stderr


@pytest.mark.parametrize("variable", ["CRONY_ETCD_ENDPOINT", "CRONY_TOKENS"])
def test_a_misspelt_setting_is_refused_with_a_suggestion(folder: Path, variable: str) -> None:
    done = crony("job", "list", cwd=folder, **{variable: "x"})
    assert done.returncode == 2
    assert variable.encode() in done.stderr and b"did you mean" in done.stderr


def test_stdin_and_stdout_may_be_closed(folder: Path) -> None:
    here = {"cwd": folder, "env": {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}}
    for shell in ("version >&-", "version <&-", "job create -f - <&-", "config 2>&- >&-"):
        done = subprocess.run(
            ["sh", "-c", f"{sys.executable} -m crony {shell}"], capture_output=True, timeout=30, **here
        )
        assert b"Traceback" not in done.stderr, shell
        assert done.returncode in (0, 2), (shell, done.stderr)


def test_a_reader_that_leaves_ends_it_quietly(folder: Path) -> None:
    command = f"{sys.executable} -m crony config -o json | head -c 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "Traceback" not in done.stderr and "Broken" not in done.stderr
    assert done.stdout[1:].strip() in ("0", "141")


def test_a_locale_that_knows_no_chinese_is_no_reason_to_fail(folder: Path) -> None:
    done = crony("job", "get", "日报", "--api", NOBODY, cwd=folder, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 8
    assert b"Traceback" not in done.stderr


def test_secrets_are_never_shown(folder: Path) -> None:
    secret = "crony_abcdefghijklmnop"
    for form in ("table", "json"):
        done = crony("config", "-o", form, cwd=folder, CRONY_TOKEN=secret, CRONY_DATABASE_URL="mysql://u:hush@h/d")
        assert done.returncode == 0
        assert secret.encode() not in done.stdout + done.stderr and b"hush" not in done.stdout + done.stderr
        assert b"(set)" in done.stdout


def test_importing_the_command_is_light() -> None:
    script = (
        "import sys, crony.cli.main; heavy = {'celery', 'sqlalchemy', 'fastapi', 'requests', 'yaml', 'cryptography'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout.strip() == "[]", done.stderr
