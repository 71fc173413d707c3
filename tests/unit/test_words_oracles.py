"""A schedule in words: its sentence means what fires, another implementation says the same, the Chinese one is whole.

`spoken` reads both kinds of sentences back into sets. Known differences to cron-descriptor, which are left out here:

- Of two day fields it says "or" whenever both are set; with a `*` in one (`*/15 * 1`) a day must match both, as cron(8)
  has it. Before a range of weekdays it says neither "and" nor "or" (`0 0 13 * 1-5`).
- It calls `*/7` "every 7 minutes", though the last interval is shorter; Crony keeps cron's spelling and warns. The
  sets are the same.
- It says a value as often as it is written (`6,6`).
"""

from __future__ import annotations

import random
import re

import pytest
from cron_descriptor import ExpressionDescriptor, Options

from crony.domain.explain import marks
from crony.domain.fires import fires_between
from crony.domain.schedule import Schedule, parse_schedule
from crony.errors import Invalid
from crony.web import reasons, words
from crony.web.i18n import translator
from tests.helpers import spoken
from tests.helpers.odd_days import draw
from tests.helpers.random_cron import DIALECTS, SEED, TIMES, Case, random_case

OF_DAY = {"L": "last {0}", "LW": "workday", "W": "nearest {0}", "L-W": "nearest-last {0}"}


def schedule_of(text: str, dialect: str, **more: str) -> Schedule | None:
    """What Crony makes of it; None when there is no such day."""
    try:
        return parse_schedule({"cron": text, "dialect": dialect, **more})
    except Invalid as error:
        assert "never fires" in error.problem, (SEED, text, str(error))
        return None


def meant(case: Case) -> spoken.Facts:
    """What a random text means. A day field that takes every day makes the rules in it void."""
    rules = set()
    for kind, number, nth in case.rules:
        if kind in OF_DAY and len(case.days) < 31:
            rules.add(OF_DAY[kind].format(number))
        elif kind not in OF_DAY and len(case.weekdays) < 7:
            day = spoken.DAYS[number]
            rules.add(f"final {day}" if kind == "last" else f"nth {spoken.NTH[nth]} {day}")
    either = case.either and len(case.days) < 31 and len(case.weekdays) < 7
    return spoken.Facts(
        case.seconds,
        case.minutes,
        case.hours,
        case.days,
        case.weekdays,
        case.months,
        case.years or set(),
        rules,
        either,
    )


def test_the_sentence_means_what_fires() -> None:
    print(f"seed {SEED}")
    rng, read = random.Random(f"{SEED}words"), 0
    for _ in range(1000 * TIMES):
        case = random_case(rng, rng.choice(DIALECTS))
        schedule = schedule_of(case.text, case.dialect)
        if schedule is None:
            continue
        sentence, wanted = schedule.describe().removesuffix(" (UTC)"), meant(case)
        if case.either and not wanted.either:  # one of the two takes every day: the sentence names neither
            wanted.days, wanted.weekdays, wanted.rules = set(range(1, 32)), set(range(7)), set()
        assert spoken.own(sentence) == wanted, (SEED, case.dialect, case.text, sentence)
        read += 1
    assert read > 700 * TIMES


TABLE = (
    "30 1 * * *", "* * * * *", "*/5 * * * *", "0 * * * *", "5 * * * *", "5,10 * * * *", "*/7 * * * *", "0 9-17 * * *",
    "*/5 9-17 * * 1-5", "* 9-17 * * *", "0 */2 * * *", "0 */5 * * *", "0 1,3,5 * * *", "0,30 1,3 * * *",
    "10-20 * * * *", "10-20 3 * * *", "0 0 1 * *", "0 0 1,15 * *", "0 0 1-15 * *", "0 0 */2 * *", "0 0 * * mon",
    "0 0 * * 0,6", "0 0 * * 1-5", "0 0 13 * 5", "0 0 * jan *", "0 0 * 1-3 *", "0 0 * 3-12 *", "0 0 * */2 *",
    "0 0 1 1,7 *", "0 0 L * *", "0 0 LW * *", "0 0 15W * *", "0 0 * * 5L", "0 0 * * 5#2", "0 0 * * */2",
    "*/20 */6 1 * *", "0 0 * * 1,3-5", "15 3,9-11 1,5-7 2,4-6 *", "0 0 L-3 * *", "0 0 29 2 *",
    "0 30 1 * * *", "*/10 * * * * *", "5 * * * * *", "15 0 9-17 * * MON-FRI", "10-20 5 4 * * *", "0,30 */5 * * * *",
    "quartz 0 0 12 ? * 6#3", "quartz 0 0 12 L * ?", "quartz 0 0 12 LW * ?", "quartz 0 0/15 8-17 ? * MON-FRI",
    "quartz 0 0 12 ? * 2-6", "quartz 0 0 12 * * ? 2026-2030", "quartz 0 0 12 ? * 6L", "quartz 0 0 12 L-3 * ?",
    "quartz 0 15 10 ? * MON-FRI 2026,2027", "quartz 0 0 12 15W * ?",
)  # fmt: skip


@pytest.mark.parametrize("text", TABLE)
def test_another_implementation_says_the_same(text: str) -> None:
    dialect = "quartz" if text.startswith("quartz") else "cron6" if len(text.split()) == 6 else "cron"
    agree(text.removeprefix("quartz "), dialect)


