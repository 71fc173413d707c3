"""Time zone data of a test's own, in front of the machine's: installed, changed and taken away like a package."""

from __future__ import annotations

import os
import shutil
import zoneinfo
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from crony.domain import zones

TOWN = "Crony/Town"
"""A zone that only these data have."""


class ZoneFiles:
    """A folder of zones, each with the rules of another one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, release: str, **rules: str) -> None:
        """Replace what is there by a release that has these zones: `Town="Asia/Tokyo"` makes `Crony/Town`."""
        shutil.rmtree(self.folder / "Crony", ignore_errors=True)
        for name, like in rules.items():
            self.write(f"Crony/{name}", resources.files("tzdata").joinpath(f"zoneinfo/{like}").read_bytes())
        self.write("tzdata.zi", f"# version {release}\n".encode())

    def write(self, name: str, data: bytes) -> None:
        """A file, put in place at once, as packages do."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f".{file.name}")
        fresh.write_bytes(data)
        os.replace(fresh, file)


@contextmanager
def zone_files(folder: Path) -> Iterator[ZoneFiles]:
    """Data in `folder`, first come first; nothing is installed yet."""
    folder.mkdir(parents=True, exist_ok=True)
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(to=[str(folder), *before])
    try:
        yield ZoneFiles(folder)
    finally:
        zoneinfo.reset_tzpath(to=before)
        zones.refresh()
