"""The example services of the SDK in Go and Java, compiled; kept in `.cache/` by the content of their sources."""

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

from tests.helpers.server import die_with_parent

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
        facts = ("name", "secret", "timestamp", "method", "target", "run", "attempt", "fence", "callback")
        fields = (*facts, "body", "signature")
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
    def serving(self, secret: str, **more: str) -> Iterator[tuple[str, IO[str]]]:
        """Its address, and what it prints after the port; at the end it is told to end. `more`: its environment."""
        environ = {**os.environ, "CRONY_CALL_SECRETS": secret, **more}
        with subprocess.Popen(
            self.command, env=environ, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent
        ) as process:
            assert process.stdout is not None
            try:
                yield f"http://127.0.0.1:{int(process.stdout.readline())}", process.stdout
                process.terminate()
                process.wait(30)
            finally:
                process.kill()


def _place(language: str, sources: list[Path]) -> Path:
    """Where the result belongs; the name changes with the sources and the compiler."""
    compiler = {"go": "go", "java": "javac"}[language]
    found = shutil.which(compiler)
    assert found, f"{compiler} is missing; `make services` installs it on Debian, or names the package"
    version = subprocess.run([found, "version" if language == "go" else "-version"], capture_output=True, timeout=60)
    digest = hashlib.sha256(version.stdout + b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    return CACHE / f"{language}-{digest}"


def _build(command: list[str], cwd: Path, target: Path) -> None:
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


def example(language: str) -> Example:
    """The example service in `go` or `java`, compiled if need be."""
    if language == "go":
        target = _place("go", [*sorted((SDK / "go").rglob("*.go")), SDK / "go/go.mod"])
        _build(["go", "build", "-o", "TARGET", "./example"], SDK / "go", target)
        return Example("Go", [str(target)])
    sources = sorted((SDK / "java").glob("*.java"))
    target = _place("java", sources)
    options = ["--release", "11", "-encoding", "UTF-8", "-Xlint:all", "-Werror"]
    _build(["javac", *options, "-d", "TARGET", *map(str, sources)], SDK / "java", target)
    lean = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dfile.encoding=UTF-8"]
    return Example("Java", ["java", *lean, "-cp", str(target), "Example"])
