"""Creating and editing a job: a form with a live preview, or the document itself; errors at the field, nothing lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from crony.catalog import views
from crony.catalog.views import JobView, Preview, SavedNotLive
from crony.domain.hashed import EXAMPLE
from crony.domain.job import parse
from crony.errors import Conflict, CronyError, Invalid, Unavailable
from crony.lifecycle.enlist import instances
from crony.web import documents, job_fields
from crony.web.auth import ADMIN, VIEWER, Identity, address_of
from crony.web.forms import only
from crony.web.pages.common import Form, TheWeb, Who, go
from crony.web.rendering import display_zone
from crony.web.wiring import Web

router = APIRouter()

OFTEN = ("UTC", "Asia/Shanghai", "Asia/Hong_Kong", "Asia/Tokyo", "Asia/Singapore", "Europe/London", "Europe/Berlin",
         "America/New_York", "America/Los_Angeles")  # fmt: skip
KNOWN = 200
"""Most names of one kind that a field offers."""
Mode = Literal["form", "document"]


@router.get("/jobs/new", dependencies=[Depends(ADMIN)])
def new(
    web: TheWeb,
    request: Request,
    mode: Mode = "form",
    copy: Annotated[str, Query(max_length=255)] = "",
) -> Response:
    """An empty form, or one filled from another job."""
    values, text = dict(job_fields.DEFAULTS) | {"timezone": display_zone(request)}, ""
    if copy:
        document = web.catalog.get(copy).document
        document = {**document, "name": f"{document['name']}-copy"[:200]}
        text, found = documents.write(document), job_fields.fields(document)
        values, mode = found or values, mode if found else "document"
    elif mode == "document":
        text = documents.write(job_fields.document({**values, "name": "my-job", "command": "/usr/bin/date -u"}))
    return _page(web, request, None, mode, values, text)


@router.post("/jobs/new", dependencies=[Depends(ADMIN)])
def create(web: TheWeb, who: Who, request: Request, form: Form) -> Response:
    """Save a new job."""
    return _save(web, who, request, form, None)


@router.get("/jobs/{job}/edit", dependencies=[Depends(ADMIN)])
def edit(web: TheWeb, request: Request, job: str, mode: Mode = "form") -> Response:
    """The form filled from the job; the document when the form cannot say all of it."""
    view = web.catalog.get(job)
    values = job_fields.fields(view.document)
    return _page(
        web, request, view, mode if values is not None else "document", values or {}, documents.write(view.document),
        only_document=values is None,
    )  # fmt: skip


@router.post("/jobs/{job}/edit", dependencies=[Depends(ADMIN)])
def update(web: TheWeb, who: Who, request: Request, job: str, form: Form) -> Response:
    """Save an edited job."""
    return _save(web, who, request, form, web.catalog.get(job))


@router.post("/jobs/preview", dependencies=[Depends(VIEWER)])
def preview(web: TheWeb, request: Request, form: Form, job: Annotated[str, Query(max_length=40)] = "") -> Response:
    """The next ten fires of what the form says now, for the job of that id; or what is wrong with it."""
    values = only(form, *job_fields.DEFAULTS, "mode", "text", "revision", "job")
    found, problem, follows = _preview(web, values, job or values.get("job") or EXAMPLE)
    return web.render.fragment(request, "job_form/preview.html", preview=found, problem=problem, follows=follows)


def _save(web: Web, who: Identity, request: Request, form: Mapping[str, str], view: JobView | None) -> Response:
    values = only(dict(form), *job_fields.DEFAULTS, "mode", "text", "revision", "job")
    by_text = values.get("mode") == "document"
    text = values.get("text", "")
    filled = {**job_fields.DEFAULTS, **dict.fromkeys(job_fields.FLAGS, ""), **values}
    address = address_of(request)
    try:
        document: dict[str, Any] = documents.read(text) if by_text else job_fields.document(filled)
        if view is None:
            saved = web.catalog.create(document, who.actor, address=address)
        else:
            seen = values.get("revision", "")
            if not seen.isdigit():
                raise Conflict("The form is out of date", hint="reload the page and try again")
            saved = web.catalog.update(view.id, document, int(seen), who.actor, address=address)
    except SavedNotLive as error:
        saved = error.view
    except (Invalid, Conflict) as error:
        return _page(
            web, request, view, "document" if by_text else "form", filled, text, error=error,
            revision=values.get("revision"), only_document=by_text and not filled.get("name"),
        )  # fmt: skip
    return go(f"/jobs/{saved.id}", "created" if view is None else "saved")


def _page(
    web: Web,
    request: Request,
    view: JobView | None,
    mode: str,
    values: Mapping[str, str],
    text: str,
    *,
    error: CronyError | None = None,
    revision: str | None = None,
    only_document: bool = False,
) -> Response:
    field = job_fields.field_of(error, values) if isinstance(error, Invalid) and mode == "form" else ""
    shown = Invalid("", error.problem, hint=error.hint) if isinstance(error, Invalid) and field else None
    found, problem, follows = _preview(web, {**values, "mode": mode, "text": text}, view.id if view else EXAMPLE)
    status = 200 if error is None else int(error.status)
    return web.render.page(
        request, "job_form/page.html", status=status, error=None if field else error, section="jobs", view=view,
        mode=mode, values={**job_fields.DEFAULTS, **values}, text=text, wrong=field, wrong_error=shown, preview=found,
        problem=problem, follows=follows, only_document=only_document,
        revision=revision or (str(view.revision) if view else ""), often=OFTEN,
        zones=_zones(), usual=job_fields.DEFAULTS, known=_known(web) if mode == "form" else {},
    )  # fmt: skip


def _known(web: Web) -> dict[str, list[str]]:
    """Names that fields of the form take; those of what is away, and more than a person reads through, are left out."""
    catalog = web.catalog
    sources: dict[str, Callable[[], Iterable[str]]] = {
        "jobs": lambda: (view.name for view in catalog.list(limit=KNOWN).items),
        "calendars": lambda: (view.name for view in catalog.calendars.every()),
        "channels": lambda: (view.name for view in catalog.channels.every()),
        "pools": lambda: (view.name for view in catalog.pools.every()),
        "secrets": lambda: (view.name for view in catalog.secrets.every()),
        "services": lambda: {each.service for each in instances(web.client, web.keys)},
        "nodes": lambda: web.live.nodes(),
    }
    found: dict[str, list[str]] = {}
    for kind, names in sources.items():
        try:
            found[kind] = sorted(names())[:KNOWN]
        except Unavailable:
            found[kind] = []
    return found


@lru_cache(1)
def _zones() -> list[str]:
    """Zones people mean: Continent/City."""
    names = (zone for zone in available_timezones() if "/" in zone)
    return sorted(zone for zone in names if not zone.startswith(("Etc/", "posix/", "right/", "SystemV/", "US/")))


def _preview(web: Web, values: Mapping[str, str], job: str) -> tuple[Preview | None, Invalid | None, bool]:
    """The next fires, or why there is none to show; and whether the job follows others."""
    follows = bool(values.get("after_jobs", "").strip())
    try:
        if values.get("mode") == "document":
            parsed = parse(documents.read(values.get("text", "")))
            when, follows = parsed.schedule_document(), parsed.after is not None
        else:
            when = job_fields.schedule({**job_fields.DEFAULTS, **values})
        found = views.preview({"schedule": when}, job=job, lookup=web.catalog.calendars.contents)
    except Invalid as error:
        return None, error, follows
    return found, None, follows
