"""The records of a run while it lives in etcd: envelope, waiting record, request to the leader, claim.

Every record carries `v` (its version); readers keep fields they do not know and refuse a higher
version. Times are epoch seconds (UTC) in fields ending in `_at`, durations seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from crony.domain.record import Record


class State(StrEnum):
    """Where a run is. Exactly one at any etcd revision (I1)."""

    REQUESTED = "requested"
    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    ACCEPTED = "accepted"
    ENDED = "ended"


class Trigger(StrEnum):
    """Why a run exists."""

    SCHEDULE = "schedule"
    MANUAL = "manual"
    API = "api"
    ENQUEUE = "enqueue"
    BACKFILL = "backfill"
    CHAIN = "chain"  # a run of another job has ended


class WaitReason(StrEnum):
    """Why a run waits in `run/wait/`."""

    ENDED = "ended"  # its attempt just ended; the leader decides what follows
    DELAY = "delay"
    OVERLAP = "overlap"  # another run of its job is under way; it waits for its turn
    NO_NODE = "no_node"
    POOL = "pool"  # a pool of its job has no free slot
    REROUTE = "reroute"  # its node was lost or drained before the work started
    HOLD = "hold"  # its node was lost after the work started; a person decides


@dataclass(frozen=True, slots=True)
class Envelope(Record):
    """What a node is told to do: one attempt of one run, for one queue. Sealed by a centre."""

    run: str
    job: str
    name: str
    generation: int
    revision: int
    attempt: int
    queue: str
    incarnation: str
    """Incarnation of the node chosen; empty while the run waits, and in a shared queue."""
    trigger: str
    action: dict[str, Any]
    params: dict[str, Any] = field(default_factory=dict)
    args: list[Any] = field(default_factory=list)
    """Positional arguments; only `enqueue` of a task gives any."""
    fire_at: float | None = None
    requested_at: float = 0.0
    """When the run was decided or asked for."""
    timeout: float = 3600.0
    deadline: float = 0.0
    """Seconds from the call in which an asynchronous callee has to complete; 0: the job is not asynchronous."""
    heartbeat: float = 0.0
    """Seconds for which such a callee may be silent; 0: for any time."""
    output_limit: int = 0
    """Most bytes kept of what each attempt prints; 0: as many as its node keeps, which is the most anyway."""
    retry: dict[str, Any] = field(default_factory=dict)
    """The job's retry section: max, backoff, delay, max_delay, jitter, elsewhere (durations in seconds)."""
    priority: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    """Labels a node must carry."""
    node: str | None = None
    """Node the job is pinned to."""
    exclude: list[str] = field(default_factory=list)
    """Nodes the job must not run on."""
    strategy: str = "weighted"
    """How its node is chosen among those that fit (`routing.Strategy`)."""
    shared: str = ""
    """With `any`: name of the shared queue it goes to."""
    key: str | None = None
    """Name of the parameter whose value `hash` goes by; None: the job's id."""
    part: int | None = None
    """Which part of its run it is, from 0; None: it is a whole run."""
    parts: int = 0
    """How many parts its run has; 0: it is not split (a broadcast: not yet)."""
    overlap: str = "skip"
    delivery: str = "at_least_once"
    """at_least_once | at_most_once: whether what may have run can run again."""
    on_node_loss: str = "rerun"
    """rerun | fail | hold: what becomes of it when its node is lost after it started."""
    on_cut: str = "continue"
    """continue | stop: whether its work goes on when its node may be taken for lost."""
    late: float = 0.0
    """Seconds after `fire_at` from which on its job minds that it begins; 0: it does not mind."""
    missed: str = ""
    """Whether its job minds if it becomes no run: yes, no; empty: the rules say so."""
    awaited: bool = False
    """Something goes by the end of the run, such as a fixed delay: its leader is told of it."""
    pools: list[str] = field(default_factory=list)
    """Pools in each of which it needs a slot."""
    secrets: dict[str, str] = field(default_factory=dict)
    """What each of its secrets is called in the action, and the secret's name; never a value."""
    slots: list[str] = field(default_factory=list)
    """What it holds of them, as `<pool>/<number>`; whoever takes its message away gives them back."""
    expires_at: float = 0.0
    """A node refuses the envelope after this (etcd's clock)."""
    why: str = ""
    """Why this node: the candidates and what was passed over, in one sentence."""
    idem: str = ""
    """The idempotency key that the run was asked for with."""
    chain: str = ""
    """The run that its chain began with; empty: it begins one itself."""
    cause: str = ""
    """The run whose end it follows; empty: none's."""
    chain_at: float = 0.0
    """When its chain began; 0: when it was asked for."""
    no_chain: bool = False
    """Nothing follows its end."""
    deliveries: int = 0
    """Times this attempt was claimed by nodes that then were lost before the work started."""
    losses: int = 0
    """Nodes lost while running this run."""
    avoid: list[str] = field(default_factory=list)
    """Nodes that a retry should not go to when others fit."""

    @property
    def needs_permit(self) -> bool:
        """Whether it must be known for certain if its work has begun: no first instruction without a durable permit."""
        sure = self.delivery == "at_most_once" or self.on_node_loss != "rerun" or self.on_cut == "stop"
        return sure or self.asynchronous

    @property
    def asynchronous(self) -> bool:
        """Whether its callee may answer later; its token then needs the claim to know the secret before the call."""
        return self.deadline > 0

    @property
    def splits(self) -> bool:
        """Whether it is a whole run that is carried out in parts."""
        return self.part is None and (self.strategy == "broadcast" or self.parts > 0)

    def next_attempt(self, **changes: Any) -> Envelope:
        """The envelope of the next attempt."""
        return self.but(attempt=self.attempt + 1, **changes)


