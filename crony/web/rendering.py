"""Templates with what every page needs: language, theme, zone, identity, what is away."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from crony.clock import SYSTEM, rfc3339
from crony.domain import ids
from crony.domain.run import WaitReason
from crony.domain.schedule import Schedule
from crony.errors import CronyError, Unavailable
from crony.lifecycle.hold import Switch
from crony.web import ansi, documents, formats, i18n, reasons, refusals, words
from crony.web.auth import Identity
from crony.web.problems import headers
from crony.web.runs import Run
from crony.web.static_files import static_files
from crony.web.vocabulary import NOTICES, TITLES, WORDS

if TYPE_CHECKING:
    from crony.web.wiring import Web


@lru_cache(1)
def environment() -> Environment:
    """The templates of this installation, compiled once per process."""
    folder = resources.files("crony.web").joinpath("templates")
    env = Environment(
        loader=FileSystemLoader(str(folder)), autoescape=True, undefined=StrictUndefined, auto_reload=False,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    env.globals.update(
        static=static_files().url, languages=i18n.LANGUAGES, _=_translate, word=_word, weekday=_weekday,
        in_words=_in_words, in_words_all=_in_words_all, schedule_words=_schedule_words, wait_words=_wait_words,
        fresh_key=lambda: ids.fresh("w"),
    )  # fmt: skip
    env.filters.update(
        segment=lambda text: quote(text, safe=""),
        rfc3339=rfc3339, absolute=_absolute, short=_short, relative=_relative, duration=_duration,
        size=formats.size, pretty=_pretty, yaml=documents.write, ansi=ansi.to_html, plain=ansi.plain, said=_said,
        refused=_refused,
    )  # fmt: skip
    return env


class Renderer:
    """Makes pages. Templates escape everything; an undefined name is an error, not an empty place."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self.env = environment()

    def page(
        self,
        request: Request,
        template: str,
        *,
        status: int = 200,
        away: Sequence[CronyError] = (),
        error: CronyError | None = None,
        **values: Any,
    ) -> Response:
        """A whole page. `away`: what could not be asked; said in a banner. `error`: why the last action failed."""
        context = self.context(request)
        _ = i18n.translator(context["lang"])
        context["away"] = [*self._away(_), *(str(item) for item in away if not isinstance(item, Unavailable))]
        if away and not context["away"]:
            context["away"] = [str(away[0])]
        if error is not None:
            context["error"] = refusals.sentence(error, context["lang"])
            context["error_hint"] = refusals.said(error.hint, context["lang"])
        body = self.env.get_template(template).render(context | values)
        return HTMLResponse(body, status)

    def fragment(self, request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
        """A part of a page, for htmx."""
        return HTMLResponse(self.env.get_template(template).render(self.context(request) | values), status)

    def error(self, request: Request, error: CronyError) -> Response:
        """An error as a page."""
        if "hx-request" in request.headers:
            headers_ = {"HX-Retarget": "#banners", "HX-Reswap": "innerHTML", "HX-Reselect": ".crony-alert"}
            body = self.env.get_template("banner.html").render(
                self.context(request) | _words_of(error, language(request))
            )
            return HTMLResponse(body, int(error.status), headers=headers_)
        lang = language(request)
        title = i18n.translator(lang)(TITLES.get(int(error.status), TITLES[500]))
        context = self.context(request)
        if error.status == 503:
            context["away"] = self._away(i18n.translator(lang))
        body = self.env.get_template("error.html").render(
            context | _words_of(error, lang) | {"title": title, "status": int(error.status)}
        )
        return HTMLResponse(
            body, int(error.status), headers={k: v for k, v in headers(error).items() if k != "WWW-Authenticate"}
        )

    def context(self, request: Request) -> dict[str, Any]:
        """What every template knows."""
        identity: Identity | None = getattr(request.state, "identity", None)
        lang, choice = language(request), zone_choice(request)
        _ = i18n.translator(lang)
        done = NOTICES.get(request.query_params.get("done", ""))
        query = request.scope.get("query_string", b"").decode("latin-1")
        return {
            "lang": lang,
            "theme": theme(request),
            "zone_choice": choice,
            "display_zone": display_zone(request),
            "zone_words": {"job": _("the job's zone"), "utc": "UTC"}.get(choice, choice),
            "identity": identity,
            "csrf_token": identity.csrf if identity else "",
            "may": identity.may if identity else lambda need: False,
            "now": SYSTEM.wall(),
            "year": str(datetime.now(UTC).year),
            "version": self._web.version if identity else "",
            "here": request.scope["path"] + (f"?{query}" if query else ""),
            "section": "",
            "title": "",
            "notice": _(done) if done else "",
            "switch": self._switch() if identity else None,
            "halted": self._web.health().halted if identity else "",
            "behind": self._web.health().behind if identity else "",
            "away": [],
            "error": "",
            "error_hint": "",
        }

    def _switch(self) -> Switch | None:
        """The stop switch while it is set."""
        try:
            found = self._web.live.switch()
        except CronyError:
            return None
        return found if found.stop else None

    def _away(self, _: i18n.Gettext) -> list[str]:
        health = self._web.health()
        sentences = []
        if health.etcd and not health.halted:
            sentences.append(
                _(
                    "etcd is away: no job can be started from here, changes go live when it is back, and live state is "
                    "missing. History is still shown."
                )
            )
        if health.database:
            sentences.append(
                _(
                    "The database is away: history and definitions are missing here. "
                    "Running and scheduled work goes on undisturbed."
                )
            )
        return sentences


def language(request: Request) -> str:
    """en or zh."""
    return i18n.choose(request.cookies.get("crony_lang"), request.headers.get("accept-language"))


def theme(request: Request) -> str:
    """auto, light or dark."""
    chosen = request.cookies.get("crony_theme", "auto")
    return chosen if chosen in ("light", "dark") else "auto"


def zone_choice(request: Request) -> str:
    """job, utc or an IANA name."""
    chosen = request.cookies.get("crony_zone", "job").replace("%2F", "/")
    return chosen if chosen in ("job", "utc") or formats.zone_of(chosen).key == chosen else "job"


def display_zone(request: Request) -> str:
    """The zone for times that belong to no job."""
    chosen = zone_choice(request)
    return "UTC" if chosen in ("job", "utc") else chosen


def _words_of(error: CronyError, lang: str) -> dict[str, str]:
    return {"what": refusals.sentence(error, lang), "hint": refusals.said(error.hint, lang)}


@pass_context
def _translate(context: Context, message: str, **values: object) -> str:
    return i18n.translator(context["lang"])(message, **values)


@pass_context
def _word(context: Context, stored: object) -> str:
    text = str(stored)
    return i18n.translator(context["lang"])(WORDS[text]) if text in WORDS else text


def _zone(context: Context, zone: str | None) -> str:
    choice: str = context["zone_choice"]
    return (zone or "UTC") if choice == "job" else "UTC" if choice == "utc" else choice


@pass_context
def _absolute(context: Context, epoch: float, zone: str | None = None) -> str:
    return formats.absolute(epoch, _zone(context, zone))


@pass_context
def _short(context: Context, epoch: float, zone: str | None = None) -> str:
    return formats.short(epoch, _zone(context, zone))


@pass_context
def _relative(context: Context, epoch: float) -> str:
    return formats.relative(epoch, context["now"], i18n.translator(context["lang"]))


@pass_context
def _duration(context: Context, seconds: float | None) -> str:
    return formats.duration(seconds, i18n.translator(context["lang"]))


@pass_context
def _weekday(context: Context, day: int) -> str:
    return i18n.translator(context["lang"])(formats.WEEKDAYS[day])


@pass_context
def _in_words(context: Context, schedule: Schedule) -> str:
    """One schedule without its zone, which stands beside it."""
    text = schedule.describe().replace(f" ({schedule.timezone})", "", 1)
    return words.localized(text, i18n.translator(context["lang"]), context["lang"])


@pass_context
def _said(context: Context, text: str) -> str:
    """A reason from a node or the leader: made safe, in the reader's language."""
    return reasons.said(ansi.plain(text), i18n.translator(context["lang"]), context["lang"])


@pass_context
def _refused(context: Context, text: str) -> str:
    """Why a field was refused, or what to write, in the reader's language."""
    return refusals.said(text, context["lang"])


@pass_context
def _schedule_words(context: Context, text: str) -> str:
    return words.localized(text, i18n.translator(context["lang"]), context["lang"])


@pass_context
def _in_words_all(context: Context, schedules: Sequence[Schedule]) -> str:
    _ = i18n.translator(context["lang"])
    return "; ".join(words.localized(schedule.describe(), _, context["lang"]) for schedule in schedules)


@pass_context
def _wait_words(context: Context, run: Run) -> str:
    """Why a run waits, in a sentence."""
    _ = i18n.translator(context["lang"])
    reason = run.reason.split(":")[0]
    if reason == WaitReason.NO_NODE:
        detail = reasons.said(run.grounds.why, _, context["lang"])
        return _("No node fits now: it starts as soon as one does.") + (f" ({detail})" if detail else "")
    if reason == WaitReason.OVERLAP:
        return _("Another run of the job is under way: its turn comes when that has ended.")
    if reason == WaitReason.REROUTE:
        return _("Its node was lost or drained before the work began; the leader chooses another.")
    if reason == WaitReason.POOL:
        return _("A pool of its job has no free slot: its turn comes by priority, then by age.")
    if reason == WaitReason.HOLD:
        return _("Its node was lost after the work had started. Release it to run it again, or cancel it.")
    if run.due_at and run.due_at > context["now"]:
        time = formats.relative(run.due_at, context["now"], _)
        if run.attempts:
            return _("Attempt %(n)s comes %(time)s.", n=run.attempt, time=time)
        return _("It starts %(time)s.", time=time)
    if reason == WaitReason.ENDED and run.attempts:
        return _("Attempt %(n)s ended; the leader decides what follows.", n=run.attempts[-1].n)
    return _("It waits for the leader.")


def waiting_for(run: Run, lang: str, now: float) -> str:
    """Why a run waits, in a sentence; for answers that are no page."""
    return _wait_words({"lang": lang, "now": now}, run)  # type: ignore[arg-type]


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)
