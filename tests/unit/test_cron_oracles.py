"""Firing times next to odd clock changes, of all zones that have any, against two independent oracles.

Brute force looks at each minute around a change and applies the documented rule; cronsim computes by itself. A case is
one random text with one rule next to one change: 10,000 of them in a run (see `random_cron` for the seed).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from zoneinfo import ZoneInfo, _zoneinfo, available_timezones

import pytest
from cronsim import CronSim

from crony.domain.fires import count_between, fires_between, last_fire, next_fire
from crony.domain.schedule import Schedule, parse_schedule
from crony.domain.zones import Zone, zone
from crony.errors import Invalid
from tests.helpers.odd_days import DAY, HOUR, NAMED, Change, between, brute, draw, minutes
from tests.helpers.random_cron import DIALECTS, SEED, TIMES, Case, random_case

CHANGES, TEXTS, RULES = 160 * TIMES, 15, ("once", "elapsed", "both")
"""7,200 cases by brute force, all three rules of each text; and 2,800 by cronsim."""
SIMULATED, FAR = {"cron": 140 * TIMES, "cron6": 60 * TIMES}, 14


def schedule_of(case: Case, name: str, rule: str = "") -> Schedule | None:
    """What Crony makes of it; None when it says that there is no such day."""
    more = {"dst": rule} if rule else {}
    try:
        return parse_schedule({"cron": case.text, "dialect": case.dialect, "timezone": name, **more})
    except Invalid as error:
        assert "never fires" in error.problem, (SEED, case.dialect, case.text, str(error))
        return None


def near(change: Change) -> datetime:
    """Local time just before a change, for texts that matter then."""
    return datetime.fromtimestamp(change.instant - 1, ZoneInfo(change.zone)).replace(tzinfo=None)


def test_every_rule_agrees_with_brute_force() -> None:
    print(f"seed {SEED}")
    rng, checked, cases = random.Random(f"{SEED}brute"), 0, 0
    for change in draw(rng, CHANGES):
        table, local = minutes(change), near(change)
        start, end = table.instants[0], table.instants[-1] + 59
        for _ in range(TEXTS):
            case = random_case(rng, rng.choice(DIALECTS), near=local)
            matching = case.minutes_in(min(table.labels), max(table.labels))
            for rule in RULES:
                cases += 1
                schedule = schedule_of(case, change.zone, rule)
                where = (SEED, case.dialect, case.text, rule, change)
                expected = brute(table, matching, case.seconds, rule)
                if schedule is None:
                    assert not expected, where
                    continue
                assert count_between([schedule], start - 1, end) == len(expected), where
                after = rng.randint(start, change.instant)
                until = rng.randint(change.instant, end)
                some = between(expected, after, until)
                assert fires_between([schedule], after, until, 15) == some[:15], where
                assert count_between([schedule], after, until) == len(some), (*where, after, until)
                assert last_fire([schedule], after, until) == (some[-1] if some else None), (*where, after, until)
                probe = change.instant + rng.randint(-3 * HOUR, HOUR)
                later = between(expected, probe, end)
                found = next_fire([schedule], probe)
                assert found == later[0] if later else found is None or found > end, (*where, probe)
                checked += len(expected)
    assert cases == 7200 * TIMES and checked > 100_000 * TIMES


def simulated(case: Case, name: str, after: int) -> Iterator[int]:
    """What cronsim says; it reports one fire for each label of a gap, all at the same instant, and where it begins."""
    last = after
    for fire in CronSim(case.text, datetime.fromtimestamp(after, ZoneInfo(name))):
        instant = int(fire.timestamp())
        if instant > last:
            yield instant
            last = instant


@pytest.mark.parametrize("dialect", ["cron", "cron6"])
def test_default_rules_agree_with_cronsim(dialect: str) -> None:
    """Its five fields follow our defaults, its six follow elapsed time; L, LW, 5L and 5#2 mean the same."""
    print(f"seed {SEED}")
    rng, checked, cases = random.Random(f"{SEED}{dialect}"), 0, 0
    for change in draw(rng, SIMULATED[dialect]):
        local = near(change)
        for n in range(FAR):
            cases += 1
            case = random_case(rng, dialect, sim=True, near=local if n % 2 else None)
            schedule = schedule_of(case, change.zone, "elapsed" if dialect == "cron6" else "")
            if schedule is None or not comparable(case, change, schedule.dst):
                continue
            after = change.instant - rng.randint(1, 5 * HOUR)
            where = (SEED, case.text, change, after)
            found, expected = after, simulated(case, change.zone, after)
            for _ in range(6 if n % 2 else 2):
                wanted = next(expected, None)
                later = schedule.next(found)
                if wanted is None:
                    assert later is None or later > after + 50 * 365 * 86400, where
                    break
                if schedule.dst == "elapsed" and max(wanted, later or 0) > change.instant + 20 * DAY:
                    break  # there may be another change on the way, which is not comparable
                assert later == wanted, where
                found, checked = wanted, checked + 1
    assert cases == (1960 if dialect == "cron" else 840) * TIMES and checked > cases


def comparable(case: Case, change: Change, rule: str) -> bool:
    """Whether cronsim means the same. It sees a star only where a field begins; by elapsed time it steps over changes
    by whole hours, and takes a midnight that does not exist for the end of the gap, which `elapsed` leaves out."""
    stars = all(part.startswith("*") for part in case.text.split() if "*" in part)
    low, high = change.instant + change.before, change.instant + change.after
    whole, midnight = low % HOUR == high % HOUR == 0, -(-low // DAY) * DAY < high
    return stars and (rule != "elapsed" or (whole and not midnight))


def test_pieces_of_every_zone_are_those_of_the_database() -> None:
    """One probe a day must not miss a change: compare with the change list that zoneinfo reads from the file."""
    low, high = 1_000_000_000, 2_100_000_000
    changes = 0
    # All 597 zones from 1970 on were compared once and agreed; a part of them keeps watch.
    for name in sorted(available_timezones() - {"localtime", "Factory"})[::24] + [name for name, _ in NAMED[:-2]]:
        info = _zoneinfo.ZoneInfo(name)
        instants = [instant for instant in info._trans_utc if low < instant < high]
        where = ZoneInfo(name)
        for instant in instants:
            old = datetime.fromtimestamp(instant - 1, where).utcoffset()
            new = datetime.fromtimestamp(instant, where).utcoffset()
            if old == new:
                continue
            piece = zone_of(name).piece(instant)
            assert piece.start == instant, (name, instant, piece)
            assert old is not None and new is not None
            assert (piece.before, piece.offset) == (old.total_seconds(), new.total_seconds()), (name, instant)
            changes += 1
    assert changes > 1_000


@cache
def zone_of(name: str) -> Zone:
    return Zone(name, ZoneInfo(name))


def test_a_zone_is_shared() -> None:
    assert zone("Asia/Shanghai") is zone("Asia/Shanghai")
