"""`crony apply`: make the platform's jobs agree with those that a module declares."""

from __future__ import annotations

import difflib
import os
import sys
from importlib import import_module
from typing import Any

import click
import yaml

from crony.cli import show
from crony.cli.api import Api, api_option, segment
from crony.cli.documents import parents_first
from crony.cli.show import output_option
from crony.domain.job import parse
from crony.errors import Conflict, CronyError, Invalid, NotFound

MARK = "code:"
"""A tag that begins so names the module that a job was declared in."""
_KEPT = ("enabled", "paused_until")
"""Stays as people have set it, unless the declaration says it."""


@click.command()
@click.option("--from", "modules", multiple=True, required=True, metavar="MODULE", help="May be repeated.")
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option("--prune", is_flag=True, help="Delete jobs that the module declared once and does not any more.")
@click.option("--adopt", is_flag=True, help="Take over jobs of these names that were not declared in the module.")
@click.option("--yes", is_flag=True, help="With --prune: do not ask.")
@api_option
@output_option
def apply(modules: tuple[str, ...], dry_run: bool, prune: bool, adopt: bool, yes: bool, api: Api, form: str) -> None:
    """Make the jobs that MODULE declares (`@crony.job`) those of the platform. Applying again changes nothing."""
    plans = [plan for module in modules for plan in plan_of(api, module, adopt=adopt)]
    extra = [row for module in modules for row in surplus(api, module)] if prune else []
    if extra and not dry_run and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("Nobody is there to ask: say --yes to delete without asking.")
        click.confirm(f"Delete {', '.join(show.plain(row['name']) for row in extra)}?", abort=True, err=True)
    rows = []
    for plan in plans:
        if form != "json":
            for line in plan["diff"]:
                click.echo(show.plain(line))
        if not dry_run and plan["result"] != "unchanged":
            _carry_out(api, plan)
        rows.append({"name": plan["name"], "result": _tense(plan["result"], dry_run), "diff": plan["diff"]})
    for row in extra:
        if not dry_run:
            api.call("DELETE", f"jobs/{segment(row['id'])}")
        rows.append({"name": row["name"], "result": _tense("deleted", dry_run), "diff": []})
    if form == "json":
        return show.data(rows)
    show.table(("JOB", "RESULT"), [(row["name"], row["result"]) for row in rows], empty="no jobs")
    if any(plan["result"] == "created" for plan in plans):
        show.hint(f"nodes and centres need CRONY_IMPORTS to name {', '.join(modules)}")


def _tense(result: str, dry_run: bool) -> str:
    return f"would be {result}" if dry_run and result != "unchanged" else result


def documents_of(module: str) -> list[dict[str, Any]]:
    """What the module declares, marked as its own, in normal form. Raises `Invalid`."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        import_module(module)
    except Exception as error:
        why = f"{module} cannot be imported: {type(error).__name__}: {error}"
        raise Invalid("--from", why[:300], hint="write the module's dotted name, as in CRONY_IMPORTS") from None
    from crony.declare import declared

    found = declared(module)
    if not found:
        raise Invalid("--from", f"{module} declares no jobs", hint="mark its functions with @crony.job(name=…)")
    made = []
    for document in found:
        tags = [*document.get("tags", ()), MARK + module]
        try:
            whole = parse({**document, "tags": tags}).document()
        except Invalid as error:
            where = f"{document['name']}: {error.field}" if error.field else str(document["name"])
            raise Invalid(where, error.problem, hint=error.hint) from None
        made.append({name: value for name, value in whole.items() if name not in _KEPT or name in document})
    return parents_first(made)


def plan_of(api: Api, module: str, *, adopt: bool) -> list[dict[str, Any]]:
    """For each declared job: name, result (created, changed, unchanged), document, what it was made from, diff."""
    plans = []
    for document in documents_of(module):
        name = str(document["name"])
        try:
            found = api.get(f"jobs/{segment(name)}")
        except NotFound:
            plans.append(_plan("created", name, {}, document, None))
            continue
        now = parse(found["document"]).document()
        if MARK + module not in (now.get("tags") or ()) and not adopt:
            why = f"it was not declared in {module}"
            raise Conflict(f"There is a job {name} already", why=why, hint="rename yours, or take it over with --adopt")
        wanted = {**{field: now[field] for field in _KEPT if now.get(field) is not None}, **document}
        wanted = parse(wanted).document()
        plans.append(_plan("unchanged" if wanted == now else "changed", name, now, wanted, found))
    return plans


def _plan(result: str, name: str, now: dict[str, Any], then: dict[str, Any], found: Any) -> dict[str, Any]:
    before, after = (
        yaml.safe_dump(each, sort_keys=True, allow_unicode=True).splitlines() if each else [] for each in (now, then)
    )
    diff = list(difflib.unified_diff(before, after, f"{name} (now)", f"{name} (declared)", lineterm="", n=2))
    return {"result": result, "name": name, "document": then, "found": found, "diff": diff}


def surplus(api: Api, module: str) -> list[dict[str, Any]]:
    """The jobs that bear the module's mark and that it does not declare."""
    declared = {str(document["name"]) for document in documents_of(module)}
    marked = [
        row
        for row in api.pages("jobs", limit=100_000, q=MARK + module)
        if MARK + module in (row["document"].get("tags") or ()) and row["name"] not in declared
    ]
    # The last first: a job that others run after is deleted behind those.
    order = [str(each["name"]) for each in parents_first(row["document"] for row in marked)]
    return sorted(marked, key=lambda row: -order.index(str(row["name"])))


def _carry_out(api: Api, plan: dict[str, Any]) -> None:
    try:
        if plan["found"] is None:
            api.call("POST", "jobs", body=plan["document"])
        else:
            path, revision = f"jobs/{segment(plan['found']['id'])}", plan["found"]["revision"]
            api.call("PUT", path, body=plan["document"], revision=revision)
    except CronyError:
        show.hint(f"{show.plain(plan['name'])} was not saved; those above were")
        raise