@dataclass(frozen=True, slots=True)
class Wait(Record):
    """`run/wait/<r>`: a run that waits. `envelope` is the sealed envelope of its last (or coming) attempt."""

    run: str
    envelope: str
    finished: int
    """Attempts that ended; the next one is this + 1."""
    reason: str
    since_at: float
    due_at: float = 0.0
    """Not before this; 0: as soon as a node fits."""
    deliveries: int = 0
    losses: int = 0
    detail: str = ""
    outcome: str = ""
    """Kind of the attempt that ended, for reason `ended`."""
    retry_after: float = 0.0
    """Seconds from `since_at` for which its callee asked to be left alone."""
    node: str = ""
    """Node that had the attempt that ended."""
    avoid: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Request(Record):
    """`run/in/<id>`: what somebody asks of the leader."""

    kind: str
    """run, cancel, unhold; ended: a run that something waits for is over, told by whoever settles outcomes; parts: so
    are parts of a run"""
    run: str = ""
    job: str = ""
    name: str = ""
    """Job name, or `task:<dotted name>` of an allow-listed Celery task."""
    generation: int = 0
    trigger: str = Trigger.API.value
    params: dict[str, Any] = field(default_factory=dict)
    args: list[Any] = field(default_factory=list)
    not_before_at: float = 0.0
    priority: int | None = None
    labels: dict[str, str] | None = None
    timeout: float | None = None
    retries: int | None = None
    idem: str = ""
    """The idempotency key as given, for the archive."""
    by: str = ""
    """Who asked: user, token or process."""
    chain: str = ""
    """As in the envelope, like `cause`, `chain_at` and `no_chain`."""
    cause: str = ""
    chain_at: float = 0.0
    no_chain: bool = False
    requested_at: float = 0.0
    reason: str = ""
    outcome: str = ""
    """kind ended: the kind of the outcome that was final, and below which revision ran and when it ended."""
    revision: int = 0
    ended_at: float = 0.0
    parts: dict[str, str] = field(default_factory=dict)
    """kind parts: how they ended, by number, and below when the first of them started."""
    started_at: float | None = None


@dataclass(frozen=True, slots=True)
class Claim(Record):
    """`…/c/<place>`: a node's hold on a message. An empty incarnation is a released claim; the count stays."""

    incarnation: str
    count: int = 1
    """Deliveries of this message so far, this one included."""
    phase: str = "C"
    """C claimed; S started (with a durable permit)."""
    node: str = ""
    at: float = 0.0
    """When it was made; of phase S: when the work was permitted to start."""
    nonce: str = ""
    """Phase S: chosen by the process that was permitted to start, so that it knows its permit again."""
    secret: str = ""
    """Hash of the secret that the callee of an asynchronous run answers with; empty: there is none."""


@dataclass(frozen=True, slots=True)
class Accepted(Record):
    """`run/acc/<r>`: a run that its callee has accepted. Written once; its signs of life are a `Beat` beside it."""

    run: str
    envelope: str
    """Sealed, as the node got it."""
    attempt: int
    fence: int
    """Of the claim under which the callee was called."""
    secret: str
    """Hash of the secret that the callee answers with."""
    deadline_at: float
    heartbeat: float = 0.0
    node: str = ""
    """Who made the call."""
    incarnation: str = ""
    at: float = 0.0
    """When it was accepted."""
    started_at: float | None = None


@dataclass(frozen=True, slots=True)
class Beat(Record):
    """`run/beat/<r>`: the last the callee of an accepted run let hear, or how far a running attempt is."""

    at: float
    percent: float | None = None
    message: str = ""
    attempt: int = 0
    """Whose word it is; 0: not said."""

    def of(self, attempt: int) -> bool:
        """Whether it is a word of this attempt."""
        return self.attempt in (0, attempt)


@dataclass(frozen=True, slots=True)
class Done(Record):
    """`done/<job>`: every fire up to `upto_at` (epoch second, inclusive) is decided."""

    upto_at: int
    fires: int = 0
    next_at: int | None = None
    """With a delay after the end: the instant due next, where it is known."""
    next_since: int = 0
    """Which schedule `next_at` and `awaits` are of: the `since_at` of its document. Another one begins anew."""
    awaits: str = ""
    """The run whose end the next instant follows; empty: none does."""
    failures: int = 0
    """Runs in a row that failed for good, where the job minds."""
    failures_revision: int = 0
    """The revision whose runs they are: an edit begins anew."""
    held: str = ""
    """Why the leader does not fire this job (zone gone, say); empty: it does."""
    held_revision: int = 0
    """Revision of the job that `held` speaks of: a later one is tried again."""
    held_for: str = ""
    """`failures`: it is paused as it asked for, a pause like any other; empty: it cannot be fired."""
    held_at: float = 0.0
    held_tz: str = ""
    """Release of the time zone data that lack the job's zone: under another one it is tried again."""
    due_at: int | None = None
    """Hint: the next instant due after `upto_at`, worked out from the job key at revision `due_seen`."""
    due_seen: int = 0
    """-1: its revision when this cursor was put by the same transaction as the job itself."""
    due_tz: str = ""
    """Release of the time zone data that went into the hint; `-`: none did."""
