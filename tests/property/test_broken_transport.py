"""Each broken build of the transport is caught by the search, and by the rule that is there for it."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.helpers.etcd import EtcdServer
from tests.property.actors import SLOW, Habits
from tests.property.judge import report, rules
from tests.property.mutants import MUTANTS, broken
from tests.property.world import world

SEEDS = 4
"""How many seeds are tried; the first finds it nearly always."""
SECONDS = 15.0


class Need(NamedTuple):
    """What a broken build needs to show: trouble and habits; and the rules of which one must speak."""

    rules: set[str]
    trouble: dict[str, int]
    habits: Habits = Habits()
    producers: int = 2
    lateness: float = 0.0


NEEDS = {
    "claim_without_compare": Need({"a holder keeps it", "deliveries are counted"}, {"break": 1}),
    "claim_without_message": Need({"a holder keeps it", "no claim without message"}, {"break": 1}),
    "settle_without_fence": Need({"only the holder ends it"}, {"long cut": 1}, SLOW, 1),
    "requeue_without_fence": Need({"a holder keeps it", "no claim without message"}, {"long cut": 1}, SLOW, 1),
    "takeover_without_session": Need({"a holder keeps it"}, {"revoke": 1}, SLOW, 1, 0.4),
    "publish_not_create_only": Need({"put once"}, {"lose answers": 1}),
    "publish_without_receipt": Need({"put once"}, {"slow answers": 1}),
    "requeue_through_the_exchange": Need({"one message, one place"}, {"break": 1}),
    "broadcasts_from_now": Need({"broadcasts come whole"}, {"break": 1}),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_build_is_caught(mutant: str, etcd: EtcdServer, tmp_path: Path) -> None:
    need = NEEDS[mutant]
    seen: list[Any] = []
    for seed in range(SEEDS):
        with (
            broken(mutant),
            world(
                etcd.endpoint,
                f"x{secrets.token_hex(4)}",
                seed,
                tmp_path,
                trouble=need.trouble,
                pause=0.2,
                habits=need.habits,
                producers=need.producers,
                lateness=need.lateness,
            ) as made,
        ):
            findings = made.run(SECONDS, until_found=True)
            seen = made.findings() or seen
            if rules(seen) & need.rules:
                print(f"seed {seed}: {report(seen, 3)}; {len(findings.changes)} changes")
                return
    raise AssertionError(f"{SEEDS} seeds did not catch it; found: {report(seen) or 'nothing'}")
