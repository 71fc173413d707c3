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
from crony.web import ansi, documents, formats, i18n, refusals, words
from crony.web.auth import Identity
from crony.web.i18n import N_
from crony.web.problems import headers
from crony.web.runs import Run
from crony.web.static_files import static_files

if TYPE_CHECKING:
    from crony.web.wiring import Web

WORDS = {
    "succeeded": N_("succeeded"), "failed": N_("failed"), "timed_out": N_("timed out"), "cancelled": N_("cancelled"),
    "lost": N_("lost"), "unknown": N_("unknown"), "refused": N_("refused"), "skipped": N_("skipped"),
    "requested": N_("requested"), "waiting": N_("waiting"), "queued": N_("queued"), "running": N_("running"),
    "accepted": N_("accepted"), "ended": N_("ended"),
    "schedule": N_("schedule"), "manual": N_("by hand"), "api": N_("API"), "enqueue": N_("enqueue"),
    "backfill": N_("backfill"), "chain": N_("another job"),
    "stopping": N_("stopping"), "done": N_("done"), "given_up": N_("given up"),
    "cpu": N_("CPU load"), "memory": N_("memory"), "disk": N_("disk"),
    "ready": N_("ready"), "cordoned": N_("cordoned"), "draining": N_("draining"), "away": N_("away"),
    "admin": N_("administrator"), "operator": N_("operator"), "viewer": N_("viewer"), "node": N_("node"),
    "service": N_("service"),
    "http": N_("HTTP"), "grpc": N_("gRPC"), "shell": N_("Shell"), "python": N_("Python"),
    "runs": N_("runs"), "celery": N_("Celery"),
    "overlap": N_("overlap"), "misfire": N_("missed"), "paused": N_("paused"), "error": N_("error"),
    "deleted": N_("deleted"), "restored": N_("lost with a backup"), "no_node": N_("no node"),
    "parent": N_("the job before it"),
    "run_failed": N_("run failed"), "run_held": N_("run on hold"), "job_paused": N_("job paused"),
    "job_held": N_("job held"), "node_lost": N_("node lost"), "tzdata": N_("time zone data"),
    "leader_changed": N_("leader changed"), "queue_age": N_("not begun"),
    "late": N_("late"), "missed": N_("did not run"), "too_long": N_("takes too long"),
    "recovered": N_("recovered"), "failure_rate": N_("many failures"), "test": N_("test"),
    "event_failed": N_("failed"), "event_recovered": N_("recovered"), "event_waiting": N_("not begun"),
    "event_late": N_("late"), "event_missed": N_("did not run"), "event_too_long": N_("takes too long"),
    "event_node_lost": N_("node lost"), "event_leader_changed": N_("leader changed"),
    "event_platform": N_("platform"), "event_failure_rate": N_("many failures"),
    "told_sent": N_("sent"), "told_given_up": N_("not sent"),
    "not_kept": N_("not kept"), "unreadable": N_("unreadable"),
    "create": N_("created"), "update": N_("edited"), "delete": N_("deleted"),
    "pause": N_("paused"), "resume": N_("resumed"),
    "wait_ended": N_("Their attempt ended"), "wait_delay": N_("Asked for later"),
    "wait_overlap": N_("Another run of the job is under way"), "wait_no_node": N_("No node fits"),
    "wait_reroute": N_("On the way to another node"), "wait_hold": N_("On hold: a person decides"),
    "rollback": N_("restored"), "calendar": N_("calendar changed"),
    "overlap_skip": N_("skip the new one"), "overlap_allow": N_("run both"),
    "overlap_cancel_previous": N_("stop the last one"),
    "overlap_queue_one": N_("let one wait"), "overlap_queue_all": N_("let all wait"),
    "misfire_fire_once": N_("run once for the latest"), "misfire_fire_all": N_("run all of them"),
    "misfire_skip": N_("skip them"), "backoff_exponential": N_("longer each time"),
    "backoff_fixed": N_("always the same"),
}  # fmt: skip
"""Stored words and what people read; each is translated."""

NOTICES = {
    "created": N_("The job is saved and published."),
    "saved": N_("The change is saved and published."),
    "paused": N_("The job is paused: it fires no more until it is resumed."),
    "resumed": N_("The job is on; it fires from now on."),
    "deleted": N_("The job is deleted. Its history stays until the retention rule removes it."),
    "cancelling": N_("The run was asked to stop."),
    "released": N_("The run goes on with its next attempt."),
    "backfill": N_("The backfill begins."),
    "backfill-stopped": N_("The backfill was asked to stop."),
    "stopped": N_("Nothing is handed out any more; what runs goes on."),
    "going": N_("Work is handed out again."),
    "service": N_("The instance is taken off."),
    "node": N_("The node's settings are saved; the leader follows at once."),
    "calendar": N_("The calendar is saved; the jobs that keep to it follow."),
    "calendar-waits": N_("The calendar is saved; some jobs follow when etcd is back."),
    "calendar-deleted": N_("The calendar is deleted."),
    "pool": N_("The pool is saved; leaders keep to it from now on."),
    "pool-waits": N_("The pool is saved; leaders keep to it when etcd is back."),
    "pool-deleted": N_("The pool is deleted."),
    "secret": N_("The secret is saved; jobs have it from their next attempt on."),
    "secret-waits": N_("The secret is saved; nodes have it when etcd is back."),
    "secret-deleted": N_("The secret is deleted."),
    "secret-rotated": N_("All secrets are encrypted with the newest key."),
    "secret-not-rotated": N_("Some secrets could not be encrypted with the newest key: their own key is not here."),
    "channel": N_("The channel is saved."),
    "channel-waits": N_("The channel is saved; the centre has it when etcd is back."),
    "channel-deleted": N_("The channel is deleted."),
    "rule": N_("The rule is saved; it decides from now on."),
    "rule-waits": N_("The rule is saved; the centre goes by it when etcd is back."),
    "rule-deleted": N_("The rule is deleted."),
    "revoked": N_("The token is revoked."),
    "password": N_("The password is changed. Please sign in again."),
    "signed-out": N_("You are signed out."),
}
"""What a redirect may announce: `?done=<key>`; free text from a URL is never shown."""

TITLES = {
    400: N_("The request cannot be read"), 401: N_("Please sign in"), 403: N_("Not allowed"), 404: N_("Not found"),
    405: N_("Not possible here"), 409: N_("Changed meanwhile"), 412: N_("Changed meanwhile"),
    413: N_("Too large"), 415: N_("The request cannot be read"), 422: N_("Not accepted"),
    429: N_("Too many tries"), 502: N_("Not taken by the other side"),
    503: N_("Something Crony needs is away"), 500: N_("Something went wrong"),
}  # fmt: skip


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
    return words.said(ansi.plain(text), i18n.translator(context["lang"]), context["lang"])


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
        detail = words.said(run.grounds.why, _, context["lang"])
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