def test_it_says_the_same_of_random_texts() -> None:
    print(f"seed {SEED}")
    rng = random.Random(f"{SEED}descriptor")
    for _ in range(700 * TIMES):
        dialect = rng.choice(DIALECTS)
        shift = dialect == "quartz"
        fields = [plain(rng, 0, 59, 0.3), plain(rng, 0, 23, 0.4), plain(rng, 1, 31, 0.6), plain(rng, 1, 12, 0.6)]
        weekday = plain(rng, 0 + shift, 6 + shift, 0.6)
        if shift:
            fields[2], weekday = (fields[2], "?") if fields[2] != "*" else ("?", weekday)
        elif fields[2] != "*" and (re.search(r"[*-]", weekday) or "*" in fields[2]):
            weekday = "*"  # see the known differences
        seconds = [] if dialect == "cron" else [plain(rng, 0, 59, 0.2)]
        agree(" ".join([*seconds, *fields, weekday]), dialect)


def plain(rng: random.Random, low: int, high: int, stars: float) -> str:
    """A field of the forms that every cron has."""
    kind = rng.random()
    if kind < stars:
        return "*"
    if kind < stars + 0.12 and high - low != 6:
        return f"*/{rng.randint(2, (high - low) // 2)}"
    items = []
    for value in sorted(rng.sample(range(low, high + 1), rng.choice((1, 1, 1, 2, 3)))):
        top = min(high, value + rng.randint(1, 9))
        items.append(f"{value}-{top}" if rng.random() < 0.25 and top > value else str(value))
    return ",".join(items) if len(items) < 2 or not any("-" in item for item in items[:-1]) else items[0]


def agree(text: str, dialect: str) -> None:
    """Both sentences read back mean the same."""
    schedule = schedule_of(text, dialect)
    if schedule is None:
        return
    options = Options()
    options.use_24hour_time_format, options.day_of_week_start_index_zero = True, dialect != "quartz"
    other = ExpressionDescriptor(text, options).get_description()
    sentence = schedule.describe().removesuffix(" (UTC)")
    own, theirs = spoken.own(sentence), spoken.theirs(other)
    if theirs.either and not own.either:  # one of the two takes every day: Crony's sentence names neither
        assert len(theirs.days) == 31 or len(theirs.weekdays) == 7, (SEED, text, sentence, other)
        theirs.either, theirs.days, theirs.weekdays = False, set(range(1, 32)), set(range(7))
    assert own == theirs, (SEED, dialect, text, sentence, other)


def test_the_chinese_sentence_is_whole() -> None:
    """No English is left in it but names: the zone, calendars, cron's own spelling of instants."""
    print(f"seed {SEED}")
    rng, chinese = random.Random(f"{SEED}zh"), translator("zh")
    limits: tuple[dict[str, object], ...] = (
        {}, {"jitter": "1h30m"}, {"end": "2027-12-01T00:00:00+08:00"},
        {"start": "2026-12-01T00:00:00+08:00", "count": 5},
        {"calendars": {"include": ["a-1", "b"], "closed": "next"}}, {"calendars": {"exclude": ["c", "d"]}},
        {"calendars": {"include": ["e"], "exclude": ["f"], "closed": "previous"}},
    )  # fmt: skip
    for _ in range(500 * TIMES):
        case = random_case(rng, rng.choice(DIALECTS))
        more = {"timezone": "Asia/Shanghai", **rng.choice(limits), **rng.choice(limits)}
        schedule = schedule_of(case.text, case.dialect, **more)  # type: ignore[arg-type]
        if schedule is not None:
            assert_chinese(words.localized(schedule.describe(), chinese, "zh"), schedule.describe())
    for document in ({"every": "1d"}, {"every": "90s", "start": "2026-12-01T00:00:00Z"}, {"every": "1s"},
                     {"at": "2026-12-01T00:00:00Z"}):  # fmt: skip
        said = parse_schedule(document).describe()
        assert_chinese(words.localized(said, chinese, "zh"), said)
    assert_chinese(words.localized("by hand only", chinese, "zh"), "")


def test_every_mark_has_its_chinese_words() -> None:
    rng, seen = random.Random(SEED), set()
    for change in draw(rng, 60):
        for rule in ("once", "elapsed", "both"):
            minute = (change.instant + change.before) % 3600 // 60
            schedule = parse_schedule({"cron": f"{minute} * * * *", "timezone": change.zone, "dst": rule})
            before = change.instant - 7200
            for fire in fires_between([schedule], before, change.instant + 7200, 9):
                for mark in marks([schedule], before, fire):
                    seen.add(mark.kind)
                    assert_chinese(reasons.said(mark.words, translator("zh"), "zh"), mark.words)
                before = fire
    assert seen == {"clocks", "shifted", "first", "second", "skipped"}


def assert_chinese(text: str, english: str) -> None:
    left = re.sub(r"\d{4}-\d\d-\d\dT[\d:+Z]+|\(Asia/Shanghai\)|(?<![a-z])(?:a-1|[b-f])(?![a-z])", "", text)
    assert not re.search("[A-Za-z]", left) and re.search("[\u4e00-\u9fff]", text), (SEED, text, english)
