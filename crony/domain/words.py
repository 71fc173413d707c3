"""A cron text in English, for the preview and the console: `at 01:30 on Monday to Friday`."""

from __future__ import annotations

from crony.domain.cron import ALL_MONTHS, Cron, DayRule
from crony.domain.crontext import DAY_NAMES, MONTH_NAMES
from crony.domain.timetable import FIRST_YEAR, restricted

_MANY = 6
"""Values that are listed one by one; more are shown as the cron text has them."""
_NTH = ("", "first", "second", "third", "fourth", "fifth")


def describe(cron: Cron) -> str:
    """What the text says, without a zone. It names only what fires; long lists stay in cron's spelling."""
    (text, seconds), parts = _times(cron), _days(cron)
    if cron.either and len(parts) < 2:
        parts = []  # one of the two day fields takes every day, so the other one adds nothing
    if parts:
        text += " on " + (" or on " if cron.either else ", if it is ").join(parts)
    elif text.startswith("at ") and "past" not in text:
        text += " every day"
    if cron.months != ALL_MONTHS:
        values = _bits(cron.months)
        if len(values) <= _MANY:
            text += f" in {_months(values)}"
        else:
            text += f" in every month but {_months([month for month in range(1, 13) if month not in values])}"
    return text + _years(cron) + seconds


def _days(cron: Cron) -> list[str]:
    """What the day-of-month and day-of-week fields say; a field that takes every day says nothing."""
    parts, (by_day, by_weekday) = [], restricted(cron)
    if by_day:
        values, said = _bits(cron.days), [_rule(rule) for rule in cron.day_rules]
        listed = _join(values) if len(values) <= _MANY else _without_rules(cron.five()[2])
        plain = [f"day {listed} of the month"] if values else []
        parts.append(" and on ".join(plain + said))
    if by_weekday:
        values, said = _bits(cron.weekdays), [_rule(rule) for rule in cron.weekday_rules]
        listed = "Monday to Friday" if values == [1, 2, 3, 4, 5] else _join([DAY_NAMES[day] for day in values])
        parts.append(" and on ".join([listed] * bool(values) + said))
    return parts


def _without_rules(text: str) -> str:
    """The items of a day field that are plain numbers: the others are said in words."""
    return ",".join(item for item in text.split(",") if not set(item.lower()) & set("lw#"))


def _rule(rule: DayRule) -> str:
    back = f"{rule.nth} day{'' if rule.nth == 1 else 's'} before the last of the month"
    if rule.kind == "last":
        return f"the day {back}" if rule.nth else "the last day of the month"
    if rule.kind == "workday":
        return f"the workday nearest to {back}" if rule.nth else "the last workday of the month"
    if rule.kind == "nearest":
        return f"the workday nearest to day {rule.day} of the month"
    return f"the {_NTH[rule.nth] if rule.kind == 'nth' else 'last'} {DAY_NAMES[rule.day]} of the month"


def _years(cron: Cron) -> str:
    values = [FIRST_YEAR + bit for bit in _bits(cron.years)]
    if not values:
        return ""
    if len(values) > 2 and values == list(range(values[0], values[-1] + 1)):
        return f", from {values[0]} to {values[-1]}"
    return f", in {_join(values) if len(values) <= _MANY else 'the years ' + cron.text.split(' ')[-1]}"


def _times(cron: Cron) -> tuple[str, str]:
    """The times of day, and what is to be said of seconds after everything else."""
    seconds, minutes, hours = _bits(cron.seconds), _bits(cron.minutes), _bits(cron.hours)
    minute_text, hour_text = cron.five()[:2]
    if seconds == [0]:
        return _in_minutes(minutes, hours, minute_text, hour_text), ""
    if len(minutes) * len(hours) * len(seconds) <= _MANY:
        times = [f"{hour:02}:{minute:02}:{second:02}" for hour in hours for minute in minutes for second in seconds]
        return "at " + _join(times), ""
    often = "every second" if len(seconds) == 60 else ""
    if _even(seconds, 60) and not often:
        often = f"every {seconds[1]} seconds"
    if often and len(minutes) == 60:
        return _in_minutes(minutes, hours, minute_text, hour_text).replace("every minute", often), ""
    listed = _join(seconds) if len(seconds) <= _MANY else cron.text.split(" ")[0]
    after = f", {often} of the minute" if often else f", at second {listed}"
    return _in_minutes(minutes, hours, minute_text, hour_text), after


def _in_minutes(minutes: list[int], hours: list[int], minute_text: str, hour_text: str) -> str:
    whole_day = len(hours) == 24
    if len(minutes) * len(hours) <= _MANY:
        return "at " + _join([f"{hour:02}:{minute:02}" for hour in hours for minute in minutes])
    if len(minutes) == 60:
        often = "every minute"
    elif _even(minutes, 60):
        often = f"every {minutes[1] - minutes[0]} minutes"
    elif minutes == [0]:
        often = "every hour" if whole_day else "on the hour"
    elif whole_day:
        past = _join(minutes) if len(minutes) <= _MANY else minute_text
        return f"at minute {past} past every hour"
    else:
        often = f"at minute {_join(minutes) if len(minutes) <= _MANY else minute_text}"
    if whole_day:
        return often
    if minutes == [0] and _even(hours, 24):
        return f"every {hours[1] - hours[0]} hours"
    if hours == list(range(hours[0], hours[-1] + 1)):
        return f"{often} from {hours[0]:02}:00 to {hours[-1]:02}:59"
    return f"{often} in the hours {_join(hours) if len(hours) <= _MANY else hour_text}"


def _even(values: list[int], size: int) -> bool:
    """Whether the values go round a circle of `size` in equal steps, starting at 0."""
    return len(values) > 1 and values == list(range(0, size, values[1])) and size % values[1] == 0


def _months(values: list[int]) -> str:
    return _join([MONTH_NAMES[month - 1] for month in values])


def _bits(mask: int) -> list[int]:
    return [bit for bit in range(mask.bit_length()) if mask >> bit & 1]


def _join(values: list[int] | list[str]) -> str:
    words = [str(value) for value in values]
    return "".join(words) if len(words) < 2 else f"{', '.join(words[:-1])} and {words[-1]}"
