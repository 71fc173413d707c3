"""One line for Django: `path("crony/<path:name>", crony_sdk.django.view(service))` among the `urlpatterns`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse

from crony_sdk import asgi
from crony_sdk.service import Request, Service
from crony_sdk.wsgi import target_of


def view(service: Service) -> Callable[[HttpRequest, str], HttpResponse]:
    """A view that serves the handlers by name. Calls are known by their signature, so it is exempt from CSRF."""

    def crony(request: HttpRequest, name: str) -> HttpResponse:
        headers = {str(key): str(value) for key, value in request.headers.items()}
        response = service.answer(Request(str(request.method), _target(request), name, headers, request.body))
        return HttpResponse(response.body, status=response.status, headers=dict(response.headers))

    crony.csrf_exempt = True  # type: ignore[attr-defined]
    return crony


def _target(request: Any) -> str:
    """Path and query as sent: ASGI tells the raw path, most WSGI servers the raw target."""
    scope = getattr(request, "scope", None)
    if scope and scope.get("raw_path"):
        return asgi.target_of(scope)
    return target_of(request.META, str(request.path))
