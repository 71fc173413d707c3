"""An end is tried for as long as it can succeed, and not longer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from crony.errors import CronyError, Halted
from crony.etcd.errors import BadRequest, EtcdUnavailable
from crony.workers import ending
from crony.workers.attempt import Held
from crony.workers.ending import persist
from tests.helpers.wait import within


def failing(*errors: CronyError) -> Callable[[], str]:
    left = list(errors)

    def act() -> str:
        if left:
            raise left.pop(0)
        return "written"

    return act


def test_an_outage_is_waited_out() -> None:
    assert persist(failing(EtcdUnavailable("away"), EtcdUnavailable("away")), "the end") == "written"


@pytest.mark.parametrize("error", [BadRequest("too large"), Halted("etcd's data went back in time")], ids=str)
def test_what_can_never_be_is_given_up(error: CronyError) -> None:
    with within(2, "giving up"):
        assert persist(failing(*[error] * 10_000), "the end") is None


def test_what_this_process_ended_is_known_once_by_delivery_whatever_its_fence() -> None:
    ends = ending.Ends()
    facts = {"queue": "run.a", "place": "p", "fence": 7, "incarnation": "i1", "count": 1}
    held = Held.read(facts)
    assert held is not None and not ends.asked(facts)
    ends.add(replace(held, fence=9))  # a permit changed it
    assert not ends.asked({**facts, "count": 2}), "another delivery of the same message"
    assert ends.asked(facts) and not ends.asked(facts)
    for number in range(ending.Ends.MOST + 10):
        ends.add(replace(held, place=str(number)))
    assert not ends.asked({**facts, "place": "0"}) and ends.asked({**facts, "place": "10"})
    assert not ends.asked({"odd": 1})
