"""The transport against a plain model of queues, with everything going wrong that may: a new seed every time.

`CRONY_SEED` sets the seed. A history that breaks a rule is kept; `python -m tests.property --check FILE` judges it
again, `--seconds 600` searches for longer.
"""

from __future__ import annotations

import os
import random
import secrets
import tempfile
from pathlib import Path
from typing import Any

from tests.helpers.etcd import EtcdServer
from tests.property.history import History
from tests.property.judge import judged, report
from tests.property.world import world

SECONDS = 7.0


def search(etcd: EtcdServer, folder: Path, seconds: float, **options: Any) -> History:
    """One run with a new seed; AssertionError when it breaks a rule."""
    seed = int(os.environ.get("CRONY_SEED") or random.randrange(10**6))
    print(f"CRONY_SEED={seed}")
    with world(etcd.endpoint, f"p{secrets.token_hex(4)}", seed, folder, **options) as made:
        history = made.run(seconds)
    findings = judged(history)
    if findings:
        kept = history.save(Path(tempfile.gettempdir(), f"crony-history-{seed}.json"))
        raise AssertionError(f"CRONY_SEED={seed}, history in {kept}:\n{report(findings)}")
    dealt = sum(op["op"] == "told" for op in history.ops)
    assert dealt > 50, f"only {dealt} messages were dealt with: the search searched nothing"
    return history


def test_no_promise_is_broken(etcd: EtcdServer, tmp_path: Path) -> None:
    search(etcd, tmp_path, SECONDS, consumers=3, children=2)


def test_alone_and_undisturbed_a_consumer_gets_everything_in_order(etcd: EtcdServer, tmp_path: Path) -> None:
    """With others after the same messages consumers spread, and only the priority is kept."""
    history = search(etcd, tmp_path, 2.5, consumers=1, subscribers=0, trouble={"latency": 1}, lateness=0.0)
    assert history.plan["alone"]
