"""The few tests that failed in a whole run, once more and alone: `python -m tests.second_chance`.

Hundreds of real processes on a few busy cores fail now and then for reasons of the machine. A bug fails again when
nothing else runs. Each failed test must pass twice in a row, and is named as unsteady in the last lines, so that
somebody looks at it. More than a handful of failures, or an error outside of tests, gets no second chance.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

MOST = 5
TIMES = 2
_FAILED = Path(".pytest_cache/v/cache/lastfailed")


def main() -> int:
    """0: all of them passed each time."""
    failed = sorted(json.loads(_FAILED.read_text())) if _FAILED.exists() else []
    if not 0 < len(failed) <= MOST or not all("::" in test for test in failed):
        print(f"no second chance: {len(failed)} failures")
        return 1
    for _ in range(TIMES):
        if subprocess.call([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *failed]) != 0:
            return 1
    print(f"UNSTEADY, failed among the others and passed {TIMES} times alone:", *failed, sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
