"""Where members listen and how to speak to them: addresses and TLS."""

from __future__ import annotations

import contextlib
import os
import ssl
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from crony.errors import Invalid


@dataclass(frozen=True, slots=True)
class TLS:
    """How to speak TLS: file of CAs (empty: the system's), our certificate and key, the server name to expect."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    server_name: str = ""

    def context(self, *, http2: bool = False) -> ssl.SSLContext:
        """A context that verifies the server, and offers HTTP/2. Raises `Invalid` when a file cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
            if self.cert:
                context.load_cert_chain(self.cert, self.key or None)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(name for name in (self.ca, self.cert, self.key) if name)
            raise Invalid("etcd TLS", f"{files}: {error}") from None
        if http2:
            context.set_alpn_protocols(["h2", "http/1.1"])
        return context

    def stamp(self) -> tuple[int, ...]:
        """Changes when one of the files does: certificates are rotated without a restart."""
        stamps = []
        for name in (self.ca, self.cert, self.key):
            with contextlib.suppress(OSError):
                stamps.append(os.stat(name).st_mtime_ns if name else 0)
        return tuple(stamps)


@dataclass(slots=True)
class Address:
    """Where a member listens, and how to get there. Make it with `address`."""

    host: str
    port: int
    tls: TLS | None
    text: str
    _contexts: dict[bool, tuple[ssl.SSLContext, tuple[int, ...]]] = field(default_factory=dict, repr=False)

    @property
    def authority(self) -> str:
        """Value of the Host header."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def context(self, *, http2: bool = False) -> ssl.SSLContext | None:
        """TLS context of this member, read anew when a certificate file changed; None without TLS."""
        if self.tls is None:
            return None
        stamp, known = self.tls.stamp(), self._contexts.get(http2)
        if known is None:
            known = self._contexts[http2] = self.tls.context(http2=http2), stamp
        elif stamp != known[1]:
            # Half-written files of a rotation under way: the old certificate serves until they are whole.
            with contextlib.suppress(Invalid):
                known = self._contexts[http2] = self.tls.context(http2=http2), stamp
        return known[0]


def address(endpoint: str, tls: TLS | None) -> Address:
    """`http(s)://host:port` or `host:port` (TLS when `tls` is given). Raises `Invalid`."""
    text = endpoint if "://" in endpoint else f"{'https' if tls else 'http'}://{endpoint}"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port or 2379
    except ValueError as error:
        raise Invalid("etcd endpoint", f"{endpoint!r}: {error}") from None
    if parts.username:
        raise Invalid("etcd endpoint", "names a user", hint="user and password are settings of their own")
    if parts.scheme not in ("http", "https") or not host or parts.path not in ("", "/") or parts.query:
        raise Invalid("etcd endpoint", f"{endpoint!r} is not http(s)://host:port")
    if not text.isascii() or any(c.isspace() for c in text):
        raise Invalid("etcd endpoint", f"{endpoint!r} contains characters that no address has")
    return Address(host, port, (tls or TLS()) if parts.scheme == "https" else None, f"{parts.scheme}://{parts.netloc}")
