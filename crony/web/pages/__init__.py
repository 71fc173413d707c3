"""The console's pages: server-rendered, working without script; htmx and a small module make them live."""

from __future__ import annotations

from fastapi import APIRouter

from crony.web.pages import (
    account,
    alerts,
    backfills,
    calendars,
    chains,
    channels,
    jobs,
    nodes,
    pools,
    runs,
    secrets,
    services,
    signin,
)
from crony.web.pages import job_form as forms

_PARTS = (
    signin, forms, jobs, backfills, chains, runs, alerts, calendars, channels, pools, secrets, nodes, services, account,
)  # fmt: skip
router = APIRouter(include_in_schema=False)
for part in _PARTS:
    router.include_router(part.router)

__all__ = ["router"]
