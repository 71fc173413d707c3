"""`/api/v1/jobs`: what people define, its fires, and asking for runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from crony.catalog.keeping import due_schedules, names_of
from crony.catalog.views import JobView, SavedNotLive
from crony.clock import SYSTEM, rfc3339
from crony.domain.job import parse, parse_pause
from crony.domain.lint import advise
from crony.domain.run import Trigger
from crony.errors import Invalid, NotFound
from crony.web import answer, explaining, jobs, shapes, why
from crony.web.api.query import Cursor, IdempotencyKey, IfMatch, Limit, MaybeIfMatch, Ref, etag, instant, one_key
from crony.web.auth import ADMIN, OPERATOR, VIEWER, Identity, address_of
from crony.web.forms import body_schema, json_model, json_object
from crony.web.problems import Precondition
from crony.web.rendering import language
from crony.web.triggering import RunOptions, TaskOptions, enqueue_task, run_job
from crony.web.wiring import Web

router = APIRouter(tags=["jobs"])

_DOCUMENT = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}


async def _web(request: Request) -> Web:
    found: Web = request.app.state.web
    return found


async def _who(request: Request) -> Identity:
    found: Identity = request.state.identity
    return found


class Pause(BaseModel):
    """How long a pause shall be."""

    model_config = ConfigDict(extra="forbid")

    until: Annotated[str, Field(max_length=40)] | None = None
    """RFC 3339 with offset; null: until somebody resumes the job."""


class Rollback(BaseModel):
    """Which earlier revision to save again."""

    model_config = ConfigDict(extra="forbid")

    to: Annotated[int, Field(ge=1)]


TheWeb = Annotated[Web, Depends(_web)]
Who = Annotated[Identity, Depends(_who)]


def _job(web: Web, view: Any, response: Response) -> dict[str, Any]:
    response.headers["etag"] = etag(view.revision)
    infos, _ = jobs.describe(web, [view])  # with etcd away the last run may be one that the archive has
    return shapes.job(infos[0])


def _saved(web: Web, save: Callable[[], JobView], response: Response) -> dict[str, Any]:
    """The answer to a save, with `warnings` of likely mistakes if any; 202: saved, but live only when etcd is back."""
    try:
        view = save()
    except SavedNotLive as error:
        view, response.status_code = error.view, 202
    known = web.catalog.calendars.contents(names_of(view.job.schedules))
    warnings = explaining.warnings(advise(due_schedules(view.job, view.id, known), SYSTEM.wall()))
    return _job(web, view, response) | ({"warnings": warnings} if warnings else {})


def _check_revision(web: Web, ref: str, revision: int | None) -> None:
    """412 for a stale `If-Match`; what changes between this and the save is a 409."""
    if revision is not None and (found := web.catalog.get(ref)).revision != revision:
        raise Precondition(
            f"The job is at revision {found.revision}, not {revision}",
            why=f"{found.updated_by} changed it" if found.updated_by else "",
            hint="load it again and repeat your change",
        )


@router.post("/jobs", status_code=201, dependencies=[Depends(ADMIN)], openapi_extra=_DOCUMENT)
def create(
    web: TheWeb,
    who: Who,
    request: Request,
    response: Response,
    document: Annotated[dict[str, Any], Depends(json_object)],
) -> dict[str, Any]:
    """Create a job from its document. 202: saved, and live as soon as etcd is back."""
    address = address_of(request)
    body = _saved(web, lambda: web.catalog.create(document, who.actor, address=address), response)
    response.headers["location"] = f"/api/v1/jobs/{body['id']}"
    return body


@router.get("/jobs", dependencies=[Depends(VIEWER)])
def list_jobs(
    web: TheWeb,
    q: Annotated[str, Query(max_length=200, description="text in the name or the document")] = "",
    folder: Annotated[str, Query(max_length=200, description="beginning of the name, such as billing/")] = "",
    enabled: bool | None = None,
    limit: Limit = None,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Jobs by name. `enabled` goes by the save; `state` is on, paused, paused_until or held (by its leader)."""
    page = web.catalog.list(q=q, folder=folder, enabled=enabled, limit=limit, cursor=cursor)
    infos, _ = jobs.describe(web, page.items)
    return {"items": [shapes.job(info) for info in infos], "next_cursor": page.next_cursor}


