"""Random texts of all dialects against the calendar: which labels match, whatever the zone.

What clock changes do to them is in `test_cron_oracles`; `random_cron` says how a run is repeated.
"""

from __future__ import annotations

import random

from crony.domain.cron import Cron
from crony.domain.schedule import parse_schedule
from crony.errors import Invalid
from tests.helpers.random_cron import DAY, EPOCH, SEED, TIMES, Case, random_case


def read(case: Case, **more: str) -> Cron | None:
    """What Crony makes of it; None when it says that there is no such day."""
    try:
        cron = parse_schedule({"cron": case.text, "dialect": case.dialect, **more}).cron
    except Invalid as error:
        assert "never fires" in error.problem, (SEED, case.dialect, case.text, str(error))
        return None
    assert cron is not None
    return cron


def test_labels_agree_with_the_calendar() -> None:
    """First label and count in a window of two months, of texts that matter by day, month and year."""
    print(f"seed {SEED}")
    rng, checked = random.Random(f"{SEED}labels"), 0
    for _ in range(1500 * TIMES):
        case = random_case(rng, rng.choice(("cron", "cron6", "quartz", "quartz")))
        cron = read(case)
        start = EPOCH + rng.randint(18262, 27000) * DAY
        span = [start + n * DAY for n in range(62)]
        matching = [day for day in span if case.day(day)]
        where = (SEED, case.dialect, case.text, start)
        if cron is None:
            assert not matching, where
            continue
        low = (start - EPOCH).days * 86400
        per_day = len(case.hours) * len(case.minutes) * len(case.seconds)
        assert cron.count(low, low + 62 * 86400) == len(matching) * per_day, where
        found = cron.at_or_after(low)
        if matching:
            midnight = (matching[0] - EPOCH).days * 86400
            first = midnight + min(case.hours) * 3600 + min(case.minutes) * 60 + min(case.seconds)
            assert found == first, where
            # From anywhere inside a matching day: the next second that matches, and the count up to there.
            label = midnight + rng.randint(0, 86399)
            later = cron.at_or_after(label)
            end = midnight + 86400
            later_minutes = sorted(case.minutes_in(label - label % 60, end - 60))[:2]
            labels = (minute + second for minute in later_minutes for second in sorted(case.seconds))
            expected = next((each for each in labels if each >= label), None)
            if expected is None:
                assert later is None or later >= end, where
                assert cron.count(label, end) == 0, where
            else:
                assert later == expected, where
                assert cron.count(label, expected + 1) == 1, where
            checked += 1
        else:
            assert found is None or found >= low + 62 * 86400, where
    assert checked > 700 * TIMES
