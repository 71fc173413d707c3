"""Chains: which jobs run after which, and the runs of one chain."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends

from crony.web import chains
from crony.web.api.jobs import TheWeb
from crony.web.api.query import Ref
from crony.web.api.runs import check_run
from crony.web.auth import VIEWER

router = APIRouter(tags=["chains"])


@router.get("/jobs/{ref}/graph", dependencies=[Depends(VIEWER)])
def graph(web: TheWeb, ref: Ref) -> dict[str, Any]:
    """The jobs that a job is connected with: whom it runs after, who runs after it, with their last runs."""
    return chains.graph_body(web, web.catalog.get(ref))


@router.get("/runs/{run}/chain", dependencies=[Depends(VIEWER)])
def chain(web: TheWeb, run: str) -> dict[str, Any]:
    """The runs of the chain that a run is in, and of jobs that did not run in it the records why."""
    check_run(run)
    return chains.chain_body(chains.chain_of(web, run))
