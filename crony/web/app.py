"""The web application: `create_app(settings)` wires guard, routes and error answers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from crony.errors import CronyError, NotFound
from crony.lifecycle.standing import NotTheirs
from crony.settings import Settings
from crony.web import api, pages, problems
from crony.web.auth import PUBLIC, check_routes
from crony.web.guard import Guard
from crony.web.static_files import static_files
from crony.web.wiring import Web

log = logging.getLogger("crony.web")


def create_app(settings: Settings, *, web: Web | None = None) -> FastAPI:
    """The application for `settings`. Raises `Invalid` for settings it cannot work with; connects to nothing yet."""
    parts = web or Web(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        health = await run_in_threadpool(parts.health)
        for name in health.away:
            log.warning("%s is away at start; pages say so until it is back", name)
        yield
        parts.close()

    app = FastAPI(
        title="Crony", version=parts.version, lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None,
        separate_input_output_schemas=False, redirect_slashes=False,
    )  # fmt: skip
    app.state.web = parts
    app.add_middleware(Guard)
    for kind in (CronyError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _answer)
    app.include_router(api.callees)
    app.include_router(api.router)
    app.include_router(pages.router)

    @app.get("/static/{name:path}", dependencies=[Depends(PUBLIC)], include_in_schema=False)
    def static(name: str, request: Request) -> Response:
        """The console's own files."""
        return static_files().response(name, request)

    check_routes(app)
    return app


def _answer(request: Request, error: Exception) -> Response:
    """An error as a problem for programs, as a page for people."""
    if isinstance(error, HTTPException):
        found = NotFound("There is nothing at this address") if error.status_code == 404 else CronyError(error.detail)
        found.status = error.status_code
    else:
        found = problems.as_error(error)
    path = request.scope["path"]
    if isinstance(found, NotTheirs):
        log.warning("a call to %s came with a token that is not that attempt's", path)
    if found.status == 503:
        request.app.state.web.health()  # a web that nobody else asks finds out by this that etcd was recovered
    answer = _chosen(request, path, found)
    if isinstance(error, HTTPException) and error.headers:
        answer.headers.update({key.lower(): value for key, value in error.headers.items()})
    return answer


def _chosen(request: Request, path: str, found: CronyError) -> Response:
    if problems.is_for_programs(path):
        return problems.response(found)
    if found.status == 401 and not path.startswith("/signin"):
        return _to_sign_in(request)
    web: Web = request.app.state.web
    return web.render.error(request, found)


def _to_sign_in(request: Request) -> Response:
    target, path = "/signin", request.scope["path"]
    if request.method == "GET" and "hx-request" not in request.headers and path != "/":
        query = request.scope.get("query_string", b"").decode("latin-1")
        target += "?next=" + quote(f"{path}?{query}" if query else path, safe="")
    if "hx-request" in request.headers:
        return Response(None, 401, headers={"HX-Redirect": target})
    return RedirectResponse(target, 303)
