"""The answer to "why did it not run?": a verdict, its sentence in the reader's language, and what it rests on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from crony.catalog.views import JobView
from crony.clock import SYSTEM, rfc3339
from crony.domain.run import State
from crony.store.skips import SkipView
from crony.web import formats, jobs, reasons, shapes
from crony.web.filled import Filled
from crony.web.i18n import N_, translator
from crony.web.rendering import waiting_for
from crony.web.runs import Run
from crony.web.sentences import At, Reason, Word
from crony.web.vocabulary import WORDS

NAMED = 5
"""Most backfills that a sentence names."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the records say about one instant of a job."""

    job: JobView
    at: int
    verdict: str
    """ran, running, waiting, skipped, did_not_exist, deleted, paused, manual_only, unreadable, not_due, not_yet,
    undecided, held, not_kept or no_record."""
    said: tuple[tuple[str, dict[str, object]], ...]
    """Sentences, as templates with their values."""
    run: Run | None = None
    skip: SkipView | None = None
    revision: int | None = None
    """The revision in force then."""
    before: int | None = None
    after: int | None = None
    """The nearest fires by that revision, when it was not due."""
    waits: Run | None = field(default=None, repr=False)
    """A waiting run whose reason is still to be said."""
    filled: tuple[Filled, ...] = ()
    """Runs of backfills for that instant, which are no fires."""

    def sentence(self, language: str, zone: str) -> str:
        """The answer for people, times in `zone`."""
        _ = translator(language)

        def shown(value: object) -> object:
            match value:
                case At():
                    return formats.absolute(value, zone)
                case Word():
                    return _(WORDS[value]) if value in WORDS else str(value)
                case Reason():
                    return reasons.said(value, _, language).rstrip(".。")
            return value

        parts = [_(text, **{name: shown(value) for name, value in values.items()}) for text, values in self.said]
        if self.waits is not None:
            parts.append(waiting_for(self.waits, language, SYSTEM.wall()))
        parts += [_(text, **{name: shown(value) for name, value in values.items()}) for text, values in self._filled()]
        return ("" if language == "zh" else " ").join(parts)

    def _filled(self) -> Iterator[tuple[str, dict[str, object]]]:
        for each in self.filled[:NAMED]:
            values: dict[str, object] = {"backfill": each.backfill}
            if each.run is None:
                yield N_("Backfill %(backfill)s has that instant still before it."), values
                continue
            values["run"] = each.run.id
            if each.run.state == State.ENDED:
                values["outcome"] = Word(each.run.outcome)
                yield N_("Backfill %(backfill)s ran it: run %(run)s ended as %(outcome)s."), values
            else:
                yield N_("Backfill %(backfill)s has made run %(run)s of it, which has not ended."), values


def body(answer: Answer, language: str) -> dict[str, Any]:
    """The answer as the API gives it."""
    job = jobs.parsed(answer.job.document)
    zone = job.schedules[0].timezone if job and job.schedules else "UTC"
    return {
        "job": answer.job.id,
        "job_name": answer.job.name,
        "at": rfc3339(answer.at),
        "verdict": answer.verdict,
        "sentence": answer.sentence(language, zone),
        "run": shapes.run(answer.run) if answer.run else None,
        "skip": shapes.skip(answer.skip) if answer.skip else None,
        "backfills": [
            {"id": each.backfill, "run": shapes.run(each.run) if each.run else None} for each in answer.filled
        ],
        "revision": answer.revision,
        "fire_before": rfc3339(answer.before),
        "fire_after": rfc3339(answer.after),
    }
