"""`celery -A crony beat` is the scheduling centre: a scheduler class for Celery's beat that runs one.

It also sends the plain entries of the Celery app's `beat_schedule`, while its centre leads. Any app whose broker is
`etcd3://` can have it: `celery -A proj beat -S crony`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from celery.backends.base import DisabledBackend
from celery.beat import ScheduleEntry, Scheduler, SchedulingError
from celery.utils.time import maybe_make_aware
from kombu.exceptions import ChannelError, OperationalError

from crony import settings
from crony.beat import plain
from crony.beat.centre import Centre
from crony.beat.leader import Leader
from crony.beat.plain import Captured, Cursor, Cursors, Moved
from crony.errors import CronyError, Invalid
from crony.etcd.errors import BadRequest
from crony.etcd.txn import Txn, mod
from crony.transport_etcd import SCHEME, options

log = logging.getLogger("crony.beat")

LONGEST_PAUSE = 0.5
"""Seconds between two looks at whether we lead; bounds how late a new leader begins with the entries."""
LONGEST_WAIT = 60.0
"""Seconds after which an entry is asked again whether it is due: the wall clock may have been set."""
AWAY = (CronyError, OSError, OperationalError)
"""What says that etcd cannot be reached or asked right now."""
CLOSE_TIMEOUT = 5.0
"""Longest time that stopping the centre takes, seconds."""


class CentreScheduler(Scheduler):  # type: ignore[misc]
    """Celery's beat, with a scheduling centre in a thread of its own. `lazy`: only to be looked at."""

    def __init__(self, app: Any, *args: Any, lazy: bool = False, **kwargs: Any) -> None:
        self._centre: Centre | None = None
        self._stop = threading.Event()
        self._leader: Leader | None = None
        self._cursors: dict[str, Cursor] = {}
        self._wait: dict[str, float] = {}
        super().__init__(app, *args, lazy=lazy, **kwargs)
        if not lazy:
            self._start()

    def _start(self) -> None:
        try:
            given = settings.load()
            if self.schedule:
                check_broker(self.app, given)
            self._centre = Centre(given)
        except Invalid as error:
            raise SystemExit(f"crony: {error}") from None
        self._thread = threading.Thread(target=self._centre.run, args=(self._stop,), name="crony-centre", daemon=True)
        self._thread.start()

    def setup_schedule(self) -> None:
        """The app's entries, and Celery's own one that removes expired results, where there is a result backend."""
        self.merge_inplace(self.app.conf.beat_schedule)
        if not isinstance(self.app.backend, DisabledBackend):
            self.install_default_entries(self.schedule)

    @property
    def info(self) -> str:
        """For beat's banner."""
        return f"    . centre -> leads or stands by; {len(self.app.conf.beat_schedule)} plain entries"

    def close(self) -> None:
        """Stop leading and let go; within `CLOSE_TIMEOUT`. Safe to repeat."""
        self._stop.set()
        if self._centre is not None:
            self._thread.join(CLOSE_TIMEOUT)
        super().close()

    # -- the entries -----------------------------------------------------------------------------------

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send every entry that is due, if we lead; seconds until it wants to be called again."""
        if not self._thread.is_alive() and not self._stop.is_set():
            raise RuntimeError("the scheduling centre has ended; its log says why")
        leader = self._centre.leader if self._centre is not None else None
        if not self.schedule or leader is None or not leader.ready:
            self._leader = None
            return LONGEST_PAUSE
        if leader.held:
            return LONGEST_PAUSE
        try:
            if leader is not self._leader:
                self._begin(leader)
            return min([LONGEST_PAUSE, *(self._look(leader, name) for name in list(self.schedule))])
        except Moved:
            log.info("plain entries: the term or a cursor moved; looking again")
        except (*AWAY, SchedulingError) as error:
            log.warning("plain entries wait: %s", error)
            super().close()
        self._leader = None
        return LONGEST_PAUSE

    def _begin(self, leader: Leader) -> None:
        """A new term: go on where the entries are."""
        cursors = self._home(leader)
        self._cursors = cursors.load(set(self.schedule))
        self._wait.clear()
        for name, entry in self.schedule.items():
            known = self._cursors.get(name)
            if known is not None:
                entry.last_run_at, entry.total_run_count = known.last.astimezone(self.app.timezone), known.count
                continue
            entry.last_run_at, entry.total_run_count = entry.default_now(), 0  # as Celery: a new entry begins now
            self._cursors[name] = self._note(leader, cursors.key(name), entry)
        self._leader = leader

    def _note(self, leader: Leader, key: str, entry: ScheduleEntry) -> Cursor:
        """Write down that an entry is known, so that a change of leaders does not begin it anew."""
        cursor = Cursor(maybe_make_aware(entry.last_run_at), 0)
        result = leader.client.txn(Txn().when(*leader.compares(), mod(key, 0)).put(key, cursor.encode()))
        if not result.succeeded:
            raise Moved(f"entry {entry.name} is known to another leader")
        return Cursor(cursor.last, 0, result.revision)

    def _look(self, leader: Leader, name: str) -> float:
        """Send one entry if it is due; seconds until it is."""
        left = self._wait.get(name, 0.0) - time.monotonic()
        if left > 0:
            return left
        entry = self.schedule[name]
        try:
            due, pause = entry.is_due()
        except Exception:
            log.exception("entry %s: its next instant cannot be told; the others go on", name)
            due, pause = False, 60.0
        if due:
            self._send(leader, entry)
        pause = min(LONGEST_WAIT, max(0.0, float(pause or 0.0)))
        self._wait[name] = time.monotonic() + pause
        return pause

    def _send(self, leader: Leader, entry: ScheduleEntry) -> None:
        name, known = entry.name, self._cursors[entry.name]
        advanced = next(entry)
        instant = maybe_make_aware(advanced.last_run_at)
        wanted = Cursor(instant, known.count + 1)
        cursors = self._home(leader)
        ident = plain.task_id(leader.keys.namespace, self._name, name, instant)
        entry = self.Entry(**{**dict(advanced), "options": {"task_id": ident, **advanced.options}})
        try:
            with self._drafting() as (captured, channel):
                self.apply_async(entry, producer=self.producer, advance=False)
            if captured.messages:
                revision = plain.commit(leader, cursors.key(name), known.revision, wanted, captured, channel)
                self._cursors[name] = Cursor(instant, wanted.count, revision)
                log.info("entry %s: task %s sent, id %s", name, entry.task, ident)
        except (SchedulingError, ChannelError, BadRequest) as error:
            if isinstance(error.__context__, AWAY) and not isinstance(error.__context__, BadRequest):
                raise
            log.error("entry %s cannot be sent, its instant %s is lost: %s", name, instant, error)  # as Celery does
        self.schedule[name] = advanced

    def _ensure_connected(self) -> Any:
        """At once or not at all: whoever waits here might not lead any more."""
        return self.connection.ensure_connection(max_retries=1)

    @contextmanager
    def _drafting(self) -> Iterator[tuple[Captured, Any]]:
        """While inside, what the producer publishes is caught instead."""
        channel, captured = self.producer.channel, Captured()
        channel.basic_publish = captured.basic_publish
        try:
            yield captured, channel
        finally:
            del channel.basic_publish

    def _home(self, leader: Leader) -> Cursors:
        return Cursors(leader.client, leader.keys, self._name)

    @property
    def _name(self) -> str:
        return str(self.app.main or "app")


def check_broker(app: Any, given: settings.Settings) -> None:
    """Entries are put where the term is: the app's broker must be the centre's etcd. Raises `Invalid`."""
    with app.connection_for_write() as connection:
        if connection.transport.driver_type != SCHEME:
            raise Invalid(
                "broker_url",
                f"is {connection.as_uri()}, and the scheduling centre sends plain entries through etcd only",
                hint=f"use {SCHEME}://…, or run Celery's own beat for this app",
            )
        broker = {urlsplit(endpoint).netloc for endpoint in options.of(connection).endpoints}
    ours = {urlsplit(text if "://" in text else f"http://{text}").netloc for text in given.etcd_endpoints}
    if not broker & ours:
        raise Invalid(
            "CRONY_ETCD_ENDPOINTS",
            f"({', '.join(sorted(ours))}) names none of the broker's members ({', '.join(sorted(broker))})",
            hint="the centre and the broker of its plain entries have to be one etcd; write their addresses alike",
        )
