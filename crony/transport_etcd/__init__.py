"""A Kombu transport on etcd v3: `etcd3://host:2379/<namespace>`. It knows queues, not jobs.

Importing this package only tells Kombu the scheme; the transport itself is loaded when a connection asks for it.
"""

from __future__ import annotations

from kombu.transport import TRANSPORT_ALIASES

SCHEME = "etcd3"


def register() -> None:
    """Make `etcd3://` resolve in this process. Cheap, and safe to repeat."""
    TRANSPORT_ALIASES.setdefault(SCHEME, "crony.transport_etcd.transport:Transport")


register()
