"""Services: who has registered, where, in which share, and how it says it is."""

from __future__ import annotations

from urllib.parse import unquote

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from crony.domain.service import Instance
from crony.errors import Unavailable
from crony.lifecycle.enlist import instances
from crony.web.api.services import remove
from crony.web.auth import OPERATOR, VIEWER, address_of
from crony.web.forms import only
from crony.web.pages.common import Form, TheWeb, Who, go

router = APIRouter()


@router.get("/services", dependencies=[Depends(VIEWER)])
def page(web: TheWeb, request: Request) -> Response:
    """Every service with its instances."""
    away: list[Unavailable] = []
    services: dict[str, list[Instance]] = {}
    try:
        for each in instances(web.client, web.keys):
            services.setdefault(each.service, []).append(each)
    except Unavailable as error:
        away.append(error)
    return web.render.page(
        request, "services.html", away=away, section="services", services=services,
        address=str(request.base_url).rstrip("/"),
    )  # fmt: skip


@router.post("/services/{service}/{instance}", dependencies=[Depends(OPERATOR)])
def deregister(web: TheWeb, who: Who, request: Request, service: str, instance: str, form: Form) -> Response:
    """Take an instance off."""
    only(form)
    remove(web, who, unquote(service), unquote(instance), address_of(request))
    return go("/services", "service")
