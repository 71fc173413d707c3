"""A `crony dev` of a test: started in a folder of its own, read line by line, and the `crony` command beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crony.dev.process import birth
from tests.helpers import zygote
from tests.helpers.server import die_with_parent
from tests.helpers.wait import patient, until

ROOT = Path(__file__).resolve().parents[2]


def environ() -> dict[str, str]:
    """This process's environment without Crony's own variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CRONY_")}
    return kept | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


@dataclass
class Dev:
    """One `crony dev` and what it has said so far."""

    folder: Path
    popen: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    @classmethod
    def start(cls, folder: Path, *arguments: str) -> Dev:
        """Start it in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        popen = subprocess.Popen(
            [sys.executable, "-m", "crony", "dev", *arguments],
            cwd=folder,
            env=environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        dev = cls(folder, popen)
        threading.Thread(target=dev._read, daemon=True).start()
        return dev

    def _read(self) -> None:
        assert self.popen.stdout
        with self.popen.stdout as stream:
            for line in stream:
                self.lines.append(line.rstrip("\n"))

    @property
    def text(self) -> str:
        """Everything it has said."""
        return "\n".join(self.lines)

    def says(self, words: str, timeout: float = 40) -> str:
        """Until a line holds `words`; that line."""

        def found() -> str:
            hit = next((line for line in list(self.lines) if words in line), "")
            assert hit or self.popen.poll() is None, f"it ended with {self.popen.returncode}:\n{self.text}"
            return hit

        try:
            return until(found, timeout, f"crony dev to say {words!r}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text}\n{self.logs()}") from None

    def ready(self) -> Dev:
        """Until everything runs."""
        self.says("Ctrl-C")
        return self

    def ended(self, timeout: float = 40) -> int:
        """Its exit code, when it has ended by itself."""
        try:
            return self.popen.wait(patient(timeout))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not ended within {patient(timeout):g} s:\n{self.text}\n{self.logs()}") from None

    def stop(self, number: int = signal.SIGINT, timeout: float = 30) -> int:
        """Ask it to end; its exit code."""
        self.popen.send_signal(number)
        return self.ended(timeout)

    def children(self) -> dict[str, tuple[int, int]]:
        """(pid, birth) of the children by role."""
        left = json.loads((self.folder / ".crony" / "children.json").read_text())
        return {child["role"]: (child["pid"], child["born"]) for child in left}

    def logs(self) -> str:
        """The ends of the children's logs."""
        paths = sorted((self.folder / ".crony" / "log").glob("*.log"))
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in paths)

    def crony(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run the `crony` command in the folder."""
        return zygote.run([sys.executable, "-m", "crony", *arguments], environ(), self.folder, text)

    def data(self, *arguments: str, text: str = "") -> Any:
        """What a command prints as JSON; it must succeed."""
        done = self.crony(*arguments, "-o", "json", text=text)
        assert done.returncode == 0, f"{arguments}: {done.returncode} {done.stderr}"
        return json.loads(done.stdout)


def alive(processes: dict[str, tuple[int, int]]) -> list[str]:
    """Which of these still run."""
    return [role for role, (pid, born) in processes.items() if birth(pid) == born]


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Dev]:
    """A `crony dev` that is taken down afterwards, with all its children."""
    dev = Dev.start(folder, *arguments)
    try:
        yield dev
    finally:
        if dev.popen.poll() is None:
            dev.popen.terminate()
            try:
                dev.popen.wait(patient(20))
            except subprocess.TimeoutExpired:
                dev.popen.kill()
                dev.popen.wait()
