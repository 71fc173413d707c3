"""The soak: `python -m tests.soak --seconds 1200`. Round after round, each with a new seed, in a world of its own.

Everything is broken at random, everything that happens is written down, and judged offline. The first round that
breaks a rule ends it; its history is kept. `--check FILE` judges a kept history again; `--seed N` begins with one.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from tests.helpers import folders
from tests.soak.faults import FAULTS
from tests.soak.judge import History, judged, report
from tests.soak.soak import SMALL, Shape, soak


def main() -> int:
    """0: nothing found; 1: something, and where its history is."""
    asked = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.splitlines()[0])
    asked.add_argument("--seconds", type=float, default=120, help="how long to go on (default 120)")
    asked.add_argument("--round", type=float, default=120, help="seconds of work in each round (default 120)")
    asked.add_argument("--seed", type=int, help="the seed of the first round (default: drawn)")
    asked.add_argument("--only", action="append", choices=list(FAULTS), help="draw from these faults only")
    asked.add_argument("--small", action="store_true", help="the small world that `make test` runs")
    asked.add_argument("--restore", choices=["copy", "wipe"], help="every round ends with a restored etcd, recovered")
    asked.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()), help="where a history is kept")
    asked.add_argument("--check", type=Path, metavar="FILE", help="judge a kept history again, run nothing")
    told = asked.parse_args()
    if told.check:
        findings = judged(History.load(told.check))
        print(report(findings, 1000) or "nothing found")
        return bool(findings)
    seed = told.seed if told.seed is not None else random.randrange(10**6)
    made: Counter[str] = Counter()
    deadline, rounds = time.monotonic() + told.seconds, 0
    while time.monotonic() < deadline:
        rounds += 1
        shape = SMALL if told.small else Shape.of(seed)
        shape = replace(shape, restore=told.restore, members=1) if told.restore else shape
        seconds = min(told.round, max(20.0, deadline - time.monotonic()))
        with tempfile.TemporaryDirectory(dir=folders.quick()) as folder:
            print(f"round {rounds}, seed {seed}: {shape}", flush=True)
            path, faults = soak(seed, seconds, shape, Path(folder), only=told.only)
            history = History.load(path)
            findings = judged(history)
            made.update(faults)
            print(f"  {len(history.steps)} revisions, {len(history.ops)} calls, {len(history.marks)} marks; "
                  f"{', '.join(f'{count} {name}' for name, count in sorted(Counter(faults).items()))}; "
                  f"{len(findings)} findings", flush=True)  # fmt: skip
            if findings:
                kept = keep(path, told.keep, seed)
                print(f"{report(findings)}\nhistory: {kept}\njudge it again: python -m tests.soak --check {kept}")
                return 1
        seed += 1
    print(f"{rounds} rounds, nothing found:", ", ".join(f"{count} {name}" for name, count in sorted(made.items())))
    return 0


def keep(path: Path, folder: Path, seed: int) -> Path:
    """Keep a history, with the logs beside it."""
    kept = folder / f"crony-soak-{seed}"
    kept.mkdir(parents=True, exist_ok=True)
    for each in [path, *path.parent.glob("*.log"), *path.parent.glob("marks")]:
        shutil.copy(each, kept)
    return kept / path.name


if __name__ == "__main__":
    sys.exit(main())
