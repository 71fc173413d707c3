"""The REST API under `/api/v1`: complete by itself; the pages call the same functions."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from crony.web.api import (
    alerts,
    backfills,
    calendars,
    callbacks,
    centres,
    chains,
    channels,
    control,
    health,
    ingest,
    jobs,
    nodes,
    pools,
    secrets,
    services,
    tokens,
)
from crony.web.api import runs as run_routes
from crony.web.api.query import no_unknown

router = APIRouter()
router.include_router(health.router)
callees = callbacks.router
"""The calls of callees, of which there are most: by itself, so that none of them is compared with every other route."""
_versioned = APIRouter(prefix="/api/v1", dependencies=[Depends(no_unknown)])
for _part in (
    jobs.router,
    chains.router,
    run_routes.router,
    backfills.router,
    alerts.router,
    control.router,
    calendars.router,
    pools.router,
    secrets.router,
    channels.router,
    nodes.router,
    services.router,
    centres.router,
    tokens.router,
    ingest.router,
    health.v1,
):
    _versioned.include_router(_part)
router.include_router(_versioned)

__all__ = ["callees", "router"]
