"""What the leader remembers of one thing each: a job, a request, a waiting run, a queued run, a node."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from crony.beat.packing import pack, unpack
from crony.domain import ids
from crony.domain.backfill import Backfill
from crony.domain.join import Join
from crony.domain.livejob import LiveJob
from crony.domain.node import NodeFacts
from crony.domain.queues import node_of
from crony.domain.record import UnknownRecord
from crony.domain.run import Accepted, Claim, Done, Request, Wait
from crony.domain.signing import BadSeal, Verifier, peek
from crony.transport_etcd import message as wire

_BACKFILL = re.compile(r"b[0-9a-z]{20}")
_RUN = re.compile(r"[0-9a-z]+\.[0-9]+\.[0-9a-z]+(\.[0-9]+)?")


def own_run(run: str) -> ids.RunId:
    """The parts of a run id that a request names. Raises ValueError or TypeError unless it is one of ours to the last
    character: it becomes part of keys, and whoever may write a request must not choose keys."""
    if not _RUN.fullmatch(run):
        raise ValueError(f"not a run id: {run!r}")
    return ids.parse_run_id(run)


@dataclass(slots=True, eq=False)
class JobEntry:
    """One published job with its cursor, and how far the leader got with it."""

    id: str
    seen: int = 0
    """Revision of the job key; 0: no document."""
    size: int = 0
    """Bytes of its sealed document."""
    done: Done | None = None
    done_seen: int = 0
    due: int | None = None
    """When it is due next, as planned; None: never, or that is being worked out or decided."""
    busy: bool = False
    """A decision about it is on its way to etcd."""
    limbo: bool = False
    """An unanswered decision about it may still arrive: nothing else is decided before it is settled."""
    rest_until: float = 0.0
    """Monotonic; after a refused decision it waits a moment."""
    refusals: int = 0
    problem: str = ""
    """Why its document cannot be used; empty: it can."""
    warm: bool = False
    """Its document is ready, or was found not to be."""
    _packed: bytes = b""
    _live: LiveJob | None = None

    @property
    def sealed(self) -> bytes:
        """Its sealed document; empty: it has none."""
        return unpack(self._packed) if self._packed else b""

    def publish(self, sealed: bytes, revision: int) -> None:
        """It has another document since `revision`; none: empty and 0."""
        self._packed, self.size, self.seen = pack(sealed) if sealed else b"", len(sealed), revision
        self._live, self.warm = None, False

    def document(self, verifier: Verifier) -> LiveJob:
        """Its verified document, parsed once. Raises `CronyError` when it is not signed by a web for this very job, or
        not readable: a genuine document of one job, copied under another, is nobody's."""
        if self._live is None:
            live = LiveJob.read(verifier.open(self.sealed))
            if live.id != self.id:
                raise BadSeal("the document is of another job", why=str(live.id))
            self._live = live
        return self._live

    def shrink(self) -> None:
        """Keep the sealed text only. A tombstone stays: it is small, and pruning asks for it."""
        if self._live is not None and not self._live.deleted:
            self._live, self.warm = None, False

    @property
    def known(self) -> LiveJob | None:
        """Its document, if it was read already."""
        return self._live


@dataclass(slots=True, eq=False)
class Asked:
    """A request in the inbox."""

    id: str
    value: bytes
    seen: int
    born: int
    request: Request | None
    busy: bool = False
    impossible: str = ""
    """Why it can never become a run; found out when it was tried."""
    blocks: JobEntry | None = None
    """An unanswered admission of it may still arrive: the job of which nothing else is decided until then."""
    rest_until: float = 0.0
    put_off: bool = False
    """It rests, and what was asked of its job later rests behind it: it will be decided anew, or something about its
    job is under way."""


@dataclass(slots=True, eq=False)
class Filling:
    """A backfill."""

    id: str
    value: bytes
    seen: int
    record: Backfill | None
    busy: bool = False
    impossible: str = ""
    """Why its next run can never be put; found out when it was tried."""
    blocks: JobEntry | None = None
    """As for a request: its unanswered step may still arrive."""
    rest_until: float = 0.0


