"""The clients in Go and Java: compiled, they agree on signatures, report, bear an outage, and learn of a cancel.

What was compiled is kept in `.cache/` by the content of its sources.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest
from crony_sdk.testing import SECRET, FakePlatform

from tests.helpers.server import die_with_parent
from tests.helpers.wait import until

ROOT = Path(__file__).resolve().parents[2]
SDK = ROOT / "sdk"
CACHE = ROOT / ".cache/sdk"


@dataclass(frozen=True)
class Example:
    """A compiled example service."""

    language: str
    command: list[str]

    def taken(self) -> list[str]:
        """Names of the vectors that its verifier takes."""
        vectors = json.loads((SDK / "vectors.json").read_text())["vectors"]
        fields = ("name", "secret", "timestamp", "method", "target", "run", "attempt", "body", "signature")
        rows = [
            [
                vector[field] if field == "body" else base64.b64encode(str(vector[field]).encode()).decode()
                for field in fields
            ]
            for vector in vectors
        ]
        lines = "".join("\t".join(row) + "\n" for row in rows)
        command = [*self.command, str(SDK / "vectors.json")]
        done = subprocess.run(command, input=lines, capture_output=True, text=True, encoding="utf-8", timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    @contextmanager
    def serving(self) -> Iterator[tuple[str, IO[str]]]:
        """Its address, and what it prints after the port."""
        environ = {**os.environ, "CRONY_CALL_SECRETS": SECRET}
        with subprocess.Popen(
            self.command, env=environ, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent
        ) as process:
            assert process.stdout is not None
            try:
                yield f"http://127.0.0.1:{int(process.stdout.readline())}", process.stdout
            finally:
                process.kill()


def compiled(language: str, sources: list[Path]) -> Path:
    """Where the result belongs; the name changes with the sources and the compiler."""
    compiler = {"go": "go", "java": "javac"}[language]
    found = shutil.which(compiler)
    assert found, f"{compiler} is missing; `make services` installs it on Debian, or names the package"
    version = subprocess.run([found, "version" if language == "go" else "-version"], capture_output=True, timeout=60)
    digest = hashlib.sha256(version.stdout + b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    return CACHE / f"{language}-{digest}"


def build(command: list[str], cwd: Path, target: Path) -> None:
    """Compile into a name of our own, then put it where others find it."""
    if target.exists():
        return
    scratch = target.with_name(f"{target.name}.{os.getpid()}")
    CACHE.mkdir(parents=True, exist_ok=True)
    environ = {**os.environ, "GOCACHE": str(CACHE / "go-build"), "GOPROXY": "off", "GOFLAGS": "-mod=mod"}
    command = [part.replace("TARGET", str(scratch)) for part in command]
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    try:
        scratch.rename(target)
    except OSError:  # another test process was faster
        shutil.rmtree(scratch, ignore_errors=True)


@pytest.fixture(scope="module", params=["go", "java"])
def example(request: pytest.FixtureRequest) -> Example:
    if request.param == "go":
        sources = [SDK / "go/crony.go", SDK / "go/example/main.go", SDK / "go/go.mod"]
        target = compiled("go", sources)
        build(["go", "build", "-o", "TARGET", "./example"], SDK / "go", target)
        return Example("Go", [str(target)])
    sources = sorted((SDK / "java").glob("*.java"))
    target = compiled("java", sources)
    build(
        ["javac", "--release", "11", "-encoding", "UTF-8", "-Xlint:all", "-Werror", "-d", "TARGET", *map(str, sources)],
        SDK / "java",
        target,
    )
    options = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Dfile.encoding=UTF-8"]
    return Example("Java", ["java", *options, "-cp", str(target), "Example"])


def test_every_language_takes_the_same_signatures(example: Example) -> None:
    vectors = json.loads((SDK / "vectors.json").read_text())["vectors"]
    assert example.taken() == [vector["name"] for vector in vectors if vector["valid"]]


def test_a_service_reports_over_an_outage_and_learns_of_a_cancel(crony: FakePlatform, example: Example) -> None:
    with example.serving() as (url, printed):
        failed = crony.call(url, "fail")
        assert failed.status == 202
        assert (failed.wait(30).reason, failed.final) == ("the work went wrong", True)
        assert (failed.percent, failed.message) == (50, "half way")
        assert failed.output.decode() == f"a line of {example.language} 日\n"

        forged = crony.attempt()
        forged.headers["X-Crony-Signature"] = "v1=" + "0" * 64
        secret, crony.secret = crony.secret, None
        assert crony.call(url, "complete", attempt=forged).status == 401
        crony.secret = secret
        assert crony.call(url, "complete", later=False).status == 400

        waiting = crony.call(url, "wait", heartbeat=0.6)
        until(lambda: waiting.heartbeats >= 3, 20, "heartbeats")
        waiting.end("cancelled", cancel=True)

        crony.down()
        later = crony.call(url, "complete", {"n": 1})
        assert later.status == 202
        crony.up()
        assert later.wait(30).result == {"by": example.language, "run": later.run}
        refused = next(line for line in printed if line.startswith(waiting.run))
        assert "409" in refused
