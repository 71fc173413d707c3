"""Sending: notices go to their channels, at least once each, and what became of them is noted (transaction 22).

One thread decides and writes; each channel has at most one batch under way, in a thread of its own with a deadline. A
channel that fails is tried again after growing pauses, with its oldest alert first; many that wait become one message.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from crony.beat.duties.alerts import Undelivered
from crony.beat.duty import Background
from crony.clock import Clock
from crony.domain import alert as alerts
from crony.domain import notice as notices
from crony.domain.alert import Alert
from crony.domain.alerting import Rule
from crony.domain.channel import Channel, channel_of, parse_destinations
from crony.domain.notice import GIVEN_UP, SENT, Doing, Notice
from crony.domain.record import UnknownRecord
from crony.errors import Invalid
from crony.etcd.client import KV, Client
from crony.lifecycle.move import Lead, Move, transaction
from crony.lifecycle.notify import noted, over
from crony.notifications.directory import Directory, Unusable
from crony.notifications.posting import TOGETHER, Item, Posting
from crony.notifications.refused import NotSent

log = logging.getLogger("crony.beat")

EVERY = 2.0
DEADLINE = 60.0
"""Seconds for one batch; a sender that hangs longer is left to itself, and counts as failed."""
LEFT = 2
"""Most senders of one channel left to themselves."""
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 600.0
GIVE_UP = 86_400.0
"""Seconds after which an alert that could not be sent is given up."""
REFUSALS = 5
"""Times that a provider may refuse the same alert for good before it is given up."""


@dataclass(eq=False)
class State:
    """What this leader knows of one channel."""

    failures: int = 0
    rest_until: float = 0.0
    channel: Channel | Unusable | None = None
    posting: Posting | None = None
    left: list[Posting] = field(default_factory=list)
    failing: str = ""
    sent_at: float = 0.0
    """When it last worked, epoch seconds; 0: not in this term."""
    told: Doing | None = None
    """What was last put for people."""


class Sending:
    """The duty on notices, of the leader of shard 0."""

    def __init__(
        self,
        client: Client,
        lead: Lead,
        directory: Directory,
        clock: Clock,
        undelivered: Undelivered,
        delivery: Background,
        *,
        tail: Callable[[Alert], str],
        console: str,
    ) -> None:
        """`tail`: the end of a run's output; `console`: address of the web console, or empty."""
        self._client, self._lead, self._directory, self._clock = client, lead, directory, clock
        self._undelivered, self._delivery, self._tail, self._console = undelivered, delivery, tail, console
        self.channels: dict[str, State] = {}
        self._to: dict[str, list[str]] = {}
        """Notice -> where it goes, as found out by this leader."""
        self._results: dict[tuple[str, str], tuple[str, float, str]] = {}
        """(notice, destination) -> what became of it, until it is noted in etcd: it is not sent again meanwhile."""
        self._refused: dict[tuple[str, str], int] = {}
        self._recipients: dict[tuple[str, str], tuple[str, ...]] = {}
        self.waiting = 0
        self.background = Background("alert-sending", EVERY, self._work)

    @property
    def failing(self) -> dict[str, str]:
        """Channel -> why it cannot be used right now."""
        return {name: state.failing for name, state in list(self.channels.items()) if state.failing}

    # -- one look ------------------------------------------------------------------------------

    def _work(self) -> None:
        self._gather()
        prefix = self._lead.keys.notice("")
        kvs = self._client.list(prefix).kvs
        self.waiting = len(kvs)
        there = {kv.key.removeprefix(prefix) for kv in kvs}
        self._forget(there)
        if self.background.stopping or not (kvs or self.channels):
            return
        now, channels, rules = self._client.now(), self._directory.channels(), self._directory.rules()
        for name in [name for name, state in self.channels.items() if name not in channels and state.posting is None]:
            del self.channels[name]
        lines: dict[str, list[Item]] = {}
        oldest_first = sorted(kvs, key=lambda kv: kv.create)
        for place, kv in enumerate(oldest_first):
            ident = kv.key.removeprefix(prefix)
            try:
                notice = Notice.read(kv.value)
                alert = notice.about(ident, now)
            except UnknownRecord:
                self._client.txn(transaction(self._lead, [over(self._lead.keys, ident, kv.mod, None, 0)]))
                log.error("the notice %s cannot be read and is dropped", ident)
                continue
            if ident not in self._to:
                self._to[ident] = self._destinations(notice, alert, rules)
            if place < len(kvs) - notices.MOST:
                self._give_up(ident, notice, "too many alerts wait", now)
            for destination in self._to[ident]:
                if destination in notice.told or (ident, destination) in self._results:
                    continue
                name = channel_of(destination)
                channel = channels.get(name)
                if channel is None:
                    self._done(ident, destination, GIVEN_UP, f"there is no channel {name}", now)
                elif now - alert.at > GIVE_UP and name in self.channels and self.channels[name].failures:
                    self._done(ident, destination, GIVEN_UP, "it could not be sent for a day", now)
                else:
                    lines.setdefault(name, []).append(self._item(ident, alert, destination, channel))
            self._note(kv, ident, notice, alert)
        for name, items in lines.items():
            self._post(channels[name], name, items)
        self._tell(channels.keys())

    def _destinations(self, notice: Notice, alert: Alert, rules: list[Rule]) -> list[str]:
        """Where a notice goes. Whoever may write to etcd may choose destinations, but not write odd ones."""
        if notice.to is None:
            return list(self._directory.destinations(alert, rules))
        try:
            return list(parse_destinations(notice.to, "to"))
        except Invalid as error:
            log.error("the notice %s names no destinations: %s", alert.id, error)
            return []

    def _item(self, ident: str, alert: Alert, destination: str, channel: Channel | Unusable) -> Item:
        recipients: tuple[str, ...] = ()
        if isinstance(channel, Channel) and channel.kind == "email":
            everybody = tuple(channel.settings["to"]) if destination == channel.name else (destination,)
            recipients = self._recipients.get((ident, destination), everybody)
        return Item(ident, alert, destination, recipients)

    def _post(self, channel: Channel | Unusable, name: str, items: list[Item]) -> None:
        """Set out with the next batch, where the channel is free."""
        state, mono = self.channels.setdefault(name, State()), self._clock.monotonic()
        state.left = [each for each in state.left if not each.over]
        if channel is not state.channel:  # it was edited: perhaps it works now
            state.channel, state.failures, state.rest_until = channel, 0, 0.0
        if state.posting is not None or mono < state.rest_until or len(state.left) >= LEFT:
            return
        if isinstance(channel, Unusable):
            self._fails(name, state, channel.why, 0.0)
            return
        # One that is refused for good must not stand in the way of the others.
        items.sort(key=lambda item: self._refused.get((item.ident, item.destination), 0))
        items = [item for item in items if item.recipients == items[0].recipients]  # one message has one list of them
        batch = items[:1] if state.failures else items[:TOGETHER]
        state.posting = Posting(
            channel, batch, now=self._client.now, tail=self._tail, console=self._console,
            done=self.background.nudge, began=mono,
        )  # fmt: skip

    # -- what became of it ---------------------------------------------------------------------

    def _gather(self) -> None:
        now, mono = self._client.now(), self._clock.monotonic()
        for name, state in self.channels.items():
            posting = state.posting
            if posting is None:
                continue
            if not posting.over:
                if mono - posting.began > DEADLINE:
                    state.left.append(posting)
                    state.posting = None
                    self._fails(name, state, f"its sender is not done after {DEADLINE:g} s", 0.0)
                continue
            state.posting = None
            trouble: NotSent | None = None
            for answer in posting.answers:
                item, error = answer.item, answer.error
                if error is None:
                    self._done(item.ident, item.destination, SENT, answer.said, now)
                    state.sent_at = now
                    continue
                trouble = error
                if error.left:
                    self._recipients[item.ident, item.destination] = error.left
                if error.lasting:
                    place = item.ident, item.destination
                    self._refused[place] = self._refused.get(place, 0) + 1
                    if self._refused[place] >= REFUSALS:
                        self._done(*place, GIVEN_UP, str(error), now)
            if trouble is not None:
                self._fails(name, state, str(trouble), trouble.after)
            else:
                if state.failing:
                    log.warning("the alert channel %s works again", name)
                state.failures, state.failing, state.rest_until = 0, "", 0.0

    def _fails(self, name: str, state: State, why: str, after: float) -> None:
        if why != state.failing:
            log.warning("the alert channel %s does not work: %s", name, why)
        pause = after or min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(state.failures, 10))
        state.failures, state.failing, state.rest_until = state.failures + 1, why, self._clock.monotonic() + pause

    def _tell(self, there: Iterable[str]) -> None:
        """Put how each channel does, where that changed, for whoever looks at the channels."""
        for name in there:
            state = self.channels.get(name)
            if state is None:
                continue
            doing = Doing(state.failing, state.sent_at)
            if doing != state.told:
                move = Move(puts={self._lead.keys.sender(name): doing.encode()})
                if self._client.txn(transaction(self._lead, [move])).succeeded:
                    state.told = doing

    def _give_up(self, ident: str, notice: Notice, why: str, now: float) -> None:
        for destination in self._to[ident]:
            if destination not in notice.told and (ident, destination) not in self._results:
                self._done(ident, destination, GIVEN_UP, why, now)

    def _done(self, ident: str, destination: str, state: str, said: str, now: float) -> None:
        if state == GIVEN_UP:
            log.error("the alert %s is not sent to %s: %s", ident, destination, said)
        self._results[ident, destination] = state, now, said

    def _note(self, kv: KV, ident: str, notice: Notice, alert: Alert) -> None:
        """Write down what became of it; over, when nothing is left."""
        to, keys = self._to[ident], self._lead.keys
        fresh = {each: self._results[ident, each] for each in to if (ident, each) in self._results}
        for destination, (state, at, said) in fresh.items():
            notice = notice.with_result(destination, state, at, said, to)
        if any(destination not in notice.told for destination in to):
            if fresh and not self._client.txn(transaction(self._lead, [noted(keys, ident, kv.mod, notice)])).succeeded:
                return
        elif not self._end(kv, ident, alert, notice):
            return
        for destination in fresh:
            self._results.pop((ident, destination), None)

    def _end(self, kv: KV, ident: str, alert: Alert, notice: Notice) -> bool:
        keys = self._lead.keys
        if not notice.told:
            return self._client.txn(transaction(self._lead, [over(keys, ident, kv.mod, None, 0)])).succeeded
        there = self._client.get(keys.alert(ident))
        if there is not None:
            alert = alerts.read(ident, there.value, self._client.now())
        move = over(keys, ident, kv.mod, replace(alert, told=notice.told), there.mod if there else 0)
        if not self._client.txn(transaction(self._lead, [move])).succeeded:
            return False
        if there is None:
            self._undelivered.more(1)
        self._delivery.nudge()
        return True

    def _forget(self, there: set[str]) -> None:
        """Keep in mind only what is there."""
        self._to = {ident: to for ident, to in self._to.items() if ident in there}
        self._results = {place: result for place, result in self._results.items() if place[0] in there}
        self._refused = {place: count for place, count in self._refused.items() if place[0] in there}
        self._recipients = {place: left for place, left in self._recipients.items() if place[0] in there}