def backfill_of(ident: str, value: bytes) -> Backfill | None:
    """The record under `run/backfill/<ident>`, None when it is none that can be acted on: anybody may write one."""
    try:
        record = Backfill.read(value)
        whole = (record.after_at, record.until_at, record.parallel, record.total, record.made, record.generation)
        counts = (record.succeeded, record.failed, record.cancelled, *record.fires)
        texts = (record.job, record.name, record.trigger, record.schedule, record.order, record.stop, record.by)
        sound = (
            record.id == ident
            and _BACKFILL.fullmatch(ident) is not None
            and all(type(number) is int and number >= 0 for number in (*whole, *counts))
            and all(isinstance(text, str) for text in texts)
            and isinstance(record.params, dict)
            and isinstance(record.ended_at, int | float)
        )
        own_run(record.run_of(0))
        return record if sound else None
    except (UnknownRecord, ValueError, TypeError, AttributeError):
        return None


@dataclass(slots=True, eq=False)
class Waiting:
    """A run in `run/wait/`."""

    run: str
    wait: Wait | None
    seen: int
    known_at: float = 0.0
    """Monotonic: when this leader first saw it."""
    due_at: float | None = None
    """Wall clock: not before; None: not worked out yet."""
    stuck: int = -1
    """State of the fleet for which no node fitted; looked at again when it changes."""
    impossible: str = ""
    """Why it can never go on; found out when it was tried."""
    busy: bool = False
    blocks: JobEntry | None = None
    """As for a request: its unanswered release may still arrive."""
    rest_until: float = 0.0


@dataclass(slots=True, eq=False)
class Queued:
    """A run in a queue, with the claim beside it."""

    run: str
    queue: str
    place: str
    value: bytes
    seen: int
    claim: Claim | None = None
    claim_seen: int = 0
    busy: bool = False
    rest_until: float = 0.0
    counted: str = ""
    """The queue of the node for which it counts as work."""
    _envelope: str | None = None
    _target: str | None = None

    @property
    def holder(self) -> str:
        """Incarnation that holds it; empty when nobody does."""
        return self.claim.incarnation if self.claim else ""

    @property
    def node(self) -> str:
        """Node that holds it, or whose queue it lies in; empty: it lies in a shared queue, and nobody holds it."""
        return (self.claim.node if self.claim and self.holder else "") or node_of(self.queue)

    @property
    def sealed(self) -> str:
        """The sealed envelope it carries; empty when the message cannot be read."""
        if self._envelope is None:
            try:
                self._envelope = str(json.loads(wire.decode(self.value)["body"])[0][0])
            except (wire.Undecodable, ValueError, LookupError, TypeError, RecursionError):
                self._envelope = ""
        return self._envelope

    @property
    def target(self) -> str:
        """Incarnation it was sent to, as written (not verified); empty when the message cannot be read."""
        if self._target is None:
            try:
                self._target = str(peek(self.sealed)["incarnation"])
            except (ValueError, LookupError, TypeError, RecursionError):
                self._target = ""
        return self._target

    def sent_to(self, incarnation: str) -> None:
        """Spare the reading: the leader itself sent it there."""
        self._target = incarnation


@dataclass(slots=True, eq=False)
class Awaited:
    """A run that its callee has accepted."""

    run: str
    record: Accepted | None
    seen: int
    busy: bool = False
    rest_until: float = 0.0


@dataclass(slots=True, eq=False)
class Joined:
    """A run whose parts are under way."""

    run: str
    join: Join | None
    seen: int
    busy: bool = False
    impossible: str = ""
    """Why its next parts cannot be made; found out when it was tried."""
    rest_until: float = 0.0


@dataclass(slots=True, eq=False)
class NodeEntry:
    """A registered node."""

    facts: NodeFacts
    seen: int


@dataclass(frozen=True, slots=True)
class Presence:
    """What was last known of an incarnation: its node's name, and whether it was being stopped."""

    node: str
    draining: bool
