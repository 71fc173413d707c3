"""Which calendars schedules keep to: names checked, days filled in, where a job is not read from etcd."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from crony.domain.calendar import Calendar
from crony.domain.channel import channel_of
from crony.domain.job import Job, parse
from crony.domain.schedule import Schedule
from crony.errors import Invalid

Lookup = Callable[[Iterable[str]], Mapping[str, Calendar]]
"""Names of calendars to those there are."""


def names_of(schedules: Iterable[Schedule]) -> tuple[str, ...]:
    """Names of the calendars that schedules keep to, each once."""
    names = [name for schedule in schedules if schedule.calendars for name in schedule.calendars.names]
    return tuple(dict.fromkeys(names))


def named_by(job: Job) -> dict[str, tuple[str, ...]]:
    """Names of the objects that a job names, by kind."""
    secrets = tuple(dict.fromkeys(name for _, name in job.secrets))
    channels = tuple(dict.fromkeys(channel_of(to) for entry in job.alerts or () for to in entry.to))
    return {"calendar": names_of(job.schedules), "pool": job.limits, "secret": secrets, "channel": channels}


def check_calendars(schedules: Sequence[Schedule], known: Mapping[str, Calendar], *, many: bool) -> None:
    """Refuse calendars that are not there, and days where a name belongs. Raises `Invalid` naming the field."""
    for index, schedule in enumerate(schedules):
        if schedule.calendars is None:
            continue
        field = f"schedule[{index}].calendars" if many else "schedule.calendars"
        if schedule.calendars.is_filled:
            raise Invalid(field, "holds the days of a calendar", hint="save the calendar and write its name")
        for name in schedule.calendars.names:
            if name not in known:
                raise Invalid(field, f"names {name}, which there is not", hint="save that calendar first")


def check_size(job: Job, known: Mapping[str, Calendar], parents: Mapping[str, str]) -> None:
    """Refuse a job that would be too large to be published with its days and the ids of its parents.

    Raises `Invalid`, as `parse` does.
    """
    if names_of(job.schedules) or parents:
        parse(job.filled(known, parents).document())


def due_schedules(job: Job, ident: str, known: Mapping[str, Calendar]) -> tuple[Schedule, ...]:
    """The schedules of a saved job as a centre has them; none when a calendar is missing."""
    try:
        return tuple(schedule.filled(known).resolved(ident) for schedule in job.schedules)
    except KeyError:
        return ()
