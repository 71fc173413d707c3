"""Other people's tests, from their source archives: fetched once by pip, checked at every use, unpacked unmodified."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("CRONY_TEST_CACHE") or Path(__file__).parents[2] / ".cache") / "outsider"
"""Where archives stay between runs; not in git."""

SHA256 = {"kombu-5.7.0.tar.gz": "31e62fdfd2381caa3422f8e02b84a491d9a2180ddda74507b57f4cb1e1c2c2c9"}
"""What the archives have to be, as PyPI says in its JSON. For a release that is not here, pip's own check against the
index has to do."""

FETCH_WITHIN = 300.0


def unpacked_tests(package: str, into: Path) -> Path:
    """Unpacks the folder `t` of the installed release's source archive; the folder that contains it.

    Only `t`: the tests shall import the installed package, not the archive's. Fails the test when there is no archive.
    """
    name = f"{package}-{version(package)}"
    with tarfile.open(_archive(package, f"{name}.tar.gz")) as archive:
        members = [member for member in archive.getmembers() if member.name.startswith(f"{name}/t/")]
        archive.extractall(into, members, filter="data")
    return into / name


def _archive(package: str, name: str) -> Path:
    kept = CACHE / name
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".lock").open("w") as lock:  # several test processes may want it at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            _fetch(package, kept)
    found = hashlib.sha256(kept.read_bytes()).hexdigest()
    if found != SHA256.get(name, found):
        pytest.fail(f"{kept} is not the archive it should be (sha256 {found}): remove it and run again", pytrace=False)
    return kept


def _fetch(package: str, kept: Path) -> None:
    """By pip, so that whatever index, proxy or certificate this machine is configured for is used."""
    fetched = CACHE / "fetching"
    wanted = f"{package}=={version(package)}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", package]
    try:
        done = subprocess.run(
            [*command, "--dest", str(fetched), wanted], capture_output=True, text=True, timeout=FETCH_WITHIN
        )
        said = done.stderr[-2000:]
    except subprocess.TimeoutExpired:
        said = f"not within {FETCH_WITHIN:g} s"
    if not (fetched / kept.name).exists():
        pytest.fail(
            f"The source archive of {wanted}, whose tests judge the transport, could not be fetched.\n"
            f"pip said: {said}\n"
            "Configure pip's index (PIP_INDEX_URL, pip.conf), or put the archive there by hand: on a machine with an "
            f"index, `pip download --no-deps --no-binary {package} {wanted}`, then copy {kept.name} into {CACHE}/",
            pytrace=False,
        )
    (fetched / kept.name).replace(kept)
