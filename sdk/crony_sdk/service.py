"""The handlers as a service: one call in, one answer out, whatever web framework is around it."""

from __future__ import annotations

import atexit
import json
import logging
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from crony_sdk import contract, signing
from crony_sdk.completion import Completion
from crony_sdk.contract import Call
from crony_sdk.errors import (
    BadSignature,
    Conflict,
    CronyError,
    Failed,
    Invalid,
    NotACall,
    Refused,
    TooLarge,
    Unavailable,
)
from crony_sdk.handlers import Context, Handler, Handlers, handler
from crony_sdk.ledger import Ledger, Work
from crony_sdk.outbox import Outbox, open_outbox
from crony_sdk.pool import Pool
from crony_sdk.spool import Directory
from crony_sdk.wire import encode

log = logging.getLogger("crony_sdk")


@dataclass(frozen=True)
class Request:
    """A call as it came. `target` is path and query exactly as sent, `name` the handler's, decoded."""

    method: str
    target: str
    name: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)
    content: bytes | None = field(default=None, repr=False)
    """What the handler gets as its body, where that comes wrapped in something else."""

    @property
    def given(self) -> bytes:
        """The handler's body."""
        return self.body if self.content is None else self.content


@dataclass(frozen=True)
class Response:
    """What to answer."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    failure: Failed | None = field(default=None, compare=False)
    """With status 500: what the handler said, for those who can hand on more than a status."""


class Service:
    """Answers calls by its handlers. Safe to use from many threads; make one per process, or one before forking."""

    def __init__(
        self,
        *,
        secrets: Iterable[str] | None = None,
        unsigned: bool = False,
        platform: str | None = None,
        handlers: Handlers = handler,
        spool: str | os.PathLike[str] | Outbox | None = None,
        threads: int = 8,
        queue: int = 64,
        max_body: int = 1024 * 1024,
        window: float = signing.WINDOW,
        behind: str = "",
    ) -> None:
        """`secrets`: those of `CRONY_CALL_SECRETS`, which is also where they come from when not given; `unsigned`
        takes calls from anybody instead. `platform`: the only address that reports may go to. `spool`: a private
        directory for reports and for what has succeeded. `threads`, `queue`: how much background work runs and
        waits; beyond that a call gets 503. `behind`: the part of the path that a proxy in front has taken away.
        Raises `Invalid`.
        """
        given = signing.secrets_from_environ() if secrets is None and not unsigned else secrets or ()
        if unsigned and given:
            raise Invalid("unsigned", "cannot stand beside secrets")
        self._secrets = () if unsigned else signing.checked(given)
        self._platform = None if platform is None else contract.base_url(platform, "platform")
        self._handlers, self._max_body, self._window, self._behind = handlers, max_body, window, behind
        self.outbox = open_outbox(spool)
        store = self.outbox.store
        self._ledger = Ledger(store.path / "done" if isinstance(store, Directory) else None)
        self._pool = Pool(threads, queue)
        self._closing = False
        if self.outbox.durable:
            self.outbox.start()
        atexit.register(self.close)

    def answer(self, request: Request) -> Response:
        """Answer a call; never raises."""
        try:
            return self._answer(request)
        except BadSignature as error:
            log.warning("a call of %r is refused: %s", request.name[:100], error)
            return problem(401, str(error))
        except NotACall as error:
            return problem(400, str(error))
        except Conflict as error:
            return problem(409, str(error))
        except Exception:
            log.exception("a call of %r could not be answered", request.name[:100])
            return problem(500, "the SDK failed; see the log of the service")

    def cancel(self, request: Request) -> Response:
        """Ask the work of an attempt to stop, if it is under way here; never raises. Signed as a call is."""
        try:
            self._verify(request)
            self.hang_up(Call.from_headers(request.headers), background=True)
        except (BadSignature, NotACall) as error:
            return problem(401 if isinstance(error, BadSignature) else 400, str(error))
        return Response(200)

    def hang_up(self, call: Call, *, background: bool = False) -> None:
        """The caller waits for this attempt no longer; work in the background goes on unless it is meant, too."""
        for work in self._ledger.under_way():
            same = (work.call.run, work.call.attempt, work.call.fence) == (call.run, call.attempt, call.fence)
            if same and work.context is not None and (background or not work.context.background):
                work.context.cancel()

    def close(self, grace: float = 10.0) -> None:
        """Take nothing more, wait up to `grace` seconds for work under way, fail the rest so that it is tried again
        elsewhere, and deliver reports. Called at the end of the process."""
        if self._closing:
            return
        self._closing = True
        atexit.unregister(self.close)
        until = time.monotonic() + grace
        self._pool.close(grace)
        for work in self._ledger.under_way():
            if work.context is not None and work.context.completion is None:
                work.ended.wait(max(0.0, until - time.monotonic()))
        for work in self._ledger.under_way():
            if work.context is not None and work.context.completion is not None:
                work.context.cancel()
                _report(work.context.completion, error=Failed("the service was stopped before it was done"))
        self.outbox.flush(min(grace, 1.0 if self.outbox.durable else 5.0))

    # -- a call ----------------------------------------------------------------------------------

    def _answer(self, request: Request) -> Response:
        if len(request.body) > self._max_body:
            return problem(413, f"the body is larger than {self._max_body} bytes")
        self._verify(request)
        call = Call.from_headers(request.headers)
        if self._platform and call.callback and not call.callback.startswith(f"{self._platform}/"):
            return problem(403, "the callback does not lead to our Crony")
        found = self._handlers.get(request.name)
        if found is None:
            return problem(404, f"there is no handler {request.name!r} here")
        if self._closing:
            return _busy("the service is stopping")
        try:
            params = _params(request)
        except ValueError as error:
            return problem(400, f"the body cannot be read: {error}")
        completion = None
        if call.asynchronous:
            completion = Completion(call, spool=self.outbox, numbered=True)
        elif found.background:
            return problem(400, f"{request.name} works in the background: give the job `async: {{deadline: …}}`")
        context = Context(call, params, request.given, completion, background=found.background)
        return self._later(found, context) if found.background else self._now(found, context)

    def _verify(self, request: Request) -> None:
        if self._secrets:
            signing.verify(
                request.headers,
                request.body,
                method=request.method,
                target=self._behind + request.target,
                secrets=self._secrets,
                window=self._window,
            )

    def _now(self, found: Handler, context: Context) -> Response:
        work, what = self._ledger.enter(context.call, context)
        if what != "new":
            if not work.ended.wait(max(0.0, min(context.call.timeout or 60.0, 60.0))):
                return _busy("this attempt is under way")
            return _ok(work.result) if work.succeeded else work.answer or _busy("this attempt ended in another way")
        response = None
        try:
            result = found(context)
            response = _ok(result)
            self._ledger.succeed(work, result)
        except Exception as error:
            _told(found, context, error)
            if context.completion is not None and isinstance(error, Failed) and error.final:
                _report(context.completion, error=error)  # a status cannot say that it is final
            failure = error if isinstance(error, Failed) else None
            response = replace(problem(500, _reason(error)), failure=failure)
        finally:
            if context.completion is not None:
                context.completion.stop()
            self._ledger.leave(work, response)
        return response

    def _later(self, found: Handler, context: Context) -> Response:
        completion = context.completion
        assert completion is not None
        work, what = self._ledger.enter(context.call, context)
        if what == "same":
            return Response(202)
        completion.start()
        task = partial(self._work, found, context, work)
        if self._pool.submit(task if what == "new" else partial(_report, completion, work.result)):
            return Response(202)
        completion.stop()
        if what == "new":
            self._ledger.forget(work)
        return _busy("too much is waiting here")

    def _work(self, found: Handler, context: Context, work: Work) -> None:
        completion = context.completion
        assert completion is not None
        try:
            context.check()
            result = found(context)
            encode(result, "result")
            self._ledger.succeed(work, result)
            _report(completion, result)
        except Exception as error:
            _told(found, context, error)
            _report(completion, error=error)
        finally:
            completion.stop()
            self._ledger.leave(work)


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """An RFC 9457 document."""
    title = HTTPStatus(status).phrase
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail[:2000]}
    return Response(status, encode(body), {"Content-Type": "application/problem+json", **(headers or {})})


def _ok(result: Any) -> Response:
    return Response(200, encode(result, "result"), {"Content-Type": "application/json"})


def _busy(detail: str) -> Response:
    return problem(503, detail, {"Retry-After": "5"})


def _params(request: Request) -> dict[str, Any]:
    """The members of a JSON object; without one, the query."""
    if not request.given.strip():
        return dict(parse_qsl(request.target.partition("?")[2], keep_blank_values=True))
    kind = next((value for name, value in request.headers.items() if name.lower() == "content-type"), "")
    if "json" not in kind:
        return {}
    found = json.loads(request.given)
    return found if isinstance(found, dict) else {}


def _report(completion: Completion, result: Any = None, *, error: BaseException | None = None) -> None:
    """Report the end of background work; trouble with that is logged, there is nobody else to tell."""
    if completion.over and error is not None:
        return
    try:
        if error is not None:
            completion.fail_with(error)
            return
        try:
            completion.complete(result)
        except TooLarge as large:
            completion.fail(str(large), final=True)
    except (Refused, Unavailable) as trouble:
        log.error("the end of run %s, attempt %d: %s", completion.call.run, completion.call.attempt, trouble)


def _told(found: Handler, context: Context, error: BaseException) -> None:
    """Log a failure; with its traceback when the handler did not mean it."""
    meant = isinstance(error, CronyError)
    log.warning(
        "%s failed for run %s: %s", found.name, context.call.run, _reason(error), exc_info=None if meant else error
    )


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, CronyError) else f"{type(error).__name__}: {error}"
