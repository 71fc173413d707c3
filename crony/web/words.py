"""Schedules in words, in the reader's language.

Piece by piece; a piece nobody translated leaves the sentence English rather than half of each.
"""

from __future__ import annotations

import re

from crony.web.i18n import N_, Gettext

DAYS = {
    "Monday": N_("Monday"), "Tuesday": N_("Tuesday"), "Wednesday": N_("Wednesday"), "Thursday": N_("Thursday"),
    "Friday": N_("Friday"), "Saturday": N_("Saturday"), "Sunday": N_("Sunday"),
    "Monday to Friday": N_("Monday to Friday"),
}  # fmt: skip
MONTHS = {
    "January": N_("January"), "February": N_("February"), "March": N_("March"), "April": N_("April"), "May": N_("May"),
    "June": N_("June"), "July": N_("July"), "August": N_("August"), "September": N_("September"),
    "October": N_("October"), "November": N_("November"), "December": N_("December"),
}  # fmt: skip
UNITS = {
    "second": N_("second"), "minute": N_("minute"), "hour": N_("hour"), "day": N_("day"),
    "seconds": N_("seconds"), "minutes": N_("minutes"), "hours": N_("hours"), "days": N_("days"),
}  # fmt: skip
EVERY = {
    "every second": N_("every second"), "every minute": N_("every minute"), "every hour": N_("every hour"),
    "every day": N_("every day"),
}  # fmt: skip
LIMITS = (
    (r"up to (?P<what>[\d a-z]+) later", N_("%(said)s, up to %(what)s later")),
    (r"(?P<what>\d+) times at most", N_("%(said)s, %(what)s times at most")),
    (r"until (?P<what>\S+)", N_("%(said)s, until %(what)s")),
    (r"from (?P<what>\d{4}-\S+)", N_("%(said)s, from %(what)s")),
    (r"closed days move to the next open one(?P<what>)", N_("%(said)s, closed days move to the next open one")),
    (
        r"closed days move to the previous open one(?P<what>)",
        N_("%(said)s, closed days move to the previous open one"),
    ),
    (r"not in (?P<what>[a-z0-9][a-z0-9._-]*(?: or [a-z0-9._-]+)*)", N_("%(said)s, not in %(what)s")),
    (r"in (?P<what>[a-z0-9][a-z0-9._-]*(?: or [a-z0-9._-]+)*)", N_("%(said)s, in %(what)s")),
)
"""What narrows a schedule, the last in the sentence first."""
NTH = {
    "first": N_("the first %(day)s of the month"), "second": N_("the second %(day)s of the month"),
    "third": N_("the third %(day)s of the month"), "fourth": N_("the fourth %(day)s of the month"),
    "fifth": N_("the fifth %(day)s of the month"), "last": N_("the last %(day)s of the month"),
}  # fmt: skip
DAY_RULES = (
    (r"the last day of the month", N_("the last day of the month")),
    (r"the last workday of the month", N_("the last workday of the month")),
    (r"the day (?P<n>\d+) days? before the last of the month", N_("the day %(n)s days before the last of the month")),
    (r"the workday nearest to day (?P<n>\d+) of the month", N_("the workday nearest to day %(n)s of the month")),
    (
        r"the workday nearest to (?P<n>\d+) days? before the last of the month",
        N_("the workday nearest to %(n)s days before the last of the month"),
    ),
)
"""What `L`, `LW`, `L-3` and `15W` are in words."""
_CRON = re.compile(
    r"(?P<when>.+?)(?: on (?P<days>.+?)|(?P<daily> every day))?(?: in (?P<but>every month but )?(?P<months>[A-Z].+))?"
)


class _Unknown(Exception):
    """A piece nobody translated."""


def localized(text: str, _: Gettext, language: str) -> str:
    """What `Schedule.describe()` says, in `language`; in English where a piece has no translation."""
    if language == "en":
        return text
    try:
        return "; ".join(_one(part, _) for part in text.split("; "))
    except _Unknown:
        return text


def _one(text: str, _: Gettext) -> str:
    if text == "by hand only":
        return _("by hand only")
    for pattern, message in LIMITS:
        if match := re.fullmatch(f"(?P<said>.+), {pattern}", text):
            several = _(" or ").join(match["what"].split(" or "))
            what = _period(match["what"], _) if message.endswith("later") else several
            return _(message, said=_one(match["said"], _), what=what)
    if match := re.fullmatch("once at (.+)", text):
        return _("once at %(time)s", time=match[1])
    if match := re.fullmatch("([0-9]+ [a-z]+(?: [0-9]+ [a-z]+)*) after the end of the run before", text):
        return _("%(period)s after the end of the run before", period=_period(match[1], _))
    zone = ""
    if match := re.fullmatch(r"(.+) \(([A-Za-z0-9_+/-]+)\)", text):
        text, zone = match[1], f" ({match[2]})"
    if text in EVERY:
        return _(EVERY[text]) + zone
    if not zone and (match := re.fullmatch("every ([0-9]+ [a-z]+(?: [0-9]+ [a-z]+)*)", text)):
        return _("every %(period)s", period=_period(match[1], _))
    return _cron(text, _) + zone