@router.post("/fires:preview", dependencies=[Depends(VIEWER)], openapi_extra=_DOCUMENT)
def preview(
    web: TheWeb,
    document: Annotated[dict[str, Any], Depends(json_object)],
    n: Annotated[int, Query(ge=1, le=100)] = 10,
    after: Annotated[str | None, Query(max_length=40)] = None,
) -> dict[str, Any]:
    """The next fires of a document's `schedule`, by the engine that fires it. Nothing is stored."""
    _has_schedule(document)
    return explaining.fires(document, n, instant(after, "after"), lookup=web.catalog.calendars.contents)


def _has_schedule(document: dict[str, Any]) -> None:
    if "schedule" not in document:
        raise Invalid("schedule", "is missing", hint='write {"schedule": {"cron": "30 1 * * *"}}')
    if document.keys() != {"schedule"}:
        parse(document)  # a whole document: all of it is checked


@router.post("/schedule:explain", dependencies=[Depends(VIEWER)], openapi_extra=_DOCUMENT)
def explain(
    web: TheWeb,
    document: Annotated[dict[str, Any], Depends(json_object)],
    n: Annotated[int, Query(ge=1, le=100)] = 10,
    after: Annotated[str | None, Query(max_length=40)] = None,
    lang: Annotated[Literal["en", "zh"], Query(description="of marks and warnings")] = "en",
) -> dict[str, Any]:
    """What a document's `schedule` says in words (en, zh), its next fires with clock changes, likely mistakes."""
    _has_schedule(document)
    return explaining.explain(document, n, instant(after, "after"), lang, lookup=web.catalog.calendars.contents)


@router.get("/jobs/{ref}/fires", dependencies=[Depends(VIEWER)])
def fires(
    web: TheWeb,
    ref: Ref,
    n: Annotated[int, Query(ge=1, le=100)] = 10,
    after: Annotated[str | None, Query(max_length=40)] = None,
) -> dict[str, Any]:
    """The next fires by the job's schedule; for a paused job those it would have. `known` false: they follow ends."""
    view, lookup = web.catalog.get(ref), web.catalog.calendars.contents
    standing = view.standing if view.on else None
    return explaining.fires(view.document, n, instant(after, "after"), view.id, lookup=lookup, standing=standing)


@router.get("/jobs/{ref}/why", dependencies=[Depends(VIEWER)])
def why_not(
    web: TheWeb,
    request: Request,
    ref: Ref,
    at: Annotated[str, Query(max_length=40, description="the instant, RFC 3339 with offset")],
) -> dict[str, Any]:
    """Why the job did, or did not, run at an instant, from records only; `sentence` in the reader's language."""
    moment = instant(at, "at")
    assert moment is not None
    return answer.body(why.why(web, ref, moment), language(request))


@router.get("/jobs/{ref}/versions", dependencies=[Depends(VIEWER)])
def versions(web: TheWeb, ref: Ref, limit: Limit = None, cursor: Cursor = None) -> dict[str, Any]:
    """The saves of a job, newest first."""
    page = web.catalog.versions(ref, limit=limit, cursor=cursor)
    items = [
        {"revision": v.revision, "action": v.action, "actor": v.actor, "at": rfc3339(v.at), "document": v.document}
        for v in page.items
    ]
    return {"items": items, "next_cursor": page.next_cursor}


@router.post(
    "/jobs/{ref}:run", status_code=202, dependencies=[Depends(OPERATOR)], openapi_extra=body_schema(RunOptions)
)
def run(
    web: TheWeb,
    who: Who,
    request: Request,
    ref: Ref,
    key: IdempotencyKey,
    options: Annotated[RunOptions, Depends(json_model(RunOptions, optional=True))],
) -> dict[str, Any]:
    """Ask for a run now (or later); with an idempotency key a repeated call gets the same run."""
    chosen = one_key(key, options.idempotency_key)
    found = run_job(web, who, ref, options, chosen, Trigger.API, address_of(request))
    return {"run": found.run, "created": found.created}


