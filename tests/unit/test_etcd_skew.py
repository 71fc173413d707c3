"""etcd's clock as we know it: it does not follow our own wall clock when that steps."""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate

import pytest

from crony.clock import SYSTEM, SystemClock
from crony.etcd.skew import ServerClock


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves our wall clock away from the true time."""
    real = SystemClock.wall

    def steps(seconds: float) -> None:
        monkeypatch.setattr(SystemClock, "wall", lambda self: real(self) + seconds)

    return steps


def answered(clock: ServerClock, server: float, *, after: float = 0.0) -> None:
    """A member whose clock says `server` answers `after` seconds from now, at once."""
    at = SYSTEM.monotonic() + after
    clock.note(formatdate(server, usegmt=True), at, at)


def test_bounds_close_in() -> None:
    clock, true = ServerClock(), float(int(SYSTEM.wall()))
    assert clock.offset is None
    answered(clock, true + 10)
    assert clock.offset == pytest.approx(10.5 + true - SYSTEM.wall(), abs=0.05)
    answered(clock, true + 10, after=0.9)  # the same second, so it began no later than now
    answered(clock, true + 11, after=0.95)
    assert clock.offset == pytest.approx(10.07 + true - SYSTEM.wall(), abs=0.05)


@pytest.mark.parametrize("seconds", [3600.0, -3600.0, 0.7])
def test_a_step_of_our_clock_is_seen_at_once(step: Callable[[float], None], seconds: float) -> None:
    clock, true = ServerClock(), SYSTEM.wall()
    answered(clock, true)
    before = clock.offset
    assert before is not None
    step(seconds)
    assert clock.offset == pytest.approx(before - seconds, abs=0.05), "so that our clock and it still give true time"


def test_a_step_of_the_members_clock_is_followed() -> None:
    clock, true = ServerClock(), SYSTEM.wall()
    answered(clock, true)
    answered(clock, true + 600)
    assert clock.offset == pytest.approx(600, abs=1.1)
