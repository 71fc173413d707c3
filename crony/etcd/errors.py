"""What can go wrong with etcd, sorted by what the caller may do next."""

from __future__ import annotations

from crony.errors import Conflict, CronyError, Forbidden, Unavailable, Unknown


class EtcdUnavailable(Unavailable):
    """No etcd member took the request within its deadline: it was certainly not carried out."""


class EtcdUnknown(Unknown):
    """The request was sent and its answer lost: read before you retry."""


class NoSpace(Unavailable):
    """etcd reached its space quota and refuses writes; nothing was changed."""


class AuthFailed(Forbidden):
    """etcd refused the user, the password or the permission; nothing was changed.

    Ours, not those of who asks us: to him it is a part that is away. A callee that were told 403 would give up.
    """

    status = 503


class Compacted(CronyError):
    """The revision asked for has been compacted away; `revision` is the oldest still there (0: not said)."""

    status = 409

    def __init__(self, what: str = "the revision has been compacted", *, revision: int = 0) -> None:
        super().__init__(what, hint="list again")
        self.revision = revision


class BadRequest(CronyError):
    """etcd refused the request as malformed, too large or impossible; nothing was changed."""


class LeaseGone(BadRequest):
    """The lease that the request names does not exist any more; nothing was changed."""


class OuterRefused(Conflict):
    """The outer compares of a batch did not hold: nothing of the batch was carried out."""
