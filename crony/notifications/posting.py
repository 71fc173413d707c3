"""Posting: one batch of alerts to one channel, in a thread of its own that nobody waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crony.domain.alert import Alert, AlertKind
from crony.domain.channel import Channel
from crony.notifications import email, feishu
from crony.notifications.message import Message, message_of, message_of_many
from crony.notifications.refused import NotSent

SINGLY = 3
"""Up to so many alerts have a message each; more are told of in one."""
TOGETHER = 50
"""Most alerts of one batch."""


@dataclass(frozen=True, slots=True)
class Item:
    """An alert for one destination."""

    ident: str
    alert: Alert
    destination: str
    recipients: tuple[str, ...] = ()
    """E-mail: those who have not got it yet."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one item: the provider's words, or why it was not sent."""

    item: Item
    said: str = ""
    error: NotSent | None = None


def deliver(channel: Channel, message: Message, recipients: Sequence[str], now: float) -> str:
    """Send one message by its channel, and give the provider's answer. Raises `NotSent`."""
    if channel.kind == "email":
        return email.send(channel, message, recipients)
    return feishu.send(channel, message, now)


class Posting:
    """One batch under way. It sets out at once."""

    def __init__(
        self,
        channel: Channel,
        items: Sequence[Item],
        *,
        now: Callable[[], float],
        tail: Callable[[Alert], str],
        console: str,
        done: Callable[[], None],
        began: float,
    ) -> None:
        """`tail`: the end of a run's output, or nothing; `began`: monotonic; `done`: called at the end."""
        self.channel, self.items, self.began = channel, items, began
        self.answers: list[Answer] = []
        self._now, self._tail, self._console, self._done = now, tail, console, done
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"crony-alerts-{channel.name}", daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether all is said."""
        return self._over.is_set()

    def _run(self) -> None:
        try:
            if len(self.items) <= SINGLY:
                for item in self.items:
                    if not self._one(item):
                        break
            else:
                self._together()
        finally:
            self._over.set()
            self._done()

    def _one(self, item: Item) -> bool:
        """False: the channel is out of order, and the rest may wait."""
        alert, language = item.alert, self.channel.language
        tail = self._tail(alert) if alert.kind == AlertKind.RUN_FAILED else ""
        message = message_of(alert, language=language, console=self._console, tail=tail)
        answer = self._send(item, message)
        self.answers.append(answer)
        return answer.error is None or answer.error.lasting

    def _together(self) -> None:
        alerts, language = [item.alert for item in self.items], self.channel.language
        answer = self._send(self.items[0], message_of_many(alerts, language=language, console=self._console))
        self.answers += [Answer(item, answer.said, answer.error) for item in self.items]

    def _send(self, item: Item, message: Message) -> Answer:
        try:
            return Answer(item, deliver(self.channel, message, item.recipients, self._now()))
        except NotSent as error:
            return Answer(item, error=error)
        except Exception as error:  # a fault of ours; its text might hold anything
            return Answer(item, error=NotSent(f"it could not be made into a message: {type(error).__name__}"))
