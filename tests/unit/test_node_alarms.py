"""Alarms: called in time, in order, not after they were cancelled."""

from __future__ import annotations

import time

from crony.workers.alarms import Alarms
from tests.helpers.wait import until


def test_called_in_order_of_time() -> None:
    alarms, rung = Alarms(), []
    with alarms._changed:  # nothing is called before all are known
        for name, after in (("c", 0.1), ("a", 0.0), ("b", 0.05), ("z", 60.0)):
            alarms.after(after, lambda name=name: rung.append(name))  # type: ignore[misc]
    until(lambda: len(rung) == 3, 5)
    assert rung == ["a", "b", "c"]


def test_an_earlier_one_wakes_the_thread() -> None:
    alarms, rung = Alarms(), []
    alarms.after(30, lambda: None)
    until(lambda: alarms._looks_at > time.monotonic() + 20, what="the thread waits for long")
    alarms.after(0.01, lambda: rung.append(1))
    until(lambda: rung, 2, "the earlier one is called")


def test_cancelled_ones_are_not_called_and_failures_do_not_stop_the_rest() -> None:
    alarms, rung = Alarms(), []
    alarms.after(0.02, lambda: rung.append("wrong")).cancel()
    alarms.after(0.03, lambda: 1 // 0)
    alarms.after(0.05, lambda: rung.append("right"))
    until(lambda: rung, 5)
    assert rung == ["right"]
