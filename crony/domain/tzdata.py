"""Which time zone data this process uses, and whether it changed meanwhile on the machine.

`zoneinfo` reads the system's files (`/usr/share/zoneinfo`) and, for names these lack, those of the package `tzdata`.
A version is the release of the data, such as `2026b`; `2025b+2026b` where both are in use. Files that tell no
release are named by a digest of what is in them.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import zoneinfo
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

_PROBES = ("tzdata.zi", "+VERSION", "zone.tab", "zone1970.tab", "leapseconds", "UTC", "Etc/UTC", "Europe/Berlin")
"""Files of a release: when none of them is another file than before, nothing was installed."""
_ZI = re.compile(r"# version (\S+)")
_PACKAGE = re.compile(r"""IANA_VERSION = ["']([^"']+)["']""")


@lru_cache(maxsize=1)
def version() -> str:
    """The version in use, as last looked at."""
    return look()


def look() -> str:
    """The version that lies on the machine now."""
    found = [_release(folder) for folder in _folders()]
    package = _package()
    if package is not None and (not found or _lacking(package)):
        release = _PACKAGE.search(_text(package / "__init__.py"))
        found.append(release[1] if release else _digest(package / "zoneinfo"))
    return "+".join(dict.fromkeys(found)) or "none"


def signature() -> tuple[object, ...]:
    """What changes when time zone data is installed; cheap enough to be asked every few seconds."""
    package = _package()
    files = [folder / name for folder in _folders() for name in _PROBES]
    return tuple(_stat(file) for file in [*files, *([package / "__init__.py"] if package else [])])


def _folders() -> Iterator[Path]:
    """The system's folders that hold time zone data, first come first."""
    for name in zoneinfo.TZPATH:
        folder = Path(name)
        if any((folder / probe).is_file() for probe in _PROBES):
            yield folder


def _package() -> Path | None:
    spec = find_spec("tzdata")
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _lacking(package: Path) -> bool:
    """Whether the package has a zone that the system's files lack."""
    folders = list(_folders())
    names = _text(package / "zones").split()
    return any(not any((folder / name).is_file() for folder in folders) for name in names)


def _release(folder: Path) -> str:
    with contextlib.suppress(OSError), (folder / "tzdata.zi").open(encoding="utf-8", errors="replace") as file:
        found = _ZI.match(file.readline())
        if found:
            return found[1]
    return _text(folder / "+VERSION").strip() or _digest(folder)


def _digest(folder: Path) -> str:
    """A short digest of every file of a release that does not say which one it is."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("**/*")):
        with contextlib.suppress(OSError):
            if file.is_file():
                digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return f"sha256-{digest.hexdigest()[:12]}"


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _stat(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
