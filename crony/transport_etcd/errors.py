"""The transport's errors, as Kombu and Celery sort them: of the connection or of the channel, recoverable or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kombu.exceptions import ChannelError

from crony.errors import CronyError, Forbidden, Invalid, Unavailable, Unknown


class BrokerUnavailable(ConnectionError):
    """etcd cannot be reached, or did not answer in time. Trying again may help."""


class SessionLost(BrokerUnavailable):
    """This process's lease ended: what it held may be taken over by others."""


class AccessRefused(ConnectionError):
    """etcd refused the user, the password or the settings. Trying again will not help."""


class QueueNotFound(ChannelError):  # type: ignore[misc]
    """The queue or exchange does not exist (AMQP 404)."""


class PreconditionFailed(ChannelError):  # type: ignore[misc]
    """What was asked for does not fit what is there: in use, not empty, an argument that cannot be (AMQP 406)."""


class NotEquivalent(PreconditionFailed):
    """Declared again with other properties (AMQP 406)."""


class Locked(ChannelError):  # type: ignore[misc]
    """The queue is exclusive to another process (AMQP 405)."""


class Refused(ChannelError):  # type: ignore[misc]
    """The request can never be carried out: message too large, run queue, unknown exchange type."""


CONNECTION_ERRORS = (BrokerUnavailable, AccessRefused, OSError)
CHANNEL_ERRORS = (ChannelError,)
RECOVERABLE_CONNECTION_ERRORS = (BrokerUnavailable, BrokenPipeError, ConnectionResetError)
RECOVERABLE_CHANNEL_ERRORS: tuple[type[Exception], ...] = ()


_QUEUE_METHODS = {"declare": (50, 10), "bind": (50, 20), "purge": (50, 30), "delete": (50, 40), "unbind": (50, 50)}
_EXCHANGE_METHODS = {"declare": (40, 10), "delete": (40, 20)}


def not_found(what: str, name: str, method: str = "declare") -> QueueNotFound:
    """404 for a queue or an exchange, as a broker would say it."""
    methods = _QUEUE_METHODS if what == "queue" else _EXCHANGE_METHODS
    return QueueNotFound(f"NOT_FOUND - no {what} {name!r}", methods[method], f"{what.title()}.{method}", 404)


def precondition(text: str, what: str = "queue", method: str = "delete") -> PreconditionFailed:
    """406 for a queue or an exchange."""
    methods = _QUEUE_METHODS if what == "queue" else _EXCHANGE_METHODS
    return PreconditionFailed(f"PRECONDITION_FAILED - {text}", methods[method], f"{what.title()}.{method}", 406)


def not_equivalent(text: str, what: str = "queue") -> NotEquivalent:
    """406 for a declaration that differs from the one that stands."""
    methods = _QUEUE_METHODS if what == "queue" else _EXCHANGE_METHODS
    return NotEquivalent(f"PRECONDITION_FAILED - {text}", methods["declare"], f"{what.title()}.declare", 406)


def locked(queue: str) -> Locked:
    """405: the queue is exclusive to somebody else."""
    text = f"RESOURCE_LOCKED - queue {queue!r} is exclusive to another process; it goes when that process goes"
    return Locked(text, (50, 10), "Queue.declare", 405)


@contextmanager
def mapped() -> Iterator[None]:
    """Turn Crony's errors into the transport's. `Halted` passes unchanged: nothing may go on after it."""
    try:
        yield
    except (Unavailable, Unknown) as error:
        raise BrokerUnavailable(str(error)) from error
    except (Forbidden, Invalid) as error:
        raise AccessRefused(str(error)) from error


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    return isinstance(error, (Unavailable, Unknown, OSError)) and not isinstance(error, AccessRefused)


__all__ = [
    "CHANNEL_ERRORS",
    "CONNECTION_ERRORS",
    "RECOVERABLE_CHANNEL_ERRORS",
    "RECOVERABLE_CONNECTION_ERRORS",
    "AccessRefused",
    "BrokerUnavailable",
    "CronyError",
    "Locked",
    "NotEquivalent",
    "PreconditionFailed",
    "QueueNotFound",
    "Refused",
    "SessionLost",
    "is_transient",
    "locked",
    "mapped",
    "not_equivalent",
    "not_found",
    "precondition",
]
