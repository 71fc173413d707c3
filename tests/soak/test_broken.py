"""Each deliberately broken build of real processes is caught by the judge; the sound one is not, in the same scenes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.soak import closing
from tests.soak.judge import Finding, History, judged, report
from tests.soak.mutants import MUTANTS
from tests.soak.scenes import (
    Stage,
    asked_while_watches_are_away,
    dispatch_arrives_late,
    paused_next_to_a_fire,
    revoked,
    saved_slowly,
    zombies,
)
from tests.soak.world import World, world

LEADERS: dict[str, tuple[Callable[[Stage], str], set[str]]] = {
    "no_job_compare": (paused_next_to_a_fire, {"the document that stands"}),
    "no_done_compare": (dispatch_arrives_late, {"one run, one place", "no fire twice"}),
    "watch_from_now": (asked_while_watches_are_away, {"no request is overlooked"}),
}
"""Broken leader -> the scene that shows it, and the rules of which one must speak."""
ENDS = {"an attempt ends once", "ended is ended", "no end rests on an absence"}


@pytest.mark.timeout(600)
def test_each_broken_build_is_caught(tmp_path: Path) -> None:
    with world(0, tmp_path, node_ttl=2.0, grace=0.5, tuned={"CRONY_TEST_KEEP": "1"}) as made:
        stage = _begin(made)
        for scene, _ in LEADERS.values():
            scene(stage)
        saved_slowly(stage)
        assert not (found := _findings(made)), f"the sound build:\n{report(found)}"

        seen: dict[str, tuple[str, set[str]]] = {}
        seen.update(_broken_nodes(stage))
        for name, (scene, rules) in LEADERS.items():
            made.variables[name] = {"CRONY_TEST_BROKEN": name}
            made.centre(name)
            stage.lead(name)
            seen[name] = scene(stage), rules
        made.kill("web")
        made.variables["web"] = {"CRONY_TEST_BROKEN": "publish_without_revision"}
        made.web()
        seen["publish_without_revision"] = saved_slowly(stage), {"revisions only rise"}
        found = _findings(made)

    assert seen.keys() == MUTANTS.keys()
    for name, (about, rules) in seen.items():
        caught = [each for each in found if each.rule in rules and about in each.what]
        assert caught, f"{name} was not caught; about {about}:\n{report(each for each in found if about in each.what)}"


def _begin(made: World) -> Stage:
    made.web()
    made.centre("c1")
    made.node("n1")
    for name, mutant in (("holder", "end_by_holder"), ("first", "outcome_create_only"), ("acks", "ack_deletes")):
        made.variables[name] = {"CRONY_TEST_BROKEN": mutant}
        made.node(name, pool="prefork" if name == "acks" else "threads", concurrency=1)
    made.crony.await_nodes("n1", "holder", "first", "acks")
    return Stage(made)


def _broken_nodes(stage: Stage) -> dict[str, tuple[str, set[str]]]:
    ended = revoked(stage, "acks")
    held, first = zombies(stage, ["holder", "first"])
    return {
        "ack_deletes": (ended, {"no run vanishes"}),
        "end_by_holder": (held, ENDS),
        "outcome_create_only": (first, ENDS),
    }


def _findings(made: World) -> list[Finding]:
    """What the judge says of everything until now."""
    closing.cut_short(made)
    return judged(History.load(made.journal.path))
