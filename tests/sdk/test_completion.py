"""Reports of one attempt, against a platform that speaks the contract."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from crony_sdk import Cancelled, Completion, Conflict, Failed, Invalid, TooLarge, Unauthorized, Undelivered
from crony_sdk.outbox import Outbox
from crony_sdk.testing import Attempt, FakePlatform

from tests.helpers.wait import until, within


def completion(attempt: Attempt, **options: Any) -> Completion:
    return Completion.from_headers(attempt.headers, **options)


def verbs(crony: FakePlatform) -> list[str]:
    return [verb for _, _, verb, _ in crony.reports]


def test_a_block_is_alive_and_ends_well(crony: FakePlatform) -> None:
    attempt = crony.attempt(heartbeat=0.6)
    with completion(attempt) as done:
        until(lambda: attempt.heartbeats >= 3, what="heartbeats")
        done.progress(40, "half way")
        until(lambda: attempt.percent == 40)
        done.complete({"rows": 3})
    assert (attempt.outcome, attempt.result, attempt.message) == ("succeeded", {"rows": 3}, "half way")
    assert verbs(crony)[-1] == "complete" and verbs(crony).count("complete") == 1


def test_a_block_that_says_nothing_completes_and_one_that_raises_fails(crony: FakePlatform) -> None:
    first, second, third = crony.attempt(), crony.attempt(), crony.attempt()
    with completion(first):
        pass
    assert (first.outcome, first.result) == ("succeeded", None)
    with pytest.raises(ZeroDivisionError), completion(second):
        _ = 1 / 0
    assert (second.outcome, second.reason) == ("failed", "ZeroDivisionError: division by zero")
    with pytest.raises(Failed), completion(third):
        raise Failed("no rates", code=7, final=True)
    assert (third.reason, third.code, third.final) == ("no rates", 7, True)


def test_a_cancel_is_learned_from_a_heartbeat(crony: FakePlatform) -> None:
    attempt = crony.attempt(heartbeat=0.3)
    with pytest.raises(Conflict) as caught, completion(attempt) as done:
        assert not done.cancelled
        attempt.end("cancelled", cancel=True)
        assert done.wait_cancelled(10)
        with pytest.raises(Cancelled):
            done.check()
    assert caught.value.outcome == "cancelled"


def test_a_token_that_is_not_good_any_more_stops_the_work(crony: FakePlatform) -> None:
    attempt = crony.attempt()
    done = completion(attempt)
    attempt.headers["X-Crony-Token"] = "another"
    with pytest.raises(Unauthorized) as caught:
        done.complete()
    assert done.cancelled and done.call.token not in str(caught.value)
    other = crony.attempt()
    lost = completion(other)
    del crony.attempts[other.run, 1]
    answer = lost.heartbeat()
    assert answer is not None and answer.cancel and lost.cancelled


def test_text_arrives_in_order_and_before_the_end(crony: FakePlatform) -> None:
    attempt = crony.attempt()
    with completion(attempt, numbered=True) as done:
        for number in range(500):
            done.log(f"line {number}\n")
        done.log("half a pair: \ud800\n", "stderr")
        done.log("日" * 40_000)
        done.log("held back\n")
        done.complete()
        done.log("too late\n")
    text = attempt.output.decode()
    assert text.startswith("".join(f"line {number}\n" for number in range(500)) + "half a pair: ?\n")
    assert text.endswith("日" * 40_000 + "held back\n")
    assert verbs(crony)[-1] == "complete"
    assert verbs(crony).count("log") < 20, "lines are collected"


def test_text_of_a_block_that_goes_on_is_seen_soon(crony: FakePlatform) -> None:
    attempt = crony.attempt()
    with completion(attempt) as done:
        done.log("first\n")
        until(lambda: attempt.output == b"first\n")


def test_progress_is_cheap_and_the_last_one_wins(crony: FakePlatform) -> None:
    attempt = crony.attempt()
    with completion(attempt) as done:
        for percent in range(1001):
            done.progress(percent / 10)
        until(lambda: attempt.percent == 100)
        assert verbs(crony).count("progress") < 10
    for wrong in (-1, 101, float("nan"), "half"):
        with pytest.raises(Invalid, match="percent"):
            done.progress(wrong)  # type: ignore[arg-type]


def test_the_same_end_twice_is_one_and_another_is_refused(crony: FakePlatform) -> None:
    attempt = crony.attempt()
    done = completion(attempt)
    assert done.complete([1]) == done.complete([1])
    with pytest.raises(Conflict, match="otherwise already"):
        done.complete([2])
    with pytest.raises(Conflict):
        done.fail("no")
    again = completion(attempt)  # somebody else, or we after a restart
    assert again.complete([1]).outcome == "succeeded"
    with pytest.raises(Conflict) as caught:
        completion(attempt).fail("no")
    assert (caught.value.outcome, caught.value.attempt) == ("succeeded", 1)


def test_an_answer_that_is_lost_does_no_harm(crony: FakePlatform) -> None:
    attempt = crony.attempt()
    crony.lose_answers = 2
    assert completion(attempt).complete("x").outcome == "succeeded"
    assert verbs(crony) == ["complete"] * 3 and attempt.outcome == "succeeded"


def test_without_a_spool_an_outage_is_told(crony: FakePlatform) -> None:
    attempt = crony.attempt()
    done = completion(attempt)
    crony.down()
    assert done.heartbeat() is None
    with pytest.raises(Undelivered, match="no spool keeps it"):
        done.complete("x", patience=0.5)
    crony.up()
    assert done.fail("something else, now that nothing was said").outcome == "failed"


def test_a_platform_that_is_away_for_a_moment_is_waited_for(crony: FakePlatform) -> None:
    attempt = crony.attempt()
    crony.unavailable = True
    threading.Timer(0.7, lambda: setattr(crony, "unavailable", False)).start()
    assert completion(attempt).complete(1).outcome == "succeeded"


def test_what_cannot_be_a_result_is_refused_before_sending(crony: FakePlatform) -> None:
    done = completion(crony.attempt())
    for wrong in (object(), float("nan"), {1, 2}, b"bytes"):
        with pytest.raises(Invalid, match="result"):
            done.complete(wrong)
    with pytest.raises(TooLarge, match="262144"):
        done.complete("x" * 300_000)
    with pytest.raises(Invalid, match="code"):
        done.fail("x", code=2**31)
    with pytest.raises(Invalid, match="stream"):
        done.log("x", "stdin")
    assert crony.reports == []
    done.fail(" " * 3 + "r" * 1000)
    assert crony.reports[0][3]["reason"] == "r" * 500


def test_threads_that_end_it_at_once_make_one_end(crony: FakePlatform) -> None:
    attempt = crony.attempt()
    done = completion(attempt)
    start, ends = threading.Barrier(8), []

    def end(number: int) -> None:
        start.wait()
        try:
            done.complete(number)
            ends.append(number)
        except Conflict:
            pass

    threads = [threading.Thread(target=end, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends == [attempt.result] and verbs(crony) == ["complete"]


def test_a_forked_child_reports_for_itself(crony: FakePlatform, outbox: Outbox) -> None:
    """The child is forked while other threads of the parent hold locks and connections all the time."""
    attempts = [crony.attempt(heartbeat=0.3) for _ in range(8)]
    done = [completion(attempt, spool=outbox).start() for attempt in attempts]
    busy = threading.Event()

    def chatter() -> None:
        while not busy.is_set():
            for each in done:
                each.log("x\n")

    threads = [threading.Thread(target=chatter) for _ in range(3)]
    for thread in threads:
        thread.start()
    children = []
    for each in done:
        child = os.fork()
        if child == 0:
            try:
                each.complete(os.getpid(), patience=60)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    busy.set()
    with within(20, "the children"):
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    for thread in threads:
        thread.join()
    assert [attempt.wait().result for attempt in attempts] == children


def test_logs_hold_no_token(
    crony: FakePlatform, outbox: Outbox, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    attempt, wrong = crony.attempt(), crony.attempt()
    token = attempt.headers["X-Crony-Token"]
    done = completion(attempt, spool=outbox)
    crony.down()
    assert not done.complete("x", patience=0.1).delivered
    crony.up()
    attempt.wait()
    bad = completion(wrong)
    wrong.headers["X-Crony-Token"] = "another"
    with pytest.raises(Unauthorized):
        bad.complete()
    assert "waits in the spool" in caplog.text and "given up" not in caplog.text
    assert token not in caplog.text and bad.call.token not in caplog.text