def _cron(text: str, _: Gettext) -> str:
    if match := re.fullmatch("(.+), at second (.+)", text):
        return _("%(when)s, at second %(seconds)s", when=_cron(match[1], _), seconds=_numbers(match[2], _))
    if match := re.fullmatch("(.+), every second of the minute", text):
        return _("%(when)s, every second of the minute", when=_cron(match[1], _))
    if match := re.fullmatch("(.+), every ([0-9]+ seconds) of the minute", text):
        return _("%(when)s, every %(period)s of the minute", when=_cron(match[1], _), period=_period(match[2], _))
    if match := re.fullmatch("(.+), from ([0-9]{4}) to ([0-9]{4})", text):
        return _("%(when)s, from %(begin)s to %(end)s", when=_cron(match[1], _), begin=match[2], end=match[3])
    if match := re.fullmatch("(.+), in (?:the years )?([0-9].*)", text):
        return _("%(when)s, in %(years)s", when=_cron(match[1], _), years=_numbers(match[2], _))
    match = _CRON.fullmatch(text)
    if match is None:
        raise _Unknown
    said = _when(match["when"], _)
    if match["daily"]:
        said = _("%(when)s every day", when=said)
    if match["days"]:
        said = _("%(when)s on %(days)s", when=said, days=_days(match["days"], _))
    if match["but"]:
        said = _("%(when)s in every month but %(months)s", when=said, months=_list(match["months"], MONTHS, _))
    elif match["months"]:
        said = _("%(when)s in %(months)s", when=said, months=_list(match["months"], MONTHS, _))
    return said


def _when(text: str, _: Gettext) -> str:
    if match := re.fullmatch("(.+) from ([0-9:]+) to ([0-9:]+)", text):
        return _("%(when)s from %(begin)s to %(end)s", when=_when(match[1], _), begin=match[2], end=match[3])
    if match := re.fullmatch("at minute (.+) past every hour", text):
        return _("at minute %(minutes)s past every hour", minutes=_numbers(match[1], _))
    if match := re.fullmatch("at minute ([^a-z]+(?: and [0-9]+)?)", text):
        return _("at minute %(minutes)s", minutes=_numbers(match[1], _))
    if text in EVERY:
        return _(EVERY[text])
    if match := re.fullmatch("every ([0-9]+ [a-z]+)", text):
        return _("every %(period)s", period=_period(match[1], _))
    if match := re.fullmatch("at ([0-9:, and]+)", text):
        return _("at %(times)s", times=_numbers(match[1], _))
    if match := re.fullmatch("(.+) in the hours (.+)", text):
        return _("%(when)s in the hours %(hours)s", when=_when(match[1], _), hours=_numbers(match[2], _))
    if text == "on the hour":
        return _("on the hour")
    raise _Unknown


def _days(text: str, _: Gettext) -> str:
    if " or on " in text:
        return _(" or on ").join(_days(part, _) for part in text.split(" or on "))
    if ", if it is " in text:
        return _(", if it is ").join(_days(part, _) for part in text.split(", if it is "))
    if " and on " in text:
        return _(", ").join(_days(part, _) for part in text.split(" and on "))
    if match := re.fullmatch("day ([^a-z]+(?: and [0-9]+)?) of the month", text):
        return _("day %(days)s of the month", days=_numbers(match[1], _))
    for pattern, message in DAY_RULES:
        if match := re.fullmatch(pattern, text):
            return _(message, **match.groupdict())
    if (match := re.fullmatch("the ([a-z]+) ([A-Z][a-z]+) of the month", text)) and match[1] in NTH:
        return _(NTH[match[1]], day=_list(match[2], DAYS, _))
    return _list(text, DAYS, _)


def _list(text: str, known: dict[str, str], _: Gettext) -> str:
    if text in known:
        return _(known[text])
    parts = re.split(", | and ", text)
    if any(part not in known for part in parts):
        raise _Unknown
    return _(", ").join(_(known[part]) for part in parts)


def _numbers(text: str, _: Gettext) -> str:
    return _(", ").join(re.split(", | and ", text))


def _period(text: str, _: Gettext) -> str:
    pieces = []
    for number, unit in re.findall("([0-9]+) ([a-z]+)", text):
        if unit not in UNITS:
            raise _Unknown
        pieces.append(f"{number} {_(UNITS[unit])}")
    return " ".join(pieces)
