"""Every key of Crony, in one place (prefix `/crony/<namespace>/`). Ids, never names, in keys.

Queue names and job names are percent-encoded, because they may contain `/` and a prefix must not
reach into another queue. Nobody else spells a key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import quote, unquote


@lru_cache(maxsize=4096)
def encode(text: str) -> str:
    """`text` as one key segment: percent-encoded UTF-8, no `/`."""
    return quote(text, safe="@.:~-_")


def decode(segment: str) -> str:
    """The text behind one key segment."""
    return unquote(segment)


def prefix_end(prefix: str) -> str:
    """The first key after every key that starts with `prefix` (etcd's range end)."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def is_run_queue(queue: str) -> bool:
    """Whether a queue carries runs (`run.<node>`, `run.@<name>`), on which an ack is never an end."""
    return queue.startswith("run.")


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one namespace (a Kombu virtual host is a namespace)."""

    namespace: str = "default"
    root: str = field(init=False, repr=False, compare=False, default="")
    """Prefix of everything in this namespace."""

    def __post_init__(self) -> None:
        """Every key begins with it: it is worked out once."""
        object.__setattr__(self, "root", f"/crony/{encode(self.namespace)}/")

    def told(self, shard: int) -> tuple[str, str, str]:
        """What a new leader of a shard puts first: a key in the range of each watch of a centre, in their order."""
        return f"{self.root}control.told/{shard}", f"{self.root}obj.told/{shard}", f"{self.root}session.told/{shard}"

    # -- what people defined ---------------------------------------------------------------

    def job(self, job: str) -> str:
        """Signed job document with revision and generation, or its tombstone."""
        return f"{self.root}job/{job}"

    def name(self, name: str) -> str:
        """Job id behind a name."""
        return f"{self.root}name/{encode(name)}"

    def obj(self, kind: str, ident: str) -> str:
        """Published object other than a job: calendar, pool limit, alert rule, channel, secret."""
        return f"{self.root}obj/{kind}/{ident}"

    @property
    def chains(self) -> str:
        """Changes with every change of which jobs follow which: who acts on those compares it."""
        return f"{self.root}obj/chains"

    def chain(self, job: str) -> str:
        """Whose ends a job follows; there are none for most jobs."""
        return self.obj("chain", job)

    @property
    def pools(self) -> str:
        """Prefix of the slots of all pools."""
        return f"{self.root}pool/"

    def slot(self, pool: str, index: int) -> str:
        """A numbered slot of a pool; there while a run holds it."""
        return f"{self.root}pool/{encode(pool)}/{index}"

    @property
    def control(self) -> str:
        """Stop switch and calendars' revision; bumped whenever one of them changes."""
        return f"{self.root}control"

    # -- the centre ------------------------------------------------------------------------

    def done(self, job: str) -> str:
        """Cursor of a job: every fire up to it is decided."""
        return f"{self.root}done/{job}"

    @property
    def beat(self) -> str:
        """Prefix of what the centres say of themselves: shards, leaders, who runs."""
        return f"{self.root}beat/"

    @property
    def shards(self) -> str:
        """Number of shards."""
        return f"{self.root}beat/shards"

    def centre(self, incarnation: str) -> str:
        """A centre that runs, leading or not (leased)."""
        return f"{self.root}beat/centre/{incarnation}"

    @property
    def mark(self) -> str:
        """What tells a restored etcd from one that went on."""
        return f"{self.root}beat/mark"

    def leader(self, shard: int) -> str:
        """The leader of a shard (leased)."""
        return f"{self.root}beat/{shard}/leader"

    def plain(self, app: str, entry: str = "") -> str:
        """Cursor of a plain entry of a Celery app's `beat_schedule`, or the prefix of all of an app's."""
        return f"{self.root}beat/plain/{encode(app)}/{encode(entry)}"

    @property
    def settled(self) -> str:
        """Position up to which outcomes had their consequences."""
        return f"{self.root}settled"

    # -- nodes -----------------------------------------------------------------------------

    def session(self, incarnation: str) -> str:
        """Life sign of one process start (leased)."""
        return f"{self.root}session/{incarnation}"

    def node(self, node: str) -> str:
        """Facts and load of a node (leased, same lease as its session)."""
        return f"{self.root}node/{encode(node)}"

    def nodectl(self, node: str) -> str:
        """What people set for a node: weight, cordon, drain."""
        return f"{self.root}nodectl/{encode(node)}"

    def cmd(self, node: str, run: str) -> str:
        """Order to a node about a claimed run: cancel. Lives until the run ends."""
        return f"{self.root}cmd/{encode(node)}/{run}"

    # -- services ----------------------------------------------------------------------------

    @property
    def services(self) -> str:
        """Prefix of the instances of all services."""
        return f"{self.root}svc/"

    def svc(self, service: str, instance: str = "") -> str:
        """An instance of a service (leased), or the prefix of all of them."""
        return f"{self.services}{encode(service)}/{encode(instance)}"

    # -- runs: all under one prefix, so that one watch stream shows each transaction whole --

    @property
    def run(self) -> str:
        """Prefix of all records of runs."""
        return f"{self.root}run/"

    def run_in(self, ident: str) -> str:
        """A request to the leader."""
        return f"{self.root}run/in/{ident}"

    def backfill(self, ident: str) -> str:
        """A backfill: what is left of it and how far it got; empty: the prefix of all of them."""
        return f"{self.root}run/backfill/{ident}"

    def run_wait(self, run: str) -> str:
        """A run that waits: retry, delay, no node, hold, or its attempt just ended."""
        return f"{self.root}run/wait/{run}"

    def queue(self, queue: str) -> str:
        """Prefix of one queue; messages lie under `m/`, claims under `c/`."""
        return f"{self.root}{'run/' if is_run_queue(queue) else ''}q/{encode(queue)}/"

    def message(self, queue: str, place: str) -> str:
        """A message; `place` is `<priority digit><sequence>.<id>` and gives the order."""
        return f"{self.queue(queue)}m/{place}"

    def claim(self, queue: str, place: str) -> str:
        """The claim on the message at the same place."""
        return f"{self.queue(queue)}c/{place}"

    def run_join(self, run: str) -> str:
        """A run whose parts, runs of their own, are under way."""
        return f"{self.root}run/join/{run}"

    def run_chain(self, run: str) -> str:
        """The ends that a run waits for, which is to follow several others."""
        return f"{self.root}run/chain/{run}"

    def run_acc(self, run: str) -> str:
        """A run that its callee accepted and will end later."""
        return f"{self.root}run/acc/{run}"

    def run_beat(self, run: str) -> str:
        """The last sign of life of an accepted run; put only while `run_acc` is unchanged."""
        return f"{self.root}run/beat/{run}"

    def run_told(self, run: str, what: str = "") -> str:
        """While the run lives: people were told this of it. Or the prefix of all that they were told."""
        return f"{self.root}run/told/{run}/{what}"

    @property
    def outs(self) -> str:
        """Prefix of all outcomes."""
        return f"{self.root}run/out/"

    def out(self, run: str, attempt: int | str) -> str:
        """Outcome of an attempt; 0 is a skip, `end` the run's end when decided after its attempt."""
        return f"{self.root}run/out/{run}/{attempt}"

    def idem(self, job: str, digest: str) -> str:
        """What an idempotency key stands for: run id and until when."""
        return f"{self.root}idem/{job}/{digest}"

    def dead(self, queue: str, place: str) -> str:
        """A quarantined message."""
        return f"{self.root}dead/{encode(queue)}/{place}"

    # Not under `beat/` nor beside the runs: centres and leaders follow those ranges, and this changes with each save.

    def taken(self, shard: int) -> str:
        """Up to which revision the leader of a shard has taken in what was saved."""
        return f"{self.root}taken/{shard}"

    def last_leader(self, shard: int) -> str:
        """Who took the lead of a shard last; stays when the leader's own key goes."""
        return f"{self.root}beat/{shard}/last"

    def alert(self, ident: str) -> str:
        """A notice to deliver; empty: the prefix of all of them."""
        return f"{self.root}alert/{ident}"

    # Not under a prefix between `job/` and `pool/`: leaders follow those, and this is the sending duty's alone.

    def notice(self, ident: str) -> str:
        """An alert on its way to people; empty: the prefix of all of them."""
        return f"{self.root}alert.send/{ident}"

    def sender(self, channel: str) -> str:
        """How a channel does, for people; empty: the prefix of all of them."""
        return f"{self.root}alert.channel/{channel}"

    def rated(self, rule: str, job: str = "") -> str:
        """When a rule on failure rates told last, of all its jobs or of one."""
        return f"{self.root}alert.rate/{rule}/{job}"

    def lapse(self, job: str) -> str:
        """The last run of a job that ended has failed; empty: the prefix of all of them."""
        return f"{self.root}lapse/{job}"

    # -- plain Celery --------------------------------------------------------------------------

    def bind(self, exchange: str) -> str:
        """Prefix of the bindings of an exchange."""
        return f"{self.root}bind/{encode(exchange)}/"

    def fan(self, exchange: str) -> str:
        """Prefix of the broadcasts of a fan-out exchange."""
        return f"{self.root}fan/{encode(exchange)}/"

    def exchange(self, exchange: str) -> str:
        """Record of an exchange: its type and properties; put again whenever one of its bindings changes."""
        return f"{self.bind(exchange)}exchange"

    def bound(self, exchange: str, queue: str = "") -> str:
        """Prefix of the bindings of an exchange, or of those to one queue."""
        return f"{self.bind(exchange)}q/{encode(queue)}/" if queue else f"{self.bind(exchange)}q/"

    def binding(self, exchange: str, queue: str, routing_key: str) -> str:
        """One binding of a queue to an exchange."""
        return f"{self.bound(exchange, queue)}{encode(routing_key)}"

    @property
    def bindings(self) -> str:
        """Prefix of the records and bindings of all exchanges."""
        return f"{self.root}bind/"

    @property
    def queue_records(self) -> str:
        """Prefix of the records of all declared queues."""
        return f"{self.root}queue/"

    def queue_record(self, queue: str) -> str:
        """Record of a declared queue (leased when it is exclusive). Run queues have none."""
        return f"{self.root}queue/{encode(queue)}"

    # Not under `consumer/` and `dead/`: the leader follows those ranges, and this is none of its business.

    @property
    def consumers(self) -> str:
        """Prefix of the consumers of all queues."""
        return f"{self.root}queue.consumer/"

    def consumer(self, queue: str, ident: str = "") -> str:
        """A consumer of a queue (leased), or the prefix of all of them."""
        return f"{self.consumers}{encode(queue)}/{ident}"

    @property
    def letters(self) -> str:
        """Prefix of the dead letters of all plain queues."""
        return f"{self.root}queue.dead/"

    def letter(self, queue: str, place: str = "") -> str:
        """A dead letter of a plain queue, or the prefix of all of them. Those of run queues: `dead`."""
        return f"{self.letters}{encode(queue)}/{place}"

    @property
    def upkeep(self) -> str:
        """Which process looks after the plain queues (leased)."""
        return f"{self.root}queue.upkeep"

    @property
    def plain_queues(self) -> str:
        """Prefix of the contents of all plain queues."""
        return f"{self.root}q/"

    def messages(self, queue: str) -> str:
        """Prefix of the messages of a queue."""
        return f"{self.queue(queue)}m/"

    def claims(self, queue: str) -> str:
        """Prefix of the claims on the messages of a queue."""
        return f"{self.queue(queue)}c/"

    @property
    def sessions(self) -> str:
        """Prefix of all life signs."""
        return f"{self.root}session/"

    def receipt(self, ident: str) -> str:
        """What a publisher last sent: clears up a lost answer (leased)."""
        return f"{self.root}queue.sent/{ident}"

    @property
    def delayed(self) -> str:
        """Prefix of plain messages that wait for their time."""
        return f"{self.root}queue.delayed/"

    def delayed_message(self, instant: float, place: str, queue: str) -> str:
        """A plain message that comes into `queue` at `place` not before `instant` (epoch seconds)."""
        return f"{self.delayed}{int(instant * 1e6):016x}.{place}/{encode(queue)}"

    @property
    def delayed_owner(self) -> str:
        """Who moves the messages that waited into their queues (leased)."""
        return f"{self.root}queue.delayed-owner"
