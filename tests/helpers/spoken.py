"""What a sentence about a schedule means, as plain sets: Crony's own sentences, and those of cron-descriptor.

Two small readers, one grammar each, share nothing but `Facts`: so sentences without a word in common can be compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
MONTHS = ("", "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
          "November", "December")  # fmt: skip
NTH = ("", "first", "second", "third", "fourth", "fifth")
SIZES = {"seconds": (0, 59), "minutes": (0, 59), "hours": (0, 23), "days": (1, 31), "months": (1, 12)}


class Unread(Exception):
    """A sentence, or the rest of one, that the grammar does not know."""


@dataclass
class Facts:
    """What fires. `rules` are days that only the month can tell, such as `last`, `nth 2 Friday`, `nearest 15`."""

    seconds: set[int] = field(default_factory=lambda: {0})
    minutes: set[int] = field(default_factory=lambda: set(range(60)))
    hours: set[int] = field(default_factory=lambda: set(range(24)))
    days: set[int] = field(default_factory=lambda: set(range(1, 32)))
    weekdays: set[int] = field(default_factory=lambda: set(range(7)))
    months: set[int] = field(default_factory=lambda: set(range(1, 13)))
    years: set[int] = field(default_factory=set)
    """Empty: every year."""
    rules: set[str] = field(default_factory=set)
    either: bool = False


def _apply(sentence: str, grammar: list[tuple[str, Callable[[Facts, re.Match[str]], None]]]) -> Facts:
    facts, rest = Facts(), sentence
    while rest:
        for pattern, effect in grammar:
            found = re.match(rf"(?:{pattern})(?=, | |$)", rest)
            if found:
                effect(facts, found)
                rest = re.sub("^,? ?", "", rest[found.end() :])
                break
        else:
            raise Unread(rest)
    return facts


def _numbers(text: str) -> set[int]:
    """`1, 5 through 7 and 9`, and the cron spelling `1-59/2`, `*/7`, `5,7-9` (whose `*` is left to `_spelled`)."""
    values: set[int] = set()
    for part in re.split(", and |, | and ", text):
        first, _, last = part.partition(" through ")
        values |= set(range(int(first), int(last or first) + 1))
    return values


def _spelled(text: str, name: str) -> set[int]:
    """`1, 5 and 9`, or a field in cron's own spelling: `1-59/2`, `*/7`, `5,7-9`, in Quartz `22-2` and `5/15` too."""
    if re.fullmatch(r"\d+(?:, \d+)*(?: and \d+)?", text):
        return _numbers(text)
    low, high = SIZES[name]
    values: set[int] = set()
    for part in text.lower().split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        start = low if span == "*" else _value(first)
        end = high if span == "*" or (step and not last) else _value(last or first)
        size = high - low + 1
        values |= {low + (n - low) % size for n in range(start, end + 1 + size * (end < start), int(step or 1))}
    return values


def _value(text: str) -> int:
    return int(text) if text.isdigit() else [month[:3].lower() for month in MONTHS].index(text)


def _names(text: str, known: tuple[str, ...]) -> set[int]:
    values: set[int] = set()
    for part in re.split(", and |, | and ", text):
        begin, _, end = part.partition(" through ")
        first, last = known.index(begin), known.index(end or begin)
        values |= {n % 7 for n in range(first, last + 8)} if last < first else set(range(first, last + 1))
    return values


def _times(facts: Facts, text: str) -> None:
    """`01:00, 01:30 and 03:00`: the sets whose product these are."""
    parts = [tuple(int(part) for part in time.split(":")) for time in re.split(", and |, | and ", text)]
    facts.hours, facts.minutes = {time[0] for time in parts}, {time[1] for time in parts}
    facts.seconds = {time[2] if len(time) > 2 else 0 for time in parts}
    if len(parts) != len(facts.hours) * len(facts.minutes) * len(facts.seconds):
        raise Unread(text)


def _put(name: str, values: Callable[[re.Match[str]], set[int]]) -> Callable[[Facts, re.Match[str]], None]:
    return lambda facts, found: setattr(facts, name, values(found))


def _rule(text: str) -> Callable[[Facts, re.Match[str]], None]:
    def effect(facts: Facts, found: re.Match[str]) -> None:
        facts.rules.add(text.format(*found.groups()))
        wanted, size = ("weekdays", 7) if re.match("nth|final", text) else ("days", 31)
        if len(getattr(facts, wanted)) == size:
            setattr(facts, wanted, set())

    return effect


