"""A long search for broken promises of the transport: `python -m tests.property --seconds 600`.

Round after round with a new seed each, on a real etcd of its own. The first broken rule ends it; the history is kept.
`--check FILE` judges a kept history again; `--seed N` runs one seed.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.helpers.etcd import EtcdServer
from tests.property.history import History
from tests.property.judge import judged, report
from tests.property.world import world


def main() -> int:
    """0: nothing found; 1: something, and where its history is."""
    asked = argparse.ArgumentParser(prog="python -m tests.property", description=__doc__.splitlines()[0])
    asked.add_argument("--seconds", type=float, default=60, help="how long to search (default 60)")
    asked.add_argument("--round", type=float, default=12, help="seconds of work in each round (default 12)")
    asked.add_argument("--seed", type=int, help="the seed of the first round (default: drawn)")
    asked.add_argument("--check", type=Path, metavar="FILE", help="judge a kept history again, run nothing")
    told = asked.parse_args()
    logging.disable(logging.ERROR)
    if told.check:
        findings = judged(History.load(told.check))
        print(report(findings, 1000) or "nothing found")
        return bool(findings)
    seed = told.seed if told.seed is not None else random.randrange(10**6)
    total: Counter[str] = Counter()
    deadline, rounds = time.monotonic() + told.seconds, 0
    with EtcdServer() as server, tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < deadline:
            rounds += 1
            place = Path(folder, str(rounds))
            place.mkdir()
            with world(server.endpoint, f"soak{rounds}", seed, place, children=2, consumers=4) as made:
                history = made.run(told.round)
            total.update(op["op"] for op in history.ops)
            findings = judged(history)
            print(f"round {rounds}, seed {seed}: {len(history.changes)} changes, {len(findings)} findings", flush=True)
            if findings:
                kept = history.save(Path(tempfile.gettempdir()) / f"crony-history-{seed}.json")
                print(f"{report(findings)}\nhistory: {kept}")
                return 1
            seed += 1
    print(f"{rounds} rounds, nothing found:", ", ".join(f"{count} {op}" for op, count in sorted(total.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
