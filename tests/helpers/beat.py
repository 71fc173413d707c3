"""A centre's stage: real etcd, a web that publishes, nodes that are nothing but their keys and a real lease."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from crony.beat.centre import Centre
from crony.clock import SYSTEM, Clock
from crony.domain import ids
from crony.domain.alerting import LiveRule, parse_rule
from crony.domain.channel import parse_channel, sealed
from crony.domain.livejob import LiveJob
from crony.domain.node import ABILITIES, NodeControl, NodeFacts
from crony.domain.outcome import Kind, Outcome
from crony.domain.pool import Pool, Slot
from crony.domain.run import Claim, Done, Envelope, Request, Wait
from crony.domain.sealing import Cipher, new_secret_key
from crony.domain.signing import Sealer, new_key, peek
from crony.etcd.client import Client
from crony.etcd.errors import EtcdUnavailable, EtcdUnknown
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, TxnResult, absent, exists, mod
from crony.lifecycle.end import Ended, Stale, end, outcome_of
from crony.lifecycle.enqueue import Submitted, submit
from crony.lifecycle.permit import permit, starting
from crony.lifecycle.publish import publish
from crony.lifecycle.publish_object import publish_object
from crony.settings import Settings
from crony.transport_etcd import message as wire
from tests.helpers.wait import patient, until

WEB, CENTRE = new_key(), new_key()
SECRET_KEY = new_secret_key()
SECRETS = Cipher([SECRET_KEY])
ACTION = {"kind": "shell", "command": ["true"]}


class Message:
    """A message in a queue, as a node would see it."""

    def __init__(self, queue: str, place: str, value: bytes, seen: int) -> None:
        self.queue, self.place, self.value, self.seen = queue, place, value, seen
        self.head = wire.decode(value)
        self.sealed = str(json.loads(self.head["body"])[0][0])
        self.envelope = Envelope.read(peek(self.sealed))

    @property
    def run(self) -> str:
        """Its run."""
        return self.envelope.run


class FakeNode:
    """A node's keys under a real lease: session, facts, claims."""

    def __init__(self, stage: Stage, name: str, **facts: Any) -> None:
        self.stage, self.name = stage, name
        self.incarnation = ids.incarnation()
        self.queue = f"run.{name}"
        self.facts = NodeFacts(
            **{
                "name": name,
                "incarnation": self.incarnation,
                "queue": self.queue,
                "hostname": "here",
                "pid": 1,
                "boot_id": "b",
                "version": "0",
                "capacity": 4,
                "kinds": ["shell", "http", "python"],
                "can": list(ABILITIES),
                **facts,
            }
        )
        self.lease = 0
        self.appear()

    def appear(self) -> None:
        """Put session and facts, under a new lease."""
        client, keys = self.stage.client, self.stage.keys
        self.lease = client.grant(120)
        client.put(keys.session(self.incarnation), b"{}", lease=self.lease)
        client.put(keys.node(self.name), self.facts.encode(), lease=self.lease)

    def say(self, **facts: Any) -> None:
        """Change its facts."""
        self.facts = replace(self.facts, **facts)
        self.stage.client.put(self.stage.keys.node(self.name), self.facts.encode(), lease=self.lease)

    def vanish(self) -> None:
        """Its lease ends."""
        self.stage.client.revoke(self.lease)

    def messages(self) -> list[Message]:
        """What lies in its queue, in order."""
        return [message for message in self.stage.messages() if message.queue == self.queue]

    def claim(self, message: Message) -> int:
        """Claim a message (transaction 8); the fence."""
        keys = self.stage.keys
        key = keys.claim(message.queue, message.place)
        value = Claim(self.incarnation, node=self.name, at=SYSTEM.wall()).encode()
        unchanged = mod(keys.message(message.queue, message.place), message.seen)
        txn = Txn().when(exists(keys.session(self.incarnation)), unchanged, absent(key)).put(key, value)
        result = self.stage.client.txn(txn)
        assert result.succeeded
        return result.revision

    def permit(self, message: Message, fence: int) -> int:
        """Take the start permit (transaction 9); the new fence."""
        claim = starting(self.incarnation, 1, node=self.name, at=SYSTEM.wall())
        granted = permit(self.stage.client, self.stage.keys, message.queue, message.place, fence, claim)
        assert granted
        return granted

    def end(self, message: Message, fence: int, kind: str = Kind.SUCCEEDED, **facts: Any) -> Ended | Stale:
        """End an attempt (transaction 10)."""
        outcome = outcome_of(message.envelope, kind, ended_at=SYSTEM.wall(), fence=fence, node=self.name, **facts)
        return end(self.stage.client, self.stage.keys, message.sealed, message.place, fence, outcome)

    def run_all(self, kind: str = Kind.SUCCEEDED) -> list[Message]:
        """Claim and end everything in its queue."""
        done = self.messages()
        for message in done:
            assert isinstance(self.end(message, self.claim(message), kind), Ended)
        return done


