"""The error tree: each branch answers one question of the caller.

CronyError
├── Invalid        my input is wrong: which field, why, what to write instead
├── NotFound       it is not there
├── Forbidden      I may not (or have not said who I am)
├── Conflict       somebody else changed it first, or it exists already
├── TimedOut       I stopped waiting; nothing was decided
├── Unavailable    a dependency is away; nothing was changed, try again later
├── Unknown        the request was sent and its answer lost: it may have happened; read before you retry
└── Halted         continuing could break a promise; a person must act
"""

from __future__ import annotations


class CronyError(Exception):
    """Root of everything Crony raises on purpose: `what` happened, `why`, and what to `hint` (try)."""

    status = 500
    exit_code = 1

    def __init__(self, what: str, *, why: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.hint = what, why, hint

    def __str__(self) -> str:
        return ". ".join(part.rstrip(".") for part in (self.what, self.why, self.hint) if part)


class Invalid(CronyError):
    """Input was refused; nothing was stored. `field` is its path, such as `schedule.cron` or `retry.max`."""

    status = 422
    exit_code = 2

    def __init__(self, field: str, why: str, *, hint: str = "") -> None:
        super().__init__(f"{field}: {why}" if field else why, hint=hint)
        self.field, self.problem = field, why


class NotFound(CronyError):
    """What was asked for does not exist."""

    status = 404
    exit_code = 3


class Forbidden(CronyError):
    """Not signed in (`status` 401) or not allowed (403)."""

    status = 403
    exit_code = 4


class Conflict(CronyError):
    """The record changed since it was read, or the name is taken."""

    status = 409
    exit_code = 5


class TimedOut(CronyError):
    """The caller's own deadline passed while waiting; the thing waited for goes on."""

    status = 504
    exit_code = 7


class Unavailable(CronyError):
    """A dependency cannot be reached and the request was certainly not carried out."""

    status = 503
    exit_code = 8


class Unknown(CronyError):
    """The request was sent but its answer was lost: it may or may not have been carried out."""

    status = 503
    exit_code = 8


class Halted(CronyError):
    """Going on could break a promise (a restored store, say): a person must decide."""

    status = 503
    exit_code = 1
