"""`crony accept`: the last command of a shell job that handed its work over and will be answered later."""

from __future__ import annotations

from pathlib import Path

import click

from crony.errors import Invalid

VARIABLE = "CRONY_CALLBACK_ACCEPT_FILE"


@click.command()
@click.option("--file", envvar=VARIABLE, hidden=True)
def accept(file: str | None) -> None:
    """Say that the work of this shell job goes on elsewhere; its callee reports how it went.

    For jobs with an `async` section. The run waits from the moment the job's command exits with 0.
    """
    if not file:
        hint = "call it in the command of a job that has an `async` section"
        raise Invalid(VARIABLE, "is not set, so nobody would wait", hint=hint)
    Path(file).touch(mode=0o600)