class Stage:
    """One namespace with everything a centre meets. Close it (or use `stage`)."""

    def __init__(self, endpoint: str, keys: Keys, **settings: Any) -> None:
        self.keys = keys
        self.client = Client([endpoint])
        self.web = Sealer(WEB[0])
        self.settings = Settings(
            **{
                "namespace": keys.namespace,
                "etcd_endpoints": (endpoint,),
                "signing_key": CENTRE[0],
                "web_keys": (WEB[1],),
                "centre_keys": (CENTRE[1],),
                "leader_ttl": 4.0,
                "node_ttl": 3.0,
                "grace": 0.3,
                "centre": "one",
                "secret_key": (SECRET_KEY,),
                **settings,
            }
        )
        self.centres: list[RunningCentre] = []

    def centre(self, *, clock: Clock = SYSTEM, **settings: Any) -> RunningCentre:
        """Start a centre in this process."""
        running = RunningCentre(Centre(replace(self.settings, **settings), clock=clock))
        self.centres.append(running)
        return running

    def lead(self, **settings: Any) -> RunningCentre:
        """A centre that leads."""
        running = self.centre(**settings)
        running.leads()
        return running

    def node(self, name: str, **facts: Any) -> FakeNode:
        """A node."""
        return FakeNode(self, name, **facts)

    def close(self) -> None:
        """Stop the centres."""
        for running in self.centres:
            running.ask_to_stop()
        for running in self.centres:
            running.stop()
        self.client.close()

    # -- the web's side ------------------------------------------------------------------------

    def publish(self, document: Mapping[str, Any] | None = None, *, done: int | None = None, **fields: Any) -> LiveJob:
        """Create a job; `done`: put its cursor there instead of now."""
        name = f"job/{ids.fresh('n')}"
        merged = {"name": name, "action": ACTION, **(document or {}), **fields}
        live = LiveJob.created(ids.job_id(), merged, now=SYSTEM.wall() if done is None else done)
        if done is None:
            publish(self.client, self.keys, self.web, live)
        else:  # as if it had been created then
            self.client.txn(
                Txn()
                .put(self.keys.job(live.id), self.web.seal(live.payload()))
                .put(self.keys.done(live.id), Done(done).encode())
            )
        return live

    def edit(self, live: LiveJob, **changes: Any) -> LiveJob:
        """Save the job again with other fields."""
        document = {**live.job.document(), **changes}
        new = LiveJob.created(live.id, document, revision=live.revision + 1, now=SYSTEM.wall())
        assert publish(self.client, self.keys, self.web, new) == new.revision
        return new

    def delete(self, live: LiveJob) -> None:
        """Publish the tombstone."""
        publish(self.client, self.keys, self.web, live.tombstone(revision=live.revision + 1, now=SYSTEM.wall()))

    def pool(self, name: str, limit: int, *, revision: int = 1, deleted: bool = False) -> None:
        """Publish a pool."""
        publish_object(self.client, self.keys, self.web, "pool", Pool(name, limit, revision=revision, deleted=deleted))

    def channel(self, document: Mapping[str, Any], *, revision: int = 1, cipher: Cipher = SECRETS) -> None:
        """Publish a channel of alerts."""
        made = sealed(parse_channel(document), cipher, revision=revision)
        publish_object(self.client, self.keys, self.web, "channel", made)

    def rule(self, *, revision: int = 1, **document: Any) -> None:
        """Publish an alert rule."""
        rule = parse_rule(document)
        publish_object(self.client, self.keys, self.web, "alert-rule", LiveRule(rule.name, rule.document(), revision))

    def slots(self) -> dict[str, str]:
        """Taken slots as `<pool>/<number>`, and the runs that hold them."""
        found = self.client.list(self.keys.pools).kvs
        return {kv.key.removeprefix(self.keys.pools): Slot.read(kv.value).run for kv in found}

    def ask(self, live: LiveJob, **options: Any) -> Submitted:
        """Ask for a run of a job."""
        idempotency = options.pop("idempotency", None)
        request = Request("run", job=live.id, name=live.name, generation=live.generation, **options)
        return submit(self.client, self.keys, request, idempotency=idempotency)

    def request(self, request: Request) -> str:
        """Put any request."""
        ident = ids.request_id()
        self.client.put(self.keys.run_in(ident), request.encode())
        return ident

    def control(self, node: str, **control: Any) -> None:
        """Set what people set for a node."""
        self.client.put(self.keys.nodectl(node), NodeControl(**control).encode())

    # -- what lies there -----------------------------------------------------------------------

    def messages(self) -> list[Message]:
        """Messages of all run queues."""
        found = []
        for kv in self.client.list(f"{self.keys.root}run/q/").kvs:
            queue, kind, place = kv.key.removeprefix(f"{self.keys.root}run/q/").split("/")
            if kind == "m":
                found.append(Message(queue, place, kv.value, kv.mod))
        return found

    def waits(self) -> dict[str, Wait]:
        """Waiting runs."""
        prefix = self.keys.run_wait("")
        return {kv.key.removeprefix(prefix): Wait.read(kv.value) for kv in self.client.list(prefix).kvs}

    def outs(self) -> dict[tuple[str, str], Outcome]:
        """Outcomes by run and attempt."""
        found = {}
        for kv in self.client.list(self.keys.outs).kvs:
            run, attempt = kv.key.removeprefix(self.keys.outs).split("/")
            found[run, attempt] = Outcome.read(kv.value)
        return found

    def skips(self, live: LiveJob) -> list[Outcome]:
        """Skip records of a job, oldest first."""
        found = [out for (_, n), out in self.outs().items() if n == "0" and out.job == live.id]
        return sorted(found, key=lambda out: out.fire_at or 0)

    def requests(self) -> list[str]:
        """Ids in the inbox."""
        return [kv.key.rsplit("/", 1)[1] for kv in self.client.list(self.keys.run_in("")).kvs]

    def done(self, live: LiveJob) -> Done:
        """A job's cursor."""
        found = self.client.get(self.keys.done(live.id))
        assert found is not None
        return Done.read(found.value)

    def fires(self, live: LiveJob) -> list[int]:
        """Nominal seconds of the fires dispatched (in queues or waiting), sorted; one per message."""
        runs = [message.run for message in self.messages()] + list(self.waits())
        parsed = [ids.parse_run_id(run) for run in runs]
        return sorted(run.fire for run in parsed if run.job == live.id and run.fire is not None)


