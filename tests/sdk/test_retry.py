"""Trying again inside the service: as often as is worth it, never past the time that is left."""

from __future__ import annotations

import pytest
from crony_sdk import Cancelled, Failed, GaveUp, Invalid, Retry


class Work:
    """Fails with these, then works; the pauses are noted and not slept."""

    def __init__(self, *errors: Exception, left: float | None = None) -> None:
        self.errors, self.tries, self.pauses, self.left = list(errors), 0, [], left

    def __call__(self) -> str:
        self.tries += 1
        if self.errors:
            raise self.errors.pop(0)
        return "ok"

    def run(self, policy: Retry, times: int = 5) -> str:
        def wait(seconds: float) -> None:
            self.pauses.append(seconds)
            if self.left is not None:
                self.left -= seconds

        return policy.run(self, times=times, left=lambda: self.left, wait=wait)


def test_pauses_grow_to_their_limit() -> None:
    work = Work(*[OSError("no")] * 5)
    assert work.run(Retry(delay=1, max_delay=5, jitter=False)) == "ok"
    assert work.pauses == [1, 2, 4, 5, 5]
    work = Work(*[OSError("no")] * 5)
    work.run(Retry(delay=8, factor=1))
    assert all(4 <= pause <= 8 for pause in work.pauses) and len(set(work.pauses)) > 1
    assert Retry(delay=1).pause(10_000) <= 60


def test_it_gives_up_when_the_tries_are_used_up_and_says_the_last_reason() -> None:
    work = Work(OSError("first"), Failed("second", code=3), OSError("third"))
    with pytest.raises(GaveUp, match=r"second \(after 2 tries\)") as caught:
        work.run(Retry(delay=0), times=1)
    assert caught.value.final and caught.value.code == 3 and isinstance(caught.value.__cause__, Failed)
    with pytest.raises(GaveUp, match=r"OSError: no \(after 1 try\)"):
        Work(OSError("no")).run(Retry(times=0))


def test_it_gives_up_rather_than_work_past_the_time() -> None:
    work = Work(*[OSError("no")] * 9, left=10)
    with pytest.raises(GaveUp, match="the time is used up"):
        work.run(Retry(times=100, delay=4, factor=1, jitter=False))
    assert work.pauses == [4, 4]


def test_what_is_not_worth_another_try() -> None:
    for error in (Failed("no", final=True), Cancelled("stop"), ValueError("not among them")):
        work = Work(error)
        with pytest.raises(type(error)):
            work.run(Retry(on=(OSError, Failed), delay=0))
        assert work.tries == 1


def test_a_cancel_ends_the_pause() -> None:
    def check() -> None:
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        Retry(delay=0).run(Work(OSError("no")), times=3, check=check)


@pytest.mark.parametrize("wrong", [{"times": -1}, {"delay": -1}, {"factor": 0.5}, {"max_delay": -1}])
def test_senseless_policies_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(Invalid):
        Retry(**wrong)  # type: ignore[arg-type]
