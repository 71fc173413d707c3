"""The Celery app behind `celery -A crony worker` (and `beat`, `inspect`, `flower`), configured from `CRONY_*`.

The settings are read when the configuration is first used, not when this module is imported.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

from celery import Celery

from crony import settings
from crony.errors import Invalid
from crony.transport_etcd import SCHEME, register

register()

DEFAULT_QUEUE = "celery"


def broker_url(conf: settings.Settings) -> str:
    """The broker URL of these settings: first endpoint, credentials, namespace. Raises `Invalid`."""
    first = conf.etcd_endpoints[0]
    parts = urlsplit(first if "://" in first else f"http://{first}")
    if not parts.hostname:
        raise Invalid("CRONY_ETCD_ENDPOINTS", f"{first!r} names no host", hint="write http://host:2379")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    login = f"{quote(conf.etcd_user, safe='')}:{quote(conf.etcd_password, safe='')}@" if conf.etcd_user else ""
    return f"{SCHEME}://{login}{host}:{parts.port or 2379}/{quote(conf.namespace, safe='')}"


def transport_options(conf: settings.Settings) -> dict[str, Any]:
    """The transport's options of these settings. No secret is among them: `inspect stats` shows them."""
    return {
        "endpoints": list(conf.etcd_endpoints),
        "ca": conf.etcd_ca,
        "cert": conf.etcd_cert,
        "key": conf.etcd_key,
        "timeout": conf.etcd_timeout,
        "session_ttl": conf.node_ttl,
    }


def configuration() -> dict[str, Any]:
    """Celery's configuration from this process's settings. Raises `Invalid` naming the variable."""
    conf = settings.load()
    return {
        "broker_url": broker_url(conf),
        "broker_transport_options": transport_options(conf),
        "broker_connection_retry_on_startup": True,
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "event_serializer": "json",
        "result_backend": None,
        "task_default_queue": DEFAULT_QUEUE,
        "worker_prefetch_multiplier": 1,
        "worker_enable_prefetch_count_reduction": False,  # the transport counts what still runs, exactly
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "enable_utc": True,
        "beat_scheduler": "crony.beat.celery_beat:CentreScheduler",
        "imports": ("crony.tasks.run", *conf.imports),
    }


app = Celery("crony")
app.add_defaults(configuration)
app.steps["consumer"].add("crony.workers.bootsteps:Node")