class RunningCentre:
    """A centre in a thread."""

    def __init__(self, centre: Centre) -> None:
        self.centre = centre
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=centre.run, args=(self.stopping,), daemon=True)
        self._thread.start()

    def leads(self, timeout: float = 10.0) -> RunningCentre:
        """Until it leads and has its first listing."""
        until(lambda: self.centre.leader is not None and self.centre.leader.ready, timeout, "the centre to lead")
        return self

    def status(self) -> dict[str, Any]:
        """What it says of itself."""
        return self.centre.status()

    def counts(self) -> dict[str, int]:
        """Its counters."""
        return dict(self.status().get("counts", {}))

    def ask_to_stop(self) -> None:
        """Stop soon."""
        self.stopping.set()

    def stop(self) -> None:
        """Stop and wait."""
        self.stopping.set()
        self._thread.join(patient(15))
        assert not self._thread.is_alive(), "the centre did not stop"


def narrow(running: RunningCentre, most: int) -> None:
    """From now on this centre's transactions may have so many bytes."""
    client = running.centre.client
    real = client.txn

    def txn(txn: Txn, **options: Any) -> TxnResult:
        txn.max_bytes = most
        return real(txn, **options)

    client.txn = txn  # type: ignore[method-assign]


class Dying:
    """Lets a centre write until its first transaction that `meant` picks; that one and all later ones never happen."""

    def __init__(self, centre: RunningCentre, meant: Callable[[Txn], bool], *, lose_answer: bool = False) -> None:
        self.client, self.meant, self.lose_answer = centre.centre.client, meant, lose_answer
        self.real: Callable[..., TxnResult] = self.client.txn
        self.dead = False
        self.client.txn = self._txn  # type: ignore[method-assign]

    def _txn(self, txn: Txn, **options: Any) -> TxnResult:
        if self.dead:
            raise EtcdUnavailable("dead")
        if self.meant(txn):
            if self.lose_answer:
                self.real(txn, **options)
            self.dead = True
            raise EtcdUnknown("dead")
        return self.real(txn, **options)


class ShiftedClock:
    """A clock that runs wrong by `shift` seconds."""

    def __init__(self, shift: float = 0.0) -> None:
        self.shift = shift

    def wall(self) -> float:
        """Wrong wall time."""
        return SYSTEM.wall() + self.shift

    def monotonic(self) -> float:
        """Right durations."""
        return SYSTEM.monotonic()


@contextlib.contextmanager
def stage(endpoint: str, keys: Keys, **settings: Any) -> Iterator[Stage]:
    """A stage that is closed afterwards."""
    made = Stage(endpoint, keys, **settings)
    try:
        yield made
    finally:
        made.close()


def settled(what: Callable[[], Any], still: float = 0.4, timeout: float = 10.0) -> Any:
    """What `what()` gives once it has stayed the same for `still` seconds."""
    seen: list[Any] = [what(), SYSTEM.monotonic()]

    def same() -> bool:
        now = what()
        if now != seen[0]:
            seen[:] = [now, SYSTEM.monotonic()]
        return SYSTEM.monotonic() - seen[1] >= still

    until(same, timeout, "things to settle")
    return seen[0]
