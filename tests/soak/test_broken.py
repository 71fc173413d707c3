"""Each deliberately broken build of real processes is caught by the judge; the sound one is not, in the same scenes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.helpers.etcd import free_ports
from tests.helpers.wait import until
from tests.soak import closing
from tests.soak.judge import History, judged, report
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
    """Leaders take turns; broken nodes and a broken web work beside them, on jobs of their own."""
    seen: dict[str, tuple[str, set[str]]] = {}
    with world(0, tmp_path, node_ttl=2.0, grace=0.5, tuned={"CRONY_TEST_KEEP": "1"}) as made:
        stage = _begin(made)
        with ThreadPoolExecutor(3) as beside:
            nodes = beside.submit(_broken_nodes, stage)
            webs = [beside.submit(saved_slowly, stage), beside.submit(saved_slowly, stage, "web2", stage.port2)]
            sound = [scene(stage) for scene, _ in LEADERS.values()]
            seen.update(nodes.result())
            sound.append(webs[0].result())
            seen["publish_without_revision"] = webs[1].result(), {"revisions only rise"}
        following = [*LEADERS][1:]
        for name, (scene, rules) in LEADERS.items():
            stage.lead(name)
            if following:
                _wait_to_lead(made, following.pop(0))
            seen[name] = scene(stage), rules
        closing.cut_short(made)
        found = judged(History.load(made.journal.path))

    assert seen.keys() == MUTANTS.keys()
    for name, (about, rules) in seen.items():
        caught = [each for each in found if each.rule in rules and about in each.what]
        assert caught, f"{name} was not caught; about {about}:\n{report(each for each in found if about in each.what)}"
    broken = {about.split(".")[0] for about, _ in seen.values()}
    others = [each for each in found if not any(job in each.what for job in broken)]
    assert not others and len(sound) == len(LEADERS) + 1, f"the sound build:\n{report(others)}"


def _begin(made: World) -> Stage:
    made.web()
    made.centre("c1")
    stage = Stage(made)
    until(lambda: made.leader() is not None, 30, "the sound one to lead")
    _wait_to_lead(made, next(iter(LEADERS)))
    made.node("n1")
    for name, mutant in (("holder", "end_by_holder"), ("first", "outcome_create_only"), ("acks", "ack_deletes")):
        made.variables[name] = {"CRONY_TEST_BROKEN": mutant}
        made.node(name, pool="prefork" if name == "acks" else "threads", concurrency=1)
    made.variables["web2"] = {"CRONY_TEST_BROKEN": "publish_without_revision"}
    stage.port2 = made.web("web2", port=free_ports(1)[0])
    made.crony.await_nodes("n1", "holder", "first", "acks")
    return stage


def _wait_to_lead(made: World, name: str) -> None:
    """Start a broken centre: the only one that waits, so it is the next to lead."""
    made.variables[name] = {"CRONY_TEST_BROKEN": name}
    made.centre(name)


def _broken_nodes(stage: Stage) -> dict[str, tuple[str, set[str]]]:
    ended = revoked(stage, "acks")
    held, first = zombies(stage, ["holder", "first"])
    return {
        "ack_deletes": (ended, {"no run vanishes"}),
        "end_by_holder": (held, ENDS),
        "outcome_create_only": (first, ENDS),
    }
