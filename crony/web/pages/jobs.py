"""Jobs: the landing page, one job, and what is done with it."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from crony.catalog import views
from crony.catalog.chains import around
from crony.catalog.views import SavedNotLive
from crony.domain.run import Trigger
from crony.errors import Conflict, Invalid, NotFound, Unavailable
from crony.store.cursor import Paged
from crony.store.runs import Filter
from crony.store.skips import list_skips
from crony.web import formats, jobs, why
from crony.web.auth import ADMIN, OPERATOR, VIEWER, address_of
from crony.web.formats import duration
from crony.web.forms import only
from crony.web.i18n import translator
from crony.web.jobs import JobInfo
from crony.web.pages import backfills
from crony.web.pages.chains import job_graph
from crony.web.pages.common import Form, TheWeb, Who, go, local_path, without_done
from crony.web.parts import shown
from crony.web.rendering import language
from crony.web.runs import list_runs
from crony.web.svg import Bar, sparkline
from crony.web.triggering import RunOptions, run_job
from crony.web.vocabulary import WORDS

router = APIRouter()

BARS = 20
Tab = Literal["overview", "runs", "backfill", "definition", "versions"]


@router.get("/jobs", dependencies=[Depends(VIEWER)])
def page(
    web: TheWeb,
    request: Request,
    q: Annotated[str, Query(max_length=200)] = "",
    show: Literal["", "on", "off"] = "",
    cursor: Annotated[str | None, Query(max_length=2000)] = None,
) -> Response:
    """Every job: is it on, when does it fire next, how did it go lately."""
    away: list[Unavailable] = []
    try:
        enabled = {"": None, "on": True, "off": False}[show]
        found = web.catalog.list(q=q.strip(), enabled=enabled, limit=50, cursor=cursor)
        total = web.catalog.count(q=q.strip(), enabled=enabled)
    except Unavailable as error:
        found, total = Paged([]), 0
        away.append(error)
    infos, missing = jobs.describe(web, found.items, recent=BARS)
    query = {"q": q.strip(), "show": show}
    more = None if found.next_cursor is None else _url("/jobs", **query, cursor=found.next_cursor)
    return web.render.page(
        request, "jobs.html", away=[*away, *missing], section="jobs", infos=infos, total=total, q=q, show=show,
        filtered=bool(q.strip() or show), next_url=more, first_url=_url("/jobs", **query) if cursor else None,
        spark=lambda info: _spark(request, info), chip=lambda value: _url("/jobs", q=q.strip(), show=value),
        back=without_done(str(request.scope["path"]) + (f"?{request.url.query}" if request.url.query else "")),
    )  # fmt: skip


@router.get("/jobs/{job}", dependencies=[Depends(VIEWER)])
def one(
    web: TheWeb,
    who: Who,
    request: Request,
    job: str,
    tab: Tab = "overview",
    revision: Annotated[int | None, Query(ge=1)] = None,
    cursor: Annotated[str | None, Query(max_length=2000)] = None,
    at: Annotated[str, Query(max_length=40)] = "",
    start: Annotated[str, Query(max_length=40)] = "",
    end: Annotated[str, Query(max_length=40)] = "",
    parallel: Annotated[str, Query(max_length=10)] = "",
    order: Annotated[str, Query(max_length=10)] = "",
) -> Response:
    """One job: next fires and latest runs, all its runs, its backfills, its definition, its versions."""
    view = web.catalog.get(job)
    infos, away = jobs.describe(web, [view], recent=BARS)
    values: dict[str, Any] = {
        "fires": None,
        "recent": [],
        "versions": None,
        "shown": None,
        "skips": [],
        "next_url": None,
        "answer": None,
        "graph": None,
        "around": None,
    }
    if tab == "overview":
        lookup, standing = web.catalog.calendars.contents, view.standing if view.on else None
        with contextlib.suppress(Invalid):  # it cannot be read any more: the page says so
            values["fires"] = views.preview(view.document, 10, job=view.id, lookup=lookup, standing=standing)
        values["around"] = around(web.db, view.id)
        values["graph"] = job_graph(web, request, values["around"], view.id)
        values["skips"] = list_skips(web.db, job=view.id, limit=5).items
        moment = formats.instant(at, infos[0].zone) if at else None
        values["answer"] = why.why(web, view.id, moment) if moment is not None else None
    if tab in ("overview", "runs"):
        size = 10 if tab == "overview" else 50
        found, after, missing = list_runs(web.db, web.live, Filter(job=view.id), limit=size, cursor=cursor)
        away += missing
        values["recent"] = found
        values["next_url"] = _url(f"/jobs/{view.id}", tab="runs", cursor=after) if after and tab == "runs" else None
    if tab == "backfill":
        given = {"start": start, "end": end, "parallel": parallel, "order": order}
        values |= backfills.tab(web, who, view, infos[0].zone, given)
        away += values.pop("away")
    if tab == "definition":
        values["shown"] = web.catalog.version(view.id, revision) if revision else None
    if tab == "versions":
        values["versions"] = web.catalog.versions(view.id, limit=100).items
    return web.render.page(
        request, "job.html", away=away, section="jobs", info=infos[0], view=view, tab=tab, runs=values["recent"],
        brief=shown(web, values["recent"]),
        spark=_spark(request, infos[0]), asked_at=at, lang_of=language(request),
        **{key: value for key, value in values.items() if key != "recent"},
    )  # fmt: skip


@router.post("/jobs/{job}/switch", dependencies=[Depends(OPERATOR)])
def switch(web: TheWeb, who: Who, request: Request, job: str, form: Form) -> Response:
    """Pause or resume."""
    values = only(form, "on", "next")
    on = values.get("on") == "1"
    try:
        web.catalog.set_enabled(job, on, who.actor, address=address_of(request))
    except SavedNotLive:
        pass  # the page says that it is not live yet
    return go(without_done(local_path(values.get("next", ""), f"/jobs/{job}")), "resumed" if on else "paused")


@router.post("/jobs/{job}/run", dependencies=[Depends(OPERATOR)])
def run(web: TheWeb, who: Who, request: Request, job: str, form: Form) -> Response:
    """Run now. `key` was made with the page, so that a double click is one run."""
    values = only(form, "key")
    found = run_job(web, who, job, RunOptions(), values.get("key") or None, Trigger.MANUAL, address_of(request))
    return go(f"/runs/{found.run}")


@router.post("/jobs/{job}/delete", dependencies=[Depends(ADMIN)])
def delete(web: TheWeb, who: Who, request: Request, job: str, form: Form) -> Response:
    """Delete a job, as it was shown."""
    values = only(form, "revision")
    try:
        web.catalog.delete(job, who.actor, revision=int(values.get("revision", "0")), address=address_of(request))
    except SavedNotLive:
        pass
    except ValueError:
        raise Conflict("The form is out of date", hint="reload the page and try again") from None
    return go("/jobs", "deleted")


@router.post("/jobs/{job}/rollback", dependencies=[Depends(ADMIN)])
def rollback(web: TheWeb, who: Who, request: Request, job: str, form: Form) -> Response:
    """Save an earlier version again."""
    values = only(form, "to", "revision")
    if not (values.get("to", "").isdigit() and values.get("revision", "").isdigit()):
        raise NotFound("There is no such version")
    try:
        web.catalog.rollback(
            job, int(values["to"]), who.actor, revision=int(values["revision"]), address=address_of(request)
        )
    except SavedNotLive:
        pass
    return go(f"/jobs/{job}", "saved")


def _url(path: str, **query: str | None) -> str:
    kept = {key: value for key, value in query.items() if value}
    return f"{path}?{urlencode(kept)}" if kept else path


def _spark(request: Request, info: JobInfo) -> object:
    _ = translator(language(request))
    ended = list(reversed(info.recent))
    bars = [
        Bar(run.outcome, run.duration or 0.0, f"/runs/{run.id}", f"{_(WORDS[run.outcome])} · {duration(run.duration)}")
        for run in ended
    ]
    good = sum(run.outcome == "succeeded" for run in ended)
    label = _("%(good)s of the last %(all)s runs succeeded", good=good, all=len(ended)) if ended else _("no runs yet")
    return sparkline(bars, label)
