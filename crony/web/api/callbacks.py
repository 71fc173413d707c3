"""`/api/v1/runs/{run}/attempts/{attempt}:…`: the callee of an asynchronous run says how it goes, and once how it went.

The contract is docs/reference/callbacks.md.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from crony.domain.callback import Report, Token
from crony.lifecycle.complete import Told, complete
from crony.lifecycle.heartbeat import Sign
from crony.web import callbacks
from crony.web.api.jobs import TheWeb
from crony.web.api.query import no_unknown
from crony.web.api.runs import check_run
from crony.web.auth import ATTEMPT
from crony.web.forms import body_schema, json_model
from crony.web.metrics import TimedRoute
from crony.web.wiring import Web

router = APIRouter(prefix="/api/v1", tags=["callbacks"], route_class=TimedRoute, dependencies=[Depends(no_unknown)])


class Nothing(BaseModel):
    """No fields."""

    model_config = ConfigDict(extra="forbid")


class Progress(Nothing):
    """How far the work is; what is not given stays as it was."""

    percent: Annotated[float, Field(ge=0, le=100)] | None = None
    message: Annotated[str, Field(max_length=500)] | None = None


class Text(Nothing):
    """A piece of output. `offset`: bytes of text sent before it, so that sending it again does no harm."""

    text: str
    stream: Literal["stdout", "stderr"] = "stdout"
    offset: Annotated[int, Field(ge=0, lt=2**53)] | None = None


class Completed(Nothing):
    """It went well."""

    result: Any = None


class Failed(Nothing):
    """It went badly. `final`: no further attempt shall follow."""

    reason: Annotated[str, Field(min_length=1)]
    code: Annotated[int, Field(ge=-(2**31), lt=2**31)] | None = None
    final: bool = False


class Standing(BaseModel):
    """How the attempt stands. `cancel`: stop working."""

    state: Literal["running", "ended"]
    outcome: str | None
    cancel: bool


class Stored(Standing):
    """`have`: bytes of text that are stored, or were passed over as too many."""

    have: int


STANDING: dict[int | str, dict[str, Any]] = {200: {"model": Standing}}


async def _token(web: TheWeb, request: Request, run: str) -> Token:
    check_run(run)
    found: Token = request.state.token
    web.callees.check(found.digest)
    return found


TheToken = Annotated[Token, Depends(_token)]
N = Annotated[int, Path(ge=1, le=2**31 - 1)]


def _answer(told: Told) -> dict[str, Any]:
    return {"state": told.state, "outcome": told.outcome or None, "cancel": told.cancel}


def _end(web: Web, run: str, attempt: int, token: Token, report: Report) -> dict[str, Any]:
    archive = callbacks.archived(web, run, attempt)
    told = complete(web.client, web.keys, run, attempt, token, report, archive=archive, hide=web.hiding.report)
    web.live.forget()
    return _answer(told)


@router.post(
    "/runs/{run}/attempts/{attempt}:heartbeat",
    openapi_extra=body_schema(Nothing),
    dependencies=[Depends(ATTEMPT)],
    responses=STANDING,
)
async def beat(
    web: TheWeb, run: str, attempt: N, token: TheToken, body: Annotated[Nothing, Depends(json_model(Nothing))]
) -> dict[str, Any]:
    """The callee is alive. The answer says whether it is to go on."""
    archive = callbacks.archived(web, run, attempt)
    return _answer(await web.beats.hear(run, attempt, token, Sign(), archive=archive))


@router.post(
    "/runs/{run}/attempts/{attempt}:progress",
    openapi_extra=body_schema(Progress),
    dependencies=[Depends(ATTEMPT)],
    responses=STANDING,
)
async def progress(
    web: TheWeb, run: str, attempt: N, token: TheToken, body: Annotated[Progress, Depends(json_model(Progress))]
) -> dict[str, Any]:
    """The callee is alive, and so far."""
    archive = callbacks.archived(web, run, attempt)
    sign = Sign(body.percent, body.message)
    return _answer(await web.beats.hear(run, attempt, token, sign, archive=archive))


@router.post(
    "/runs/{run}/attempts/{attempt}:log",
    openapi_extra=body_schema(Text),
    dependencies=[Depends(ATTEMPT)],
    responses={200: {"model": Stored}},
)
def log(
    web: TheWeb, run: str, attempt: N, token: TheToken, body: Annotated[Text, Depends(json_model(Text))]
) -> dict[str, Any]:
    """Append text to the attempt's output; `have` is how many bytes of text the callee has sent."""
    told, have = callbacks.log(web, run, attempt, token, body.text, body.offset)
    return {**_answer(told), "have": have}


@router.post(
    "/runs/{run}/attempts/{attempt}:complete",
    openapi_extra=body_schema(Completed),
    dependencies=[Depends(ATTEMPT)],
    responses=STANDING,
)
def completed(
    web: TheWeb, run: str, attempt: N, token: TheToken, body: Annotated[Completed, Depends(json_model(Completed))]
) -> dict[str, Any]:
    """The attempt has succeeded. Repeated word for word it gets the same answer; 409: it has ended otherwise."""
    return _end(web, run, attempt, token, Report(True, result=body.result))


@router.post(
    "/runs/{run}/attempts/{attempt}:fail",
    openapi_extra=body_schema(Failed),
    dependencies=[Depends(ATTEMPT)],
    responses=STANDING,
)
def failed(
    web: TheWeb, run: str, attempt: N, token: TheToken, body: Annotated[Failed, Depends(json_model(Failed))]
) -> dict[str, Any]:
    """The attempt has failed; the job's retry policy decides what follows, unless `final`."""
    report = Report(False, reason=body.reason, code=body.code, final=body.final)
    return _end(web, run, attempt, token, report)
