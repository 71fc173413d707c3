"""Between the threads that fetch and the one that consumes: what waits for delivery, and how to wake the consumer."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from crony.transport_etcd.claims import Delivery

if TYPE_CHECKING:
    from crony.transport_etcd.channel import Consumer


class Item(NamedTuple):
    """A message for a consumer."""

    consumer: Consumer
    delivery: Delivery


class Wake:
    """A file descriptor that becomes readable when set: an eventfd where there is one, else a socket pair."""

    def __init__(self) -> None:
        """Opens it."""
        self._pair: tuple[socket.socket, socket.socket] | None = None
        self._set = False
        if hasattr(os, "eventfd"):
            self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._pair = socket.socketpair()
            for end in self._pair:
                end.setblocking(False)
            self.fd = self._pair[0].fileno()

    def set(self) -> None:
        """Make it readable; once is enough until it is cleared."""
        if not self._set:
            self._set = True
            with contextlib.suppress(OSError):
                if self._pair is None:
                    os.eventfd_write(self.fd, 1)
                else:
                    self._pair[1].send(b"\0")

    def clear(self) -> None:
        """Not readable any more. Look for messages after this, not before."""
        with contextlib.suppress(OSError):
            if self._pair is None:
                os.eventfd_read(self.fd)
            else:
                self._pair[0].recv(4096)
        self._set = False  # last: set before the read, a `set` in between would be read away and never come again

    def close(self) -> None:
        """Close it."""
        self._set = True
        if self._pair is None:
            with contextlib.suppress(OSError):
                os.close(self.fd)
        else:
            for end in self._pair:
                end.close()


class Inbox:
    """Messages waiting for one connection's consumer: remote control first, then the rest in order."""

    def __init__(self) -> None:
        """Empty."""
        self._control: deque[Item] = deque()
        self._messages: deque[Item] = deque()
        self._change = threading.Condition()
        self._wake: Wake | None = None
        self._error: Exception | None = None
        self._waiters = 0
        self._arrived: dict[Consumer, int] = {}
        self.on_demand: Callable[[], None] = lambda: None
        """Called when somebody begins to wait for a message."""

    @property
    def wanted(self) -> bool:
        """Whether somebody consumes right now: waits for a message, or runs an event loop."""
        return self._waiters > 0 or self._wake is not None

    def push(self, consumer: Consumer, delivery: Delivery) -> bool:
        """Add a message; False if the consumer was cancelled meanwhile."""
        with self._change:
            if not consumer.active:
                return False
            self._arrived[consumer] = self._arrived.get(consumer, 0) + 1
            (self._control if consumer.no_ack else self._messages).append(Item(consumer, delivery))
            self._notify()
            return True

    def push_all(self, items: Sequence[Item]) -> list[Item]:
        """Add messages that await acknowledgement, waking the consumer once; those whose consumer is gone."""
        late: list[Item] = []
        with self._change:
            for item in items:
                if item.consumer.active:
                    self._messages.append(item)
                else:
                    late.append(item)
            if len(late) < len(items):
                self._notify()
        return late

    def fail(self, error: Exception) -> None:
        """The connection cannot go on: the consuming thread shall raise `error`."""
        with self._change:
            self._error = self._error or error
            self._notify()

    @property
    def error(self) -> Exception | None:
        """Why the connection cannot go on."""
        return self._error

    def arrived(self, consumer: Consumer) -> int:
        """How many messages were added for a consumer so far."""
        return self._arrived.get(consumer, 0)

    def backlog(self) -> int:
        """Messages without acknowledgement that wait."""
        return len(self._control)

    def pop(self, timeout: float | None = 0.0) -> Item | None:
        """The next message, waiting `timeout` seconds at most (None: for ever); None if there is none.

        Raises what `fail` was given.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._change:
            while True:
                if self._error is not None:
                    raise self._error
                if self._control:
                    return self._control.popleft()
                if self._messages:
                    return self._messages.popleft()
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._waiters += 1
                try:
                    self.on_demand()
                    self._change.wait(left)
                finally:
                    self._waiters -= 1

    def pop_more(self) -> Item | None:
        """A further message that is here already and waits for acknowledgement, if nothing more urgent does."""
        with self._change:
            return self._messages.popleft() if self._messages and not self._control else None

    def withdraw(self, consumer: Consumer) -> list[Delivery]:
        """Deactivate a consumer; what waited for it."""
        with self._change:
            consumer.active = False
            self._arrived.pop(consumer, None)
            waited = [item.delivery for item in (*self._control, *self._messages) if item.consumer is consumer]
            for queue in (self._control, self._messages):
                kept = [item for item in queue if item.consumer is not consumer]
                queue.clear()
                queue.extend(kept)
            return waited

    # -- an event loop -------------------------------------------------------------------------------

    def wake_fd(self) -> int:
        """A descriptor that is readable while something waits."""
        with self._change:
            if self._wake is None:
                self._wake = Wake()
                if self._control or self._messages or self._error:
                    self._wake.set()
            return self._wake.fd

    def rearm(self) -> None:
        """Before looking: clear the descriptor."""
        with self._change:
            if self._wake is not None:
                self._wake.clear()

    def remind(self) -> None:
        """After looking: if something is left, the descriptor stays readable."""
        with self._change:
            if self._wake is not None and (self._control or self._messages or self._error):
                self._wake.set()

    def close(self, done: Callable[[int], None] | None = None) -> None:
        """Close the descriptor, after telling `done` which one."""
        with self._change:
            wake, self._wake = self._wake, None
        if wake is not None:
            if done is not None:
                done(wake.fd)
            wake.close()

    def _notify(self) -> None:
        self._change.notify_all()
        if self._wake is not None:
            self._wake.set()


__all__ = ["Inbox", "Item", "Wake"]
