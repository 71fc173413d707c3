"""What becomes of each run that a restored etcd still holds.

In the time that is missing it may have ended (then the archive knows), have been tried again, or be running still. One
that may run twice goes on with a new attempt; one that must not waits for a person, or is lost, as its job says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from crony.domain.ids import place_ident
from crony.domain.join import Join
from crony.domain.livejob import LiveJob
from crony.domain.outcome import Kind, Outcome
from crony.domain.record import UnknownRecord
from crony.domain.run import Claim, Envelope, Request, Wait, WaitReason
from crony.domain.signing import BadSeal, Sealer, Verifier
from crony.etcd.client import KV
from crony.etcd.keys import Keys, decode
from crony.lifecycle.end import outcome_of
from crony.lifecycle.move import Move
from crony.lifecycle.recover import put_again, set_back
from crony.recovery.backfills import Lookup, ended_since, must_not_repeat
from crony.recovery.wholes import carried_on, parts_of
from crony.store.recovery import KnownRun
from crony.transport_etcd import message as wire

WHY = "etcd was restored from a backup; it may have run since"


class Fate(Enum):
    """What became of a run."""

    DROPPED = "ended already, as the database knows"
    AGAIN = "go on with a new attempt"
    HELD = "wait for a person"
    LOST = "ended as lost"
    PARTS = "go on with the parts that did not run"
    LEFT = "left as they are"


@dataclass(slots=True)
class Held:
    """The records of one run."""

    run: str
    wait: KV | None = None
    message: KV | None = None
    claim: KV | None = None
    accepted: KV | None = None
    request: KV | None = None
    letter: KV | None = None
    join: KV | None = None
    orders: list[str] = field(default_factory=list)
    """Keys that go with the run: orders about it, its callee's last sign of life."""

    @property
    def places(self) -> tuple[KV | None, ...]:
        """Where it is."""
        return self.wait, self.message, self.claim, self.accepted, self.request, self.join


@dataclass(frozen=True, slots=True)
class Decision:
    """A run's fate, and the step that brings it about; None: none is needed."""

    run: str
    fate: Fate
    move: Move | None = None


def sort(keys: Keys, pairs: Iterable[KV]) -> dict[str, Held]:
    """The records under `run/`, `dead/` and `cmd/` by run; requests that are no run, and what nobody can read, stay."""
    found: dict[str, Held] = {}

    def of(run: str) -> Held:
        return found.setdefault(run, Held(run))

    for kv in pairs:
        match kv.key.removeprefix(keys.root).split("/"):
            case ["run", "wait", run]:
                of(run).wait = kv
            case ["run", "acc", run]:
                of(run).accepted = kv
            case ["run", "join", run]:
                of(run).join = kv
            case ["run", "q", _, kind, place] if "." in place:
                setattr(of(place_ident(place)), "message" if kind == "m" else "claim", kv)
            case ["run", "in", _]:
                request = request_of(kv.value)
                if request is not None and request.kind == "run":
                    of(request.run).request = kv
            case ["dead", _, place] if "." in place:
                of(place_ident(place)).letter = kv
            case ["cmd", _, run] | ["run", "beat", run]:
                of(run).orders.append(kv.key)
    return found


