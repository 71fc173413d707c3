"""Chains in the console: the graph on a job's page, and the page of one chain."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from markupsafe import Markup
from starlette.responses import Response

from crony.catalog.chains import Around
from crony.store import runs as archive
from crony.web.api.runs import check_run
from crony.web.auth import VIEWER
from crony.web.chains import chain_of
from crony.web.graph import Box, drawing
from crony.web.i18n import translator
from crony.web.pages.common import TheWeb
from crony.web.rendering import language
from crony.web.runs import Run
from crony.web.vocabulary import WORDS
from crony.web.wiring import Web

router = APIRouter()


def job_graph(web: Web, request: Request, jobs: Around, here: str) -> Markup | None:
    """The jobs that one is connected with, by how their last runs ended; None: there are none."""
    if not jobs.members:
        return None
    _ = translator(language(request))
    last = archive.last_runs(web.db, [member.id for member in jobs.members])
    boxes = []
    for member in jobs.members:
        outcome = last[member.id][0].outcome if member.id in last else ""
        words = _(WORDS[outcome]) if outcome in WORDS else _("It has not run yet")
        boxes.append(
            Box(
                member.id, member.name, words if member.enabled else f"{words} · {_('paused')}", outcome,
                f"/jobs/{member.id}", member.parents, member.on == "failure", member.id == here,
            )
        )  # fmt: skip
    return drawing(boxes, _("Jobs that run after each other"))


@router.get("/runs/{run}/chain", dependencies=[Depends(VIEWER)])
def page(web: TheWeb, request: Request, run: str) -> Response:
    """The runs of one chain: drawn, and as a list with the reasons."""
    check_run(run)
    found = chain_of(web, run)
    _ = translator(language(request))
    graph = drawing(
        [
            Box(
                each.id, each.job_name, _(WORDS[each.status]) if each.status in WORDS else each.status, each.status,
                f"/runs/{each.id}", _followed(each, found.runs, found.jobs), here=each.id == run,
            )
            for each in found.runs
        ],
        _("Runs of the chain"),
    )  # fmt: skip
    return web.render.page(
        request, "chain.html", away=found.away, section="runs", chain=found, run=run, graph=graph,
        live=any(each.live for each in found.runs),
    )  # fmt: skip


def _followed(run: Run, runs: list[Run], jobs: Around) -> tuple[str, ...]:
    """The runs of its parents in the chain; where the graph says nothing of them, the one whose end it followed."""
    member = next((each for each in jobs.members if each.id == run.job), None)
    if not run.cause:
        return ()
    above = [each.id for each in runs if member is not None and each.job in member.parents and len(member.parents) > 1]
    return tuple(dict.fromkeys([run.cause, *above]))
