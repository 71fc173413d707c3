"""Times and durations for people: always with a zone, in units people think in."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from crony.web.i18n import N_, Gettext

WEEKDAYS = (N_("Mon"), N_("Tue"), N_("Wed"), N_("Thu"), N_("Fri"), N_("Sat"), N_("Sun"))


def zone_of(name: str | None) -> ZoneInfo:
    """The IANA zone of that name; UTC for one that does not exist."""
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


def local(epoch: float, zone: str | None) -> datetime:
    """The instant in a zone."""
    return datetime.fromtimestamp(epoch, zone_of(zone))


def offset(moment: datetime) -> str:
    """UTC offset as `+08:00`."""
    text = moment.strftime("%z")
    return f"{text[:3]}:{text[3:5]}"


def absolute(epoch: float, zone: str | None) -> str:
    """`2026-11-22 09:00:00 +08:00 Asia/Shanghai` (`… UTC` for UTC)."""
    moment, name = local(epoch, zone), zone_of(zone).key
    text = moment.strftime("%Y-%m-%d %H:%M:%S")
    return f"{text} UTC" if name == "UTC" else f"{text} {offset(moment)} {name}"


def short(epoch: float, zone: str | None) -> str:
    """`11-22 09:00:00 +08:00` (`… UTC` for UTC), for table cells; the year only when it is not this one."""
    moment, now = local(epoch, zone), datetime.now(UTC)
    text = moment.strftime("%m-%d %H:%M:%S" if moment.year == now.year else "%Y-%m-%d %H:%M:%S")
    return f"{text} {'UTC' if zone_of(zone).key == 'UTC' else offset(moment)}"


UNITS = (N_("d"), N_("h"), N_("m"), N_("s"), N_("ms"))


def duration(seconds: float | None, _: Gettext = str) -> str:
    """`45 ms`, `3.2 s`, `4 m 10 s`, `2 h 5 m`, `3 d 4 h`; `_` translates the units."""
    if seconds is None:
        return "–"
    if seconds < 0:
        return f"−{duration(-seconds, _)}"
    if seconds < 1:
        return f"{seconds * 1000:.0f} {_('ms')}"
    if seconds < 10:
        return f"{seconds:.1f} {_('s')}"
    whole = round(seconds)
    for size, unit, small, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {_(unit)}" + (f" {rest} {_(smaller)}" if rest else "")
    return f"{whole} {_('s')}"


def relative(epoch: float, now: float, _: Gettext) -> str:
    """`in 2 h 14 m`, `3 m ago`, `now`."""
    gap = abs(epoch - now)
    if gap < 1:
        return _("now")
    text = f"{max(1, round(gap))} {_('s')}" if gap < 10 else duration(gap, _)
    return _("in %(time)s", time=text) if epoch > now else _("%(time)s ago", time=text)


def size(count: int) -> str:
    """Bytes as `812 B`, `4.1 KB`, `2.0 MB`."""
    value = float(count)
    for unit in ("B", "KB", "MB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GB"


def instant(text: str, zone: str) -> float | None:
    """Epoch seconds of what a person wrote: RFC 3339, or a date and time without an offset, meant in `zone`."""
    try:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(zone))).timestamp()
    except (ValueError, OverflowError):
        return None
