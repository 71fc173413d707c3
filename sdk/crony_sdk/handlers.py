"""What a service can do: functions by name, and what each of them is given."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from crony_sdk.completion import Completion
from crony_sdk.contract import Call
from crony_sdk.errors import Cancelled, Invalid
from crony_sdk.retry import Retry

log = logging.getLogger("crony_sdk")
Function = TypeVar("Function", bound=Callable[..., Any])


class Context:
    """What a handler is given: the call, its parameters, and the way to report while it works."""

    def __init__(
        self,
        call: Call,
        params: dict[str, Any],
        body: bytes = b"",
        completion: Completion | None = None,
        *,
        background: bool = False,
    ) -> None:
        self.call, self.params, self.body, self.completion = call, params, body, completion
        self.background, self._cancelled = background, threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether the work should stop. An HTTP call that is answered at once never learns of a cancel."""
        return self._cancelled.is_set() or (self.completion is not None and self.completion.cancelled)

    @property
    def left(self) -> float | None:
        """Seconds until the answer is due, the report of background work; None: not said."""
        return self.call.report_left if self.background else self.call.answer_left

    def check(self) -> None:
        """Raises `Cancelled` when the work should stop."""
        if self.cancelled:
            raise Cancelled(f"run {self.call.run}, attempt {self.call.attempt} should stop")

    def progress(self, percent: float | None = None, message: str | None = None) -> None:
        """How far it is. Only a call with a callback can show it."""
        if self.completion is not None:
            self.completion.progress(percent, message)

    def log(self, text: str, stream: str = "stdout") -> None:
        """A line for the run's output; of a call without a callback it goes to the service's own log."""
        if self.completion is not None:
            self.completion.log(text if text.endswith("\n") else text + "\n", stream)
        else:
            log.info("%s: %s", self.call.run, text.rstrip("\n"))

    def retry(self, function: Callable[[], Any], policy: Retry | None = None) -> Any:
        """Call `function` until it works, within the time that is left; raises `GaveUp`, which is final."""
        return (policy or Retry()).run(
            function, times=self.call.retry_max, left=lambda: self.left, wait=self.wait_cancelled, check=self.check
        )

    def wait_cancelled(self, timeout: float) -> bool:
        """Sleep, but not longer than until a cancel; whether there was one."""
        if self.completion is not None:
            return self.completion.wait_cancelled(timeout)
        return self._cancelled.wait(max(0.0, timeout))

    def cancel(self) -> None:
        """Ask the work to stop, from our side."""
        self._cancelled.set()
        if self.completion is not None:
            self.completion.cancel()


@dataclass(frozen=True)
class Handler:
    """A function with its name, and how it is run."""

    name: str
    function: Callable[[Context], Any]
    background: bool
    retry: Retry | None

    def __call__(self, context: Context) -> Any:
        """Run it, with its retries."""
        if self.retry is None:
            return self.function(context)
        return context.retry(lambda: self.function(context), self.retry)


class Handlers:
    """Handlers by name."""

    def __init__(self) -> None:
        self._by_name: dict[str, Handler] = {}

    def __call__(
        self, name: str, *, background: bool = False, retry: Retry | None = None
    ) -> Callable[[Function], Function]:
        """Register a function of one argument, the `Context`; what it returns is the result, as JSON.

        `background`: answer 202 at once and work in the service's pool; the job has to be `async`. `retry`: try again
        inside the service, and report only the final failure.
        """
        if not name or name != name.strip("/") or len(name) > 255:
            raise Invalid("name", "must be 1 to 255 characters, without a slash at either end")
        if name in self._by_name:
            raise Invalid("name", f"there is a handler {name!r} already")

        def register(function: Function) -> Function:
            if inspect.iscoroutinefunction(function):
                raise Invalid("handler", f"{name} is a coroutine function; handlers are plain functions")
            self._by_name[name] = Handler(name, function, background, retry)
            return function

        return register

    def get(self, name: str) -> Handler | None:
        """The handler of this name."""
        return self._by_name.get(name)

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(sorted(self._by_name))


handler = Handlers()
"""The handlers that a `Service` serves unless told otherwise: `@crony_sdk.handler("close-day")`."""
