"""The data directory of `crony dev`: one holder at a time, secrets readable by their owner only.

lock            held (flock) by the running `crony dev`; says who that is
children.json   pids and births of its children, for the next start to end what a SIGKILL left behind
cli.env         addresses and token for the `crony` command of this directory
secrets/        signing keys and tokens        etcd/  crony.db  spool/  state/  log/
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from crony.dev.process import birth, end_leftover
from crony.errors import CronyError, Invalid


class Held(CronyError):
    """Another `crony dev` holds the data directory."""


@dataclass
class Folder:
    """A data directory, locked while the object is open."""

    path: Path
    _lock: int = field(default=-1, repr=False)

    @classmethod
    def open(cls, path: Path) -> Folder:
        """Make and lock it. Raises `Held` naming the holder, or `Invalid` when it cannot be used."""
        try:
            path = path.absolute()
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            facts = path.stat()
            if facts.st_uid != os.getuid():
                raise Invalid("--data-dir", f"{path} belongs to somebody else")
            if stat.S_IMODE(facts.st_mode) & 0o077:
                path.chmod(0o700)
            lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise Invalid("--data-dir", f"{path} is not a directory") from None
        except OSError as error:
            raise Invalid("--data-dir", f"{path} cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = _holder(lock)
            os.close(lock)
            raise Held(
                f"{path} is in use by another `crony dev`",
                why=holder,
                hint="stop that one, or choose another directory with --data-dir",
            ) from None
        folder = cls(path, lock)
        folder.note_holder()
        return folder

    def note_holder(self, url: str = "") -> None:
        """Write who holds the directory, for a second start to tell."""
        facts = {"pid": os.getpid(), "since": datetime.now().astimezone().isoformat(timespec="seconds"), "url": url}
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, json.dumps(facts).encode(), 0)

    def close(self) -> None:
        """Let it go."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def end_leftovers(self) -> int:
        """End children of an earlier `crony dev` that was killed; how many there were."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            left = json.loads((self.path / "children.json").read_text())
            return sum(end_leftover(int(child["pid"]), int(child["born"])) for child in left)
        return 0

    def note_children(self, children: Iterable[tuple[str, int]]) -> None:
        """Remember (role, pid) of the running children."""
        left = [{"role": role, "pid": pid, "born": birth(pid)} for role, pid in children if birth(pid) is not None]
        self.write("children.json", json.dumps(left))

    def make(self, name: str) -> Path:
        """A sub-directory, made when missing."""
        made = self.path / name
        made.mkdir(mode=0o700, exist_ok=True)
        return made

    def secret(
        self,
        name: str,
        make: Callable[[], Mapping[str, str]],
        *,
        sound: Callable[[Mapping[str, str]], bool] = lambda found: True,
    ) -> dict[str, str]:
        """Named secrets kept in `secrets/<name>.json`; made when there are none or they are not `sound` any more."""
        self.make("secrets")
        with suppress(OSError, ValueError, AttributeError):
            kept = json.loads((self.path / f"secrets/{name}.json").read_text())
            found = {str(key): str(value) for key, value in kept.items()}
            if found and sound(found):
                return found
        made = dict(make())
        self.write(f"secrets/{name}.json", json.dumps(made))
        return made

    def secret_file(self, name: str, text: str) -> Path:
        """`text` in a file of its own, for `CRONY_…_FILE`."""
        self.make("secrets")
        return self.write(f"secrets/{name}", text + "\n")

    def write(self, name: str, text: str) -> Path:
        """Replace a file whole, readable by its owner only."""
        path = self.path / name
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        return path


def _holder(lock: int) -> str:
    with suppress(OSError, ValueError, TypeError):
        facts: dict[str, Any] = json.loads(os.pread(lock, 4096, 0))
        url = f", {facts['url']}" if facts.get("url") else ""
        return f"pid {facts['pid']} holds it since {facts['since']}{url}"
    return "its holder is just starting"