@router.post(
    "/tasks:enqueue", status_code=202, dependencies=[Depends(OPERATOR)], openapi_extra=body_schema(TaskOptions)
)
def enqueue(
    web: TheWeb,
    who: Who,
    request: Request,
    key: IdempotencyKey,
    options: Annotated[TaskOptions, Depends(json_model(TaskOptions))],
) -> dict[str, Any]:
    """Ask for a run of an allow-listed Celery task."""
    found = enqueue_task(web, who, options, one_key(key, options.idempotency_key), address_of(request))
    return {"run": found.run, "created": found.created}


@router.post("/jobs/{ref}:pause", dependencies=[Depends(OPERATOR)], openapi_extra=body_schema(Pause))
def pause(
    web: TheWeb,
    who: Who,
    request: Request,
    ref: Ref,
    response: Response,
    body: Annotated[Pause, Depends(json_model(Pause, optional=True))],
) -> dict[str, Any]:
    """Stop firing, until somebody resumes it or, with `until`, up to that instant; runs under way go on."""
    until = parse_pause(body.until, "until")
    return _switch(web, who, request, ref, False, response, until)


@router.post("/jobs/{ref}:resume", dependencies=[Depends(OPERATOR)])
def resume(web: TheWeb, who: Who, request: Request, ref: Ref, response: Response) -> dict[str, Any]:
    """Fire again from now on."""
    return _switch(web, who, request, ref, True, response)


def _switch(
    web: Web, who: Identity, request: Request, ref: str, on: bool, response: Response, until: int = 0
) -> dict[str, Any]:
    address = address_of(request)
    return _saved(web, lambda: web.catalog.set_enabled(ref, on, who.actor, until=until, address=address), response)


@router.post("/jobs/{ref}:rollback", dependencies=[Depends(ADMIN)], openapi_extra=body_schema(Rollback))
def rollback(
    web: TheWeb,
    who: Who,
    request: Request,
    ref: Ref,
    response: Response,
    revision: MaybeIfMatch,
    body: Annotated[Rollback, Depends(json_model(Rollback))],
) -> dict[str, Any]:
    """Save the document of an earlier revision again."""
    _check_revision(web, ref, revision)
    address = address_of(request)
    return _saved(
        web, lambda: web.catalog.rollback(ref, body.to, who.actor, revision=revision, address=address), response
    )


@router.get("/jobs/{ref}", dependencies=[Depends(VIEWER)])
def get(web: TheWeb, ref: Ref, response: Response) -> dict[str, Any]:
    """One job; its ETag is its revision."""
    view = web.catalog.get(ref)
    if view.deleted_at is not None:
        raise NotFound(f"There is no job {ref}", why="it was deleted", hint="its runs are at /api/v1/runs?job=<id>")
    return _job(web, view, response)


@router.put("/jobs/{ref}", dependencies=[Depends(ADMIN)], openapi_extra=_DOCUMENT)
def update(
    web: TheWeb,
    who: Who,
    request: Request,
    ref: Ref,
    response: Response,
    revision: IfMatch,
    document: Annotated[dict[str, Any], Depends(json_object)],
) -> dict[str, Any]:
    """Replace the document. `If-Match` names the revision it was made from. 202: saved, live when etcd is back."""
    _check_revision(web, ref, revision)
    address = address_of(request)
    return _saved(web, lambda: web.catalog.update(ref, document, revision, who.actor, address=address), response)


@router.delete("/jobs/{ref}", status_code=204, dependencies=[Depends(ADMIN)])
def delete(web: TheWeb, who: Who, request: Request, ref: Ref, revision: MaybeIfMatch) -> None:
    """Delete the job; its history stays. It fires no more, at once or as soon as etcd is back."""
    _check_revision(web, ref, revision)
    try:
        web.catalog.delete(ref, who.actor, revision=revision, address=address_of(request))
    except SavedNotLive:
        return
