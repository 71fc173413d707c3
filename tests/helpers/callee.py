"""An asynchronous attempt in etcd without a node: called under a permit, accepted, spoken for by its token."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from crony.domain import ids
from crony.domain.callback import Token
from crony.domain.outcome import Outcome
from crony.domain.run import Accepted, Beat, Envelope, Wait
from crony.domain.signing import Sealer, new_key
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.lifecycle.accept import Waiting, accept
from crony.lifecycle.permit import permit, starting
from crony.transport_etcd.message import task_message

JOB = "j" + "1" * 20
SEALER = Sealer(new_key()[0])


@dataclass
class Callee:
    """One attempt. `call` puts message and claim and takes the permit; `accept` leaves the run to the callee."""

    client: Client
    keys: Keys
    attempt: int = 1
    retries: int = 0
    deadline: float = 3600.0
    heartbeat: float = 0.0
    node: str = "n1"
    run: str = ""
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.run = self.run or ids.fresh_run_id(JOB, 1)
        self.queue, self.incarnation = f"run.{self.node}", ids.incarnation()
        self.place = ids.place(0, time.time_ns() // 1000, self.run)
        facts: dict[str, Any] = {
            "run": self.run, "job": JOB, "name": "tests/later", "generation": 1, "revision": 1,
            "attempt": self.attempt, "queue": self.queue, "incarnation": self.incarnation, "trigger": "manual",
            "action": {"kind": "http"}, "requested_at": time.time(), "retry": {"max": self.retries, "delay": 0.0},
            "deadline": self.deadline, "heartbeat": self.heartbeat,
        }  # fmt: skip
        self.told = Envelope(**{**facts, **self.more})
        self.sealed = SEALER.seal(self.told.payload()).decode()
        self.token = Token.new(self.queue, self.place)
        """What the callee is given."""

    def call(self, sealer: Sealer = SEALER) -> Callee:
        """The call is under way: phase S, with the hash of the secret."""
        self.sealed = sealer.seal(self.told.payload()).decode()
        message = task_message("crony.run", f"{self.run}:{self.attempt}", [self.sealed], {})
        self.client.put(self.keys.message(self.queue, self.place), message)
        lease = self.client.grant(120)
        self.client.put(self.keys.session(self.incarnation), b"{}", lease=lease)
        claim = starting(self.incarnation, 1, node=self.node, at=time.time(), secret=self.token.digest)
        first = self.client.put(self.keys.claim(self.queue, self.place), claim.encode())
        claim = starting(self.incarnation, 1, node=self.node, at=time.time(), secret=self.token.digest)
        fence = permit(self.client, self.keys, self.queue, self.place, first, claim)
        assert fence
        self.token = self.token.under(fence)
        return self

    @property
    def fence(self) -> int:
        """Of its claim."""
        return self.token.fence

    @property
    def record(self) -> Accepted:
        """What its node writes when the callee accepts."""
        now = time.time()
        return Accepted(
            self.run, self.sealed, self.attempt, self.fence, self.token.digest, now + self.deadline,
            self.heartbeat, self.node, self.incarnation, now, now,
        )  # fmt: skip

    def accept(self) -> Any:
        """The node writes it."""
        return accept(self.client, self.keys, self.told, self.place, self.record)

    def waiting(self) -> Callee:
        """Called and accepted."""
        assert isinstance(self.call().accept(), Waiting)
        return self

    # -- what there is ------------------------------------------------------------------------------

    def outcome(self, attempt: int = 0) -> Outcome | None:
        """How the attempt ended."""
        found = self.client.get(self.keys.out(self.run, attempt or self.attempt))
        return Outcome.read(found.value) if found else None

    def beat(self) -> Beat | None:
        """Its last sign of life."""
        found = self.client.get(self.keys.run_beat(self.run))
        return Beat.read(found.value) if found else None

    def wait(self) -> Wait | None:
        """How the run waits for the leader."""
        found = self.client.get(self.keys.run_wait(self.run))
        return Wait.read(found.value) if found else None

    def places(self) -> set[str]:
        """Where the run is: in, wait, m, acc (and beside them c, beat)."""
        prefix, found = self.keys.run, set()
        for kv in self.client.list(prefix, keys_only=True).kvs:
            if self.run in kv.key and not kv.key.startswith(self.keys.outs):
                parts = kv.key.removeprefix(prefix).split("/")
                found.add(parts[2] if parts[0] == "q" else parts[0])
        return found
