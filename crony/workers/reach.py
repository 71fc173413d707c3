"""Whom this node connects to: a host name is resolved once, and only its addresses that may be called are tried."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextvars import copy_context
from ipaddress import ip_address

from crony.domain.targets import Targets
from crony.errors import CronyError


class Unreachable(CronyError):
    """Nothing was sent: the name is not known, or none of its addresses may be called."""


def addresses(host: str, targets: Targets, wait: Callable[[threading.Event], None]) -> list[str]:
    """The addresses of `host` that may be called, in the resolver's order. Raises `Unreachable`.

    `wait` waits for an event and may come back without it, when nobody is interested any more.
    """
    try:
        found = [str(ip_address(host))]
    except ValueError:
        found = _resolved(host, wait)
    refusals = {address: targets.refusal(address) for address in found}
    allowed = [address for address in found if not refusals[address]]
    if not allowed:
        raise Unreachable(f"{host} may not be called: {next(iter(refusals.values()))}")
    return allowed


def _resolved(host: str, wait: Callable[[threading.Event], None]) -> list[str]:
    answers: list[list[str] | OSError] = []
    ready = threading.Event()

    def ask() -> None:
        try:
            told = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            answers.append(list(dict.fromkeys(str(each[4][0]) for each in told)))
        except (OSError, UnicodeError) as error:
            answers.append(error if isinstance(error, OSError) else OSError(str(error)))
        finally:
            ready.set()

    # The resolver takes as long as it likes and cannot be stopped.
    threading.Thread(target=copy_context().run, args=(ask,), name="crony-resolve", daemon=True).start()
    wait(ready)
    if not answers:
        raise Unreachable(f"the name {host} was not resolved in time")
    if isinstance(answers[0], OSError):
        raise Unreachable(f"the name {host} cannot be resolved: {answers[0].strerror or answers[0]}")
    return answers[0]
