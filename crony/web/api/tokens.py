"""`/api/v1/tokens` and `/me`: API tokens are made by administrators and shown once."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from crony.store import accounts, audit
from crony.web import platform_shapes
from crony.web.api.jobs import TheWeb, Who
from crony.web.api.query import Cursor, Limit
from crony.web.auth import ADMIN, ANYBODY
from crony.web.forms import body_schema, json_model

router = APIRouter(tags=["access"])


class NewToken(BaseModel):
    """What a new token is for."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=100)]
    scope: Literal["admin", "operator", "viewer", "node", "service"]
    days: Annotated[int, Field(ge=1, le=3650)] | None = None
    """How long it works; null: until revoked."""


@router.get("/me", dependencies=[Depends(ANYBODY)])
def me(who: Who) -> dict[str, Any]:
    """Who these credentials speak for."""
    return {"kind": who.principal.kind, "name": who.name, "role": who.role}


@router.get("/tokens", dependencies=[Depends(ADMIN)])
def tokens(web: TheWeb) -> dict[str, Any]:
    """Every token, without secrets."""
    return {"items": [platform_shapes.token(token) for token in accounts.tokens(web.db)], "next_cursor": None}


@router.post("/tokens", status_code=201, dependencies=[Depends(ADMIN)], openapi_extra=body_schema(NewToken))
def create(web: TheWeb, who: Who, body: Annotated[NewToken, Depends(json_model(NewToken))]) -> dict[str, Any]:
    """Make a token; `secret` is in this answer and nowhere else."""
    lasts = None if body.days is None else body.days * 86400.0
    secret, view = accounts.create_token(web.db, body.name, body.scope, actor=who.actor, lasts=lasts)
    return {**platform_shapes.token(view), "secret": secret}


@router.delete("/tokens/{token}", status_code=204, dependencies=[Depends(ADMIN)])
def revoke(web: TheWeb, who: Who, token: str) -> None:
    """End a token now."""
    accounts.revoke_token(web.db, token, actor=who.actor)


@router.get("/audit", dependencies=[Depends(ADMIN)])
def entries(web: TheWeb, limit: Limit = None, cursor: Cursor = None) -> dict[str, Any]:
    """Who did what, newest first."""
    page = audit.list_entries(web.db, limit=limit, cursor=cursor)
    return {"items": [platform_shapes.entry(item) for item in page.items], "next_cursor": page.next_cursor}