def _both(*effects: Callable[[Facts, re.Match[str]], None]) -> Callable[[Facts, re.Match[str]], None]:
    def effect(facts: Facts, found: re.Match[str]) -> None:
        for each in effects:
            each(facts, found)

    return effect


_TIME = r"\d\d:\d\d(?::\d\d)?"
_DAY, _MONTH = "|".join(DAYS), "|".join(MONTHS[1:])
_NTH = "|".join(NTH[1:])


def _list(item: str) -> str:
    return rf"(?:{item})(?:(?:, and |, | and )(?:{item}))*"


def _step(name: str, match: int = 1) -> Callable[[Facts, re.Match[str]], None]:
    low, high = SIZES[name]
    return _put(name, lambda found: set(range(low, high + 1, int(found[match]))))


def _zero(name: str) -> Callable[[Facts, re.Match[str]], None]:
    return _put(name, lambda _: {0})


def _or(facts: Facts, _: re.Match[str]) -> None:
    facts.either = True


def _no_more(facts: Facts, found: re.Match[str]) -> None:
    """A word that adds nothing."""


_SPELLED = r"[\dA-Za-z*](?:[\dA-Za-z*/,-]*[\dA-Za-z*])?"
_OWN_LIST = rf"(?:{_list(r'[0-9]+')}|{_SPELLED})"
OWN: list[tuple[str, Callable[[Facts, re.Match[str]], None]]] = [
    (rf"at ({_list(_TIME)})(?: every day)?", lambda facts, found: _times(facts, found[1])),
    (r"every second of the minute", _put("seconds", lambda _: set(range(60)))),
    (r"every (\d+) seconds(?: of the minute)?", _step("seconds")),
    (r"every second", _put("seconds", lambda _: set(range(60)))),
    (r"every minute", _no_more),
    (r"every (\d+) minutes", _step("minutes")),
    (r"every hour", _zero("minutes")),
    (r"every (\d+) hours", _both(_step("hours"), _zero("minutes"))),
    (r"on the hour", _zero("minutes")),
    (rf"at minute ({_OWN_LIST})(?: past every hour)?", _put("minutes", lambda found: _spelled(found[1], "minutes"))),
    (r"from (\d\d):00 to (\d\d):59", _put("hours", lambda found: set(range(int(found[1]), int(found[2]) + 1)))),
    (rf"in the hours ({_OWN_LIST})", _put("hours", lambda found: _spelled(found[1], "hours"))),
    (rf"at second ({_OWN_LIST})", _put("seconds", lambda found: _spelled(found[1], "seconds"))),
    (r"every day", _no_more),
    (rf"(?:and )?on day ({_OWN_LIST}) of the month", _put("days", lambda found: _spelled(found[1], "days"))),
    (r"or(?= on )", _or),
    (r"if it is(?= )", _no_more),
    (r"(?:and )?(?:on )?the last day of the month", _rule("last 0")),
    (r"(?:and )?(?:on )?the day (\d+) days? before the last of the month", _rule("last {0}")),
    (r"(?:and )?(?:on )?the last workday of the month", _rule("workday")),
    (r"(?:and )?(?:on )?the workday nearest to day (\d+) of the month", _rule("nearest {0}")),
    (r"(?:and )?(?:on )?the workday nearest to (\d+) days? before the last of the month", _rule("nearest-last {0}")),
    (rf"(?:and )?(?:on )?the ({_NTH}) ({_DAY}) of the month", _rule("nth {0} {1}")),
    (rf"(?:and )?(?:on )?the last ({_DAY}) of the month", _rule("final {0}")),
    (r"(?:on )?Monday to Friday", _put("weekdays", lambda _: {1, 2, 3, 4, 5})),
    (rf"(?:on )?({_list(_DAY)})", _put("weekdays", lambda found: _names(found[1], DAYS))),
    (rf"in ({_list(_MONTH)})", _put("months", lambda found: _names(found[1], MONTHS))),
    (
        rf"in every month but ({_list(_MONTH)})",
        _put("months", lambda found: set(range(1, 13)) - _names(found[1], MONTHS)),
    ),
    (r"from (\d{4}) to (\d{4})", _put("years", lambda found: set(range(int(found[1]), int(found[2]) + 1)))),
    (rf"in ({_list(r'[0-9]{4}')})", _put("years", lambda found: _numbers(found[1]))),
]

_THEIR_LIST = _list(r"\d+(?: through \d+)?")


