"""A short soak of real processes: a new seed every time, the same judge as in the long one (`make soak`).

`CRONY_SEED` sets the seed. A history that breaks a rule is kept: `python -m tests.soak --check FILE` judges it again.
"""

from __future__ import annotations

import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.soak.__main__ import keep
from tests.soak.judge import History, judged, report
from tests.soak.soak import SMALL, soak

SECONDS = 25.0
KEPT = Path(__file__).resolve().parents[2] / ".soak"


@pytest.mark.timeout(600)
def test_a_short_soak_breaks_no_rule(tmp_path: Path) -> None:
    seed = int(os.environ.get("CRONY_SEED") or random.SystemRandom().randrange(10**6))
    shape = replace(SMALL, restore=random.Random(f"restore {seed}").choice(["", "copy"]))
    path, made = soak(seed, SECONDS, shape, tmp_path)
    history = History.load(path)
    findings = judged(history)
    print(f"seed {seed}: {', '.join(made)}; {len(history.steps)} revisions, {len(history.marks)} marks")
    assert len(history.marks) > 20 and made, "nothing happened"
    assert not findings, f"seed {seed}, history kept in {keep(path, KEPT, seed)}\n{report(findings)}"
