"""What a Kombu connection says about etcd, as one comparable value: the key under which a process shares its link."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from crony.errors import Invalid
from crony.etcd.address import TLS
from crony.etcd.client import Client
from crony.transport_etcd.errors import BrokerUnavailable

DEFAULT_PORT = 2379
DEFAULT_NAMESPACE = "default"
DEFAULT_DELIVERY_LIMIT = 20
"""As RabbitMQ's quorum queues."""

_SSL = {"ca": "ca_certs", "cert": "certfile", "key": "keyfile"}


@dataclass(frozen=True, slots=True)
class Options:
    """Where etcd is, who we are there, which namespace (virtual host) we use."""

    endpoints: tuple[str, ...]
    namespace: str
    user: str = ""
    password: str = field(default="", repr=False)
    ca: str = ""
    cert: str = ""
    key: str = ""
    deaf_after: float = 20.0
    """Seconds after which a consumer that leaves a ready message alone, though it has credit, reconnects."""
    timeout: float = 4.0
    session_ttl: float = 10.0
    delivery_limit: int = DEFAULT_DELIVERY_LIMIT
    """Most deliveries of a message of a plain queue that says nothing itself; then it is a dead letter. 0: no limit."""
    eta_in_etcd: float = 60.0
    """Tasks due later than so many seconds wait in etcd; 0: they wait in a worker."""

    def client(self, timeout: float | None = None) -> Client:
        """A new client. Raises `Invalid` for settings that cannot work."""
        tls = TLS(ca=self.ca, cert=self.cert, key=self.key) if self.ca or self.cert else None
        return Client(self.endpoints, user=self.user, password=self.password, tls=tls, timeout=timeout or self.timeout)


def of(connection: Any) -> Options:
    """The options of a Kombu connection, from its URL and `transport_options`.

    The endpoints are those of the options if the URL names no host or one of them, else the URL's host alone: a URL
    given by hand (`-b`) must not reach the configured cluster. `;` alternates are Kombu's own fail-over, one by one.
    Raises `Invalid`.
    """
    given = dict(connection.transport_options or {})
    for name, known in _SSL.items():  # `broker_use_ssl`, as Celery's documentation has it
        if not given.get(name) and isinstance(connection.ssl, dict):
            given[name] = connection.ssl.get(known) or connection.ssl.get(f"ssl_{known}")
    secure = bool(connection.ssl or given.get("ca") or given.get("cert"))
    configured = [_endpoint(text, secure) for text in _listed(given.get("endpoints"))]
    endpoints = configured
    if connection.hostname or not configured:
        host, port = connection.hostname or "127.0.0.1", connection.port or DEFAULT_PORT
        here = _endpoint(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", secure)
        places = [urlsplit(text).netloc for text in configured]
        endpoints = configured if urlsplit(here).netloc in places else [here]
    password = connection.password
    return Options(
        endpoints=tuple(dict.fromkeys(endpoints)),
        namespace=(connection.virtual_host or "").strip("/") or DEFAULT_NAMESPACE,
        user=connection.userid or str(given.get("user") or ""),
        password=(password() if callable(password) else password) or str(given.get("password") or ""),
        ca=str(given.get("ca") or ""),
        cert=str(given.get("cert") or ""),
        key=str(given.get("key") or ""),
        deaf_after=_seconds(given, "deaf_after", 20.0),
        timeout=_seconds(given, "timeout", 4.0),
        session_ttl=_seconds(given, "session_ttl", 10.0),
        delivery_limit=_count(given, "delivery_limit", DEFAULT_DELIVERY_LIMIT),
        eta_in_etcd=_seconds(given, "eta_in_etcd", 60.0, off=True),
    )


def reach(endpoints: Iterable[str], timeout: float) -> None:
    """Whether one of the endpoints takes connections at all, within `timeout` seconds. Raises `BrokerUnavailable`.

    The client itself goes on trying until its deadline; Kombu wants to know at once, to try an alternate.
    """
    places = [urlsplit(endpoint) for endpoint in endpoints]
    deadline, last = time.monotonic() + timeout, ""
    for left, place in enumerate(places):
        share = max(0.05, (deadline - time.monotonic()) / (len(places) - left))
        try:
            socket.create_connection((place.hostname or "", place.port or DEFAULT_PORT), share).close()
            return
        except OSError as error:
            last = f"{place.netloc}: {error}"
    raise BrokerUnavailable(f"etcd cannot be reached: {last}. Is it running, is the address right?")


def _listed(value: Any) -> Iterable[str]:
    if not value:
        return ()
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else list(value)


def _endpoint(text: str, secure: bool) -> str:
    parts = urlsplit(text if "://" in text else f"{'https' if secure else 'http'}://{text}")
    try:
        port = parts.port or DEFAULT_PORT
    except ValueError:
        port = 0
    if not parts.hostname or not port:
        raise Invalid("endpoints", f"{text!r} is not an address of etcd", hint="write http://host:2379")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}"


def _seconds(given: dict[str, Any], name: str, default: float, *, off: bool = False) -> float:
    """A number of seconds; `off`: 0 and False are allowed and mean 0, and less than a second is not."""
    chosen = given.get(name)
    if off and chosen is not None and not chosen:
        return 0.0
    try:
        value = float(chosen or default)
    except (TypeError, ValueError):
        value = 0.0
    if not value > 0 or (off and value < 1):
        raise Invalid(name, "must be 0 (off) or at least 1 second" if off else "must be a number of seconds above 0")
    return value


def _count(given: dict[str, Any], name: str, default: int) -> int:
    value = given.get(name)
    if value is None:
        return default
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = -1
    if number < 0:
        raise Invalid(name, "must be a whole number, 0 for no limit")
    return number