class Judge:
    """Decides. `jobs`: published documents by id, for requests; `known`: what the archive knows of the runs.

    `lookup` asks it for further ones: parts.
    """

    def __init__(
        self,
        keys: Keys,
        sealer: Sealer,
        centres: Verifier,
        jobs: Mapping[str, LiveJob],
        known: Mapping[str, KnownRun],
        lookup: Lookup,
        now: float,
    ) -> None:
        self._keys, self._sealer, self._centres = keys, sealer, centres
        self._jobs, self._known, self._lookup, self._now = jobs, known, lookup, now

    def decide(self, held: Held) -> Decision:
        """What becomes of one run."""
        known = self._known.get(held.run)
        records = self._records(held)
        if known is not None and known.ended:
            if not records and held.letter is None:
                return Decision(held.run, Fate.LEFT)
            move = set_back(self._keys, records | _of(held.letter), orders=held.orders)
            revision = max((kv.mod for kv in (held.letter, *held.places) if kv is not None), default=0)
            return Decision(held.run, Fate.DROPPED, move.also(ended_since(self._keys, held.run, known, revision)))
        if held.join is not None:
            return self._whole(held, held.join)
        if known is not None and known.parts and (held.request is not None or held.wait is not None):
            return self._split_since(held, known)
        if held.request is not None:
            return self._request(held, held.request)
        if held.letter is not None and not records:
            return self._letter(held, held.letter)
        if not records or held.accepted is not None:
            return Decision(held.run, Fate.LEFT)  # who accepted it may still complete it; its deadline is kept
        return self._run(held, records, known.attempt if known is not None else 0)

    def _records(self, held: Held) -> dict[str, int]:
        found: dict[str, int] = {}
        for kv in held.places:
            found |= _of(kv)
        if held.message is not None and held.claim is None:  # a node may claim it at this very moment
            queue, _, place = held.message.key.removeprefix(f"{self._keys.run}q/").split("/")
            found[self._keys.claim(decode(queue), place)] = 0
        return found

    def _run(self, held: Held, records: dict[str, int], attempts: int) -> Decision:
        wait = _wait(held.wait)
        sealed = wait.envelope if wait is not None else _sealed(held.message)
        try:
            told = Envelope.read(self._centres.open(sealed))
        except (BadSeal, UnknownRecord):
            return Decision(held.run, Fate.LEFT)  # no node runs it, and the leader says what is wrong with it
        if wait is not None:
            if self._untouched(told, wait, attempts):
                return Decision(held.run, Fate.LEFT)
            finished, tried = max(wait.finished, attempts), False
        else:
            tried = held.claim is not None and bool(_holder(held.claim))
            finished = max(told.attempt - (0 if tried else 1), attempts)
        outcomes: list[tuple[int | str, Outcome]] = []
        fate = self._fate(told)
        if fate is Fate.LOST:
            end = outcome_of(told, Kind.LOST, ended_at=self._now, fence=0, final=True, reason=WHY)
            outcomes.append(("end", replace(end, attempt=max(finished, attempts))))
            return Decision(held.run, fate, set_back(self._keys, records, outcomes=outcomes, orders=held.orders))
        if tried and told.attempt > attempts:
            lost = outcome_of(told, Kind.LOST, ended_at=self._now, fence=0, final=False, reason=WHY,
                              held=fate is Fate.HELD)  # fmt: skip
            outcomes.append((told.attempt, lost))
        reason = WaitReason.HOLD if fate is Fate.HELD else WaitReason.REROUTE
        again = Wait(
            run=held.run,
            envelope=self._resealed(told, sealed, finished),
            finished=finished,
            reason=reason.value,
            since_at=self._now,
            losses=wait.losses if wait is not None else told.losses,
            detail=WHY,
            avoid=list(wait.avoid if wait is not None else told.avoid),
        )
        move = set_back(self._keys, {**records, self._keys.run_wait(held.run): _of_key(held.wait)}, wait=again,
                        outcomes=outcomes)  # fmt: skip
        return Decision(held.run, fate, move)

    def _untouched(self, told: Envelope, wait: Wait, attempts: int) -> bool:
        """Whether nothing can have become of a waiting run, or nothing has to be done about it."""
        not_before = max(wait.due_at, 0.0)
        if wait.reason == WaitReason.DELAY and not_before > self._now:
            return True
        if attempts > wait.finished:
            return False
        return wait.reason == WaitReason.HOLD or self._fate(told) is Fate.AGAIN

    def _fate(self, told: Envelope) -> Fate:
        if told.delivery == "at_most_once" or told.on_node_loss == "hold":
            return Fate.HELD
        return Fate.LOST if told.on_node_loss == "fail" else Fate.AGAIN

    def _resealed(self, told: Envelope, sealed: str, finished: int) -> str:
        """The envelope of the last attempt that ended, or of the one that comes next; a later one is sealed anew."""
        if told.attempt in (finished, finished + 1):
            return sealed
        return self._sealer.seal(replace(told, attempt=finished + 1, queue="", incarnation="").payload()).decode()

    def _request(self, held: Held, kv: KV) -> Decision:
        request = request_of(kv.value)
        live = self._jobs.get(request.job) if request is not None else None
        if request is None or live is None or live.deleted:
            return Decision(held.run, Fate.LEFT)
        if not must_not_repeat(live):
            return Decision(held.run, Fate.LEFT)
        end = Outcome(
            held.run, request.job, request.name, request.generation, live.revision, 0, Kind.LOST.value, True,
            request.trigger, self._now, WHY, requested_at=request.requested_at, params=request.params or None,
            idem=request.idem, chain=request.chain, cause=request.cause,
            chain_at=request.chain_at, no_chain=request.no_chain,
        )  # fmt: skip
        return Decision(held.run, Fate.LOST, set_back(self._keys, _of(kv), outcomes=[("end", end)]))

    def _whole(self, held: Held, kv: KV) -> Decision:
        """A run whose parts are under way."""
        try:
            join = Join.read(kv.value)
            told = Envelope.read(self._centres.open(join.envelope))
        except (BadSeal, UnknownRecord):
            return Decision(held.run, Fate.LEFT)  # the leader ends it, and says why
        if not join.sound:
            return Decision(held.run, Fate.LEFT)
        after = carried_on(join, self._lookup(parts_of(join)), once=self._fate(told) is not Fate.AGAIN)
        if after == join:
            return Decision(held.run, Fate.LEFT)
        return Decision(held.run, Fate.PARTS, put_again(kv.key, kv.mod, after.encode()))

    def _split_since(self, held: Held, known: KnownRun) -> Decision:
        """A run that the backup has before its split, though parts of it ran: it goes on with those that did not."""
        wait = _wait(held.wait)
        records = self._records(held)
        if wait is not None:
            try:
                told = Envelope.read(self._centres.open(wait.envelope))
            except (BadSeal, UnknownRecord):
                return Decision(held.run, Fate.LEFT)
            if told.parts:
                join = Join(held.run, wait.envelope, told.parts, self._now)
                after = carried_on(join, self._lookup(parts_of(join)), once=self._fate(told) is not Fate.AGAIN)
                move = set_back(self._keys, {**records, self._keys.run_join(held.run): 0})
                return Decision(
                    held.run, Fate.PARTS, move.also(Move({}, puts={self._keys.run_join(held.run): after.encode()}))
                )
        return Decision(held.run, Fate.LOST, set_back(self._keys, records, outcomes=[("end", lost(known, self._now))]))

    def _letter(self, held: Held, kv: KV) -> Decision:
        """A dead letter that nobody judged yet: the leader would send it again."""
        try:
            letter = json.loads(kv.value)
            sealed = str(json.loads(wire.decode(str(letter["message"]).encode())["body"])[0][0])
            told = Envelope.read(self._centres.open(sealed))
        except (BadSeal, UnknownRecord, wire.Undecodable, ValueError, LookupError, TypeError, RecursionError):
            return Decision(held.run, Fate.LEFT)
        if letter.get("judged") or self._fate(told) is Fate.AGAIN:
            return Decision(held.run, Fate.LEFT)
        end = outcome_of(told, Kind.LOST, ended_at=self._now, fence=0, final=True, reason=WHY)
        record = json.dumps({**letter, "judged": True}).encode()
        buried = put_again(kv.key, kv.mod, record)
        return Decision(held.run, Fate.LOST, buried.also(set_back(self._keys, {}, outcomes=[("end", end)])))