def _hours_of(text: str) -> set[int]:
    """`03:00 and 09:00 through 11:59`."""
    return _numbers(re.sub(r"(\d\d):\d\d", r"\1", text))


def _between(facts: Facts, found: re.Match[str]) -> None:
    low, high = found[1].split(":"), found[2].split(":")
    if low[0] == high[0] and (low[1], high[1]) != ("00", "59"):
        facts.hours, facts.minutes = {int(low[0])}, set(range(int(low[1]), int(high[1]) + 1))
    else:
        facts.hours &= set(range(int(low[0]), int(high[0]) + 1))


def _months_through(found: re.Match[str]) -> set[int]:
    return set(range(MONTHS.index(found[1]), MONTHS.index(found[2]) + 1))


THEIRS: list[tuple[str, Callable[[Facts, re.Match[str]], None]]] = [
    (rf"[Aa]t ({_THEIR_LIST}) seconds past the minute", _put("seconds", lambda found: _numbers(found[1]))),
    (rf"[Aa]t ({_THEIR_LIST}) minutes past the hour", _put("minutes", lambda found: _numbers(found[1]))),
    (rf"At ({_list(_TIME)})(?=$|, )", lambda facts, found: _times(facts, found[1])),
    (rf"at ({_list(_TIME + f'(?: through {_TIME})?')})", _put("hours", lambda found: _hours_of(found[1]))),
    (r"[Ee]very second", _put("seconds", lambda _: set(range(60)))),
    (r"[Ee]very (\d+) seconds", _step("seconds")),
    (r"[Ss]econds (\d+ through \d+) past the minute", _put("seconds", lambda found: _numbers(found[1]))),
    (rf"[Ee]very minute between ({_TIME}) and ({_TIME})", _between),
    (r"[Ee]very minute", _no_more),
    (r"[Ee]very (\d+) minutes", _step("minutes")),
    (r"[Mm]inutes (\d+ through \d+) past the hour", _put("minutes", lambda found: _numbers(found[1]))),
    (r"Every hour", _zero("minutes")),
    (r"Every (\d+) hours", _both(_step("hours"), _zero("minutes"))),
    (r"every (\d+) hours", _step("hours")),
    (rf"between ({_TIME}) and ({_TIME})", _between),
    (r"every (\d+) days of the week", _put("weekdays", lambda found: set(range(0, 7, int(found[1]))))),
    (r"every (\d+) days", _step("days")),
    (r"every (\d+) months", _step("months")),
    (rf"on day ({_THEIR_LIST}) of the month", _put("days", lambda found: _numbers(found[1]))),
    (r"between day (\d+) and (\d+) of the month",
     _put("days", lambda found: set(range(int(found[1]), int(found[2]) + 1)))),
    (r"on the last day of the month", _rule("last 0")),
    (r"(\d+) days before the last day of the month", _rule("last {0}")),
    (r"on the last weekday of the month", _rule("workday")),
    (r"on the weekday nearest day (\d+) of the month", _rule("nearest {0}")),
    (rf"on the ({_NTH}) ({_DAY}) of the month", _rule("nth {0} {1}")),
    (rf"on the last ({_DAY}) of the month", _rule("final {0}")),
    (rf"or (?:on )?({_list(f'(?:{_DAY})(?: through (?:{_DAY}))?')})",
     _both(_or, _put("weekdays", lambda found: _names(found[1], DAYS)))),
    (rf"(?:only on )?({_list(f'(?:{_DAY})(?: through (?:{_DAY}))?')})",
     _put("weekdays", lambda found: _names(found[1], DAYS))),
    (rf"({_MONTH}) through ({_MONTH})$", _put("months", _months_through)),
    (rf"({_MONTH}) through ({_MONTH})", _put("months", _months_through)),
    (rf"only in ({_list(f'(?:{_MONTH})(?: through (?:{_MONTH}))?')})",
     _put("months", lambda found: _names(found[1], MONTHS))),
    (r"(\d{4}) through (\d{4})", _put("years", lambda found: set(range(int(found[1]), int(found[2]) + 1)))),
    (rf"only in ({_list(r'[0-9]{4}')})", _put("years", lambda found: _numbers(found[1]))),
]  # fmt: skip


def own(sentence: str) -> Facts:
    """What a sentence of Crony's says. Raises `Unread`."""
    return _apply(sentence, OWN)


def theirs(sentence: str) -> Facts:
    """What a sentence of cron-descriptor's says. Raises `Unread`."""
    return _apply(sentence, THEIRS)
