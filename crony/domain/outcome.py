"""How an attempt, a fire or a run ended: at most 2 KiB, written once, in the transaction that ends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from crony.domain.grounds import Grounds
from crony.domain.record import Record

LIMIT = 2048
"""Most bytes of a stored outcome (D7): output goes by the spool, not through etcd."""


class Kind(StrEnum):
    """Outcomes of an attempt; SKIPPED is the outcome of a fire that became no run."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    SKIPPED = "skipped"


class SkipReason(StrEnum):
    """Why a due fire became no run."""

    OVERLAP = "overlap"
    MISFIRE = "misfire"
    PAUSED = "paused"
    ERROR = "error"
    DELETED = "deleted"
    RESTORED = "restored"  # etcd was restored from a backup, and nobody knows what became of the fire
    NO_NODE = "no_node"
    PARENT = "parent"  # a job that it runs after did not end as awaited


@dataclass(frozen=True, slots=True)
class Outcome(Record):
    """`run/out/<r>/<n>`; n = 0 is a skip, n = `end` a decision after the last attempt."""

    run: str
    job: str
    name: str
    generation: int
    revision: int
    attempt: int
    kind: str
    final: bool
    """Nothing follows: the run (or fire) ends with this."""
    trigger: str
    ended_at: float
    reason: str = ""
    """One sentence for people; for a skip a `SkipReason` value, with `detail`."""
    detail: str = ""
    code: int | None = None
    """Exit code or HTTP status."""
    result: Any = None
    retry_after: float = 0.0
    """Seconds for which the callee asked to be left alone."""
    node: str = ""
    incarnation: str = ""
    fence: int = 0
    fire_at: float | None = None
    requested_at: float = 0.0
    started_at: float | None = None
    params: dict[str, Any] | None = None
    why: str = ""
    to_at: int | None = None
    """A range of skips: nominal second of the last one (the first is in the run id)."""
    count: int = 1
    """How many fires a skip stands for."""
    idem: str = ""
    chain: str = ""
    """As in the envelope: the run that its chain began with and when, whose end it follows, whether nothing follows."""
    cause: str = ""
    chain_at: float = 0.0
    no_chain: bool = False
    parts: int = 0
    """How many parts its run has; 0: it is not split."""
    late: float = 0.0
    """As in the envelope, like `missed`."""
    missed: str = ""
    held: bool = False
    """The run waits for a person to decide what follows."""
    awaited: bool = False
    """As in the envelope: when this is final, the leader of the job is told."""
    secret: str = ""
    """Of an asynchronous attempt: hash of its callee's secret, so that a late or repeated report gets its answer."""
    action: str = ""
    """Kind of the action: http, grpc, shell or python."""
    report: str = ""
    """Hash of the report that ended it, where one did."""

    def encode(self) -> bytes:
        """Stored bytes, at most `LIMIT`: nodes passed over, result, params, then long texts are cut; facts never."""
        data = super(Outcome, self).encode()
        if len(data) <= LIMIT:
            return data
        cut: dict[str, Any] = self.payload()
        if self.why:  # the nodes that were passed over are worth less than what the run said
            cut["why"] = Grounds.read(self.why).why
            data = Record.encode(Outcome.read(cut))
            if len(data) <= LIMIT:
                return data
        for name, marker in (("result", {"truncated": True}), ("params", {"truncated": True}), ("why", "…")):
            if cut.get(name):
                cut[name] = marker
                data = Record.encode(Outcome.read(cut))
                if len(data) <= LIMIT:
                    return data
        for name in ("detail", "reason", "idem", "name"):
            text = str(cut[name])
            while len(data) > LIMIT and len(text) > 40:
                text = text[: max(40, len(text) * 2 // 3)]
                cut[name] = text + "…"
                data = Record.encode(Outcome.read(cut))
        return data