def lost(known: KnownRun, now: float) -> Outcome:
    """The end of a run of which the archive knows an attempt and etcd nothing any more."""
    return Outcome(
        known.id, known.job, known.name, known.generation, known.revision, known.attempt, Kind.LOST.value, True,
        known.trigger, now, WHY, fire_at=known.fire_at, requested_at=known.requested_at or 0.0, parts=known.parts,
    )  # fmt: skip


def is_final(value: bytes) -> bool:
    """Whether an outcome ends its run."""
    try:
        return Outcome.read(value).final is True
    except UnknownRecord:
        return False


def _of(kv: KV | None) -> dict[str, int]:
    return {} if kv is None else {kv.key: kv.mod}


def _of_key(kv: KV | None) -> int:
    return 0 if kv is None else kv.mod


def request_of(value: bytes) -> Request | None:
    """What a request says; None when nobody can read it."""
    try:
        return Request.read(value)
    except UnknownRecord:
        return None


def _wait(kv: KV | None) -> Wait | None:
    try:
        return Wait.read(kv.value) if kv is not None else None
    except UnknownRecord:
        return None


def _holder(kv: KV) -> str:
    try:
        return Claim.read(kv.value).incarnation
    except UnknownRecord:
        return "?"


def _sealed(kv: KV | None) -> str:
    try:
        return "" if kv is None else str(json.loads(wire.decode(kv.value)["body"])[0][0])
    except (wire.Undecodable, ValueError, LookupError, TypeError, RecursionError):
        return ""
