"""The error tree: each branch answers one question of the caller. No message holds a token or a secret.

CronyError
├── Invalid         my own input is wrong; nothing was sent
├── NotACall        this request or environment is none of Crony's
├── BadSignature    the call is not signed, or not by somebody who knows the secret, or not just now
├── Unavailable     the platform could not be asked; `sent` says whether the request may have arrived
│   └── Undelivered a report could not be delivered and is kept nowhere
├── Refused         the platform said no (4xx), and will say so again
│   ├── Unauthorized    401, 403: not this token, or not any more
│   ├── NotFound        404
│   ├── Conflict        409: the attempt has ended otherwise, or a later one is under way
│   └── TooLarge        413
├── TimedOut        I stopped waiting; what I waited for goes on
├── Cancelled       the platform wants the work to stop
└── Failed          raised by a handler: the work has failed, for this reason
    └── GaveUp      the retries inside the service are used up
"""

from __future__ import annotations


class CronyError(Exception):
    """Root of everything the SDK raises on purpose."""


class Invalid(CronyError, ValueError):
    """Raised when an argument is wrong: `field` names it. Nothing was sent or stored."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field, self.problem = field, problem


class NotACall(CronyError):
    """Raised when headers, metadata or environment do not hold the facts of a call by Crony."""


class BadSignature(CronyError):
    """Raised when a call must not be trusted. `reason` is `missing`, `malformed`, `expired` or `mismatch`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Unavailable(CronyError):
    """Raised when the platform cannot be reached, is overloaded, or does not answer like Crony. Trying again may help.

    `sent` is true when the request may have been carried out; `retry_after` is the platform's wish in seconds, or None;
    `status` is None unless Crony itself has answered.
    """

    def __init__(
        self, message: str, *, sent: bool = False, retry_after: float | None = None, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.sent, self.retry_after, self.status = sent, retry_after, status


class Undelivered(Unavailable):
    """Raised when a report did not reach the platform in time and no spool keeps it."""


class Refused(CronyError):
    """Raised when the platform refuses a request for good: `status`, and `detail` in its words."""

    def __init__(self, message: str, *, status: int, detail: str = "", field: str = "") -> None:
        super().__init__(message)
        self.status, self.detail, self.field = status, detail, field


class Unauthorized(Refused):
    """Raised when the token is not accepted, or not for this (401, 403)."""


class NotFound(Refused):
    """Raised when there is no such thing (404)."""


class Conflict(Refused):
    """Raised when something else stands (409).

    For a report: `outcome` is how the attempt ended (None: not known any more), `attempt` the latest one of the run.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 409,
        detail: str = "",
        field: str = "",
        outcome: str | None = None,
        attempt: int | None = None,
    ) -> None:
        super().__init__(message, status=status, detail=detail, field=field)
        self.outcome, self.attempt = outcome, attempt


class TooLarge(Refused):
    """Raised when a body is larger than is taken (413)."""


class TimedOut(CronyError):
    """Raised when the caller's own patience ended."""


class Cancelled(CronyError):
    """Raised by `check()` when the platform wants the work to stop."""


class Failed(CronyError):
    """Raise it in a handler to say how the work failed.

    `code` is any whole number of 32 bits; `final` asks the platform for no further attempt.
    """

    def __init__(self, reason: str, *, code: int | None = None, final: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.code, self.final = reason, code, final


class GaveUp(Failed):
    """Raised when the retries inside the service are used up; final, so that the platform does not begin anew."""
