"""A user's Celery app with plain `beat_schedule` entries, and the same entries for Crony's own app."""

from __future__ import annotations

import os

from celery import Celery

import crony.transport_etcd  # registers the scheme

ENTRIES = {
    "tick": {"task": "billing.tick", "schedule": 1.0, "options": {"queue": "ticks", "priority": 4}},
    "huge": {"task": "billing.huge", "schedule": 1.0, "args": ("x" * 2**21,)},
    "never": {"task": "billing.never", "schedule": 3600.0},
}

if "CRONY_IMPORTS" in os.environ:
    crony.app.conf.beat_schedule = ENTRIES
else:
    app = Celery("billing", broker=os.environ.get("JUDGE_BROKER", "etcd3://127.0.0.1:1/none"))
    app.conf.beat_schedule = ENTRIES
