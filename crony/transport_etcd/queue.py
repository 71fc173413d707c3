"""What a consumer knows of its queue: a bounded window from the head, kept current by watch events. No I/O here.

Everything in it is a hint (E5, Q4): a claim compares what was seen, so a stale view costs a refused claim and never a
message. The window starts at the head of the queue and ends at its horizon; beyond that nothing is remembered. When
the window is drained it is filled from the head again, so what was put before our position is never missed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Set
from typing import NamedTuple

import orjson

from crony.etcd.client import KV
from crony.transport_etcd.contention import Contention

READY_LIMIT = 1000
"""Most ready messages remembered."""
KEEP_BYTES = 4096
"""Values up to this size are kept from watch events; larger ones are read when they are claimed."""
MEMORY_LIMIT = 4 * 1024 * 1024
"""Most bytes of values kept."""


class Candidate(NamedTuple):
    """A message that looks free: its place and revision, its claim's revision (0: none), deliveries so far."""

    place: str
    mod: int
    claim: int
    deliveries: int
    holder: str
    """Dead incarnation to take over from; empty: nobody holds it."""
    value: bytes | None


class Held(NamedTuple):
    """A claim as last seen: its revision, its holder (empty: released), deliveries so far."""

    mod: int
    holder: str
    deliveries: int


def read_claim(kv: KV) -> Held:
    """The claim behind a pair; an unreadable one counts as held by somebody unknown, so nobody touches it."""
    try:
        raw = orjson.loads(kv.value)
        return Held(kv.mod, str(raw["incarnation"]), int(raw.get("count", 1)))  # left out where it is 1
    except (ValueError, KeyError, TypeError):
        return Held(kv.mod, "?", 1)


class Window:
    """The head of one queue: which messages are there, which of them are ready. Not thread-safe: its reader locks."""

    def __init__(self, limit: int = READY_LIMIT) -> None:
        """`limit`: most ready messages remembered."""
        self._limit = limit
        self._messages: dict[str, int] = {}
        self._claims: dict[str, Held] = {}
        self._ready: list[str] = []
        self._values: dict[str, bytes] = {}
        self._bytes = 0
        self._horizon: str | None = ""  # "" nothing known yet; None: up to the end of the queue
        self._base = 0
        self._stale = False

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def needs_filling(self) -> bool:
        """Nothing ready is left, but the queue may go on beyond the horizon (or something was freed out of sight)."""
        return self._stale or (self._horizon is not None and not self._ready)

    @property
    def base(self) -> int:
        """Revision of the listing it was filled from."""
        return self._base

    @property
    def claims(self) -> dict[str, Held]:
        """Claims by place, as last seen."""
        return self._claims

    # -- filling from a listing --------------------------------------------------------------------

    def begin(self, revision: int) -> None:
        """A listing of messages at `revision` starts: forget the messages known."""
        self._messages.clear()
        self._ready.clear()
        self._values.clear()
        self._bytes = 0
        self._horizon, self._base, self._stale = "", revision, False

    def set_claims(self, claims: Iterable[tuple[str, Held]]) -> None:
        """Every claim of the queue, from a listing (places and claims)."""
        self._claims = dict(claims)

    def extend(self, messages: Iterable[tuple[str, int]], *, last: bool) -> bool:
        """A page of (place, revision) in order; `last`: nothing follows. True: enough, stop listing."""
        horizon = self._horizon
        for place, mod in messages:
            self._messages[place] = mod
            horizon = place
            if self._is_free(place):
                self._ready.append(place)
        self._horizon = None if last else horizon
        return last or len(self._ready) >= self._limit

    # -- watch events ------------------------------------------------------------------------------

    def message_put(self, place: str, mod: int, value: bytes) -> None:
        """A message appeared."""
        if mod <= self._base or (self._horizon is not None and place > self._horizon):
            return
        self._messages[place] = mod
        self._drop_value(place)  # of a message that was put anew the one before is nobody's any more
        if len(value) <= KEEP_BYTES and self._bytes + len(value) <= MEMORY_LIMIT:
            self._bytes += len(value)
            self._values[place] = value
        if self._is_free(place):
            self._make_ready(place)

    def message_gone(self, place: str, mod: int) -> None:
        """A message was deleted."""
        if mod <= self._base:
            return
        if self._messages.pop(place, None) is not None:
            self._forget(place)

    def claim_put(self, place: str, held: Held) -> None:
        """A claim was made, taken over or released."""
        known = self._claims.get(place)
        if known is not None and known.mod >= held.mod:
            return
        self._claims[place] = held
        if held.holder:
            self._unready(place)
        elif place in self._messages:
            self._make_ready(place)
        elif self._horizon is None or place <= self._horizon:
            self._stale = True

    def claim_gone(self, place: str) -> None:
        """A claim was deleted; its message goes with it (I5)."""
        self._claims.pop(place, None)

    # -- claiming ----------------------------------------------------------------------------------

    def take(self, most: int, contention: Contention | None = None) -> list[Candidate]:
        """Up to `most` ready messages, best first; they are not ready any more. See `give_back`.

        Under `contention` those at some place among the next ones of the best priority.
        """
        start = 0
        if contention is not None and contention.spread and len(self._ready) > most:
            equals = bisect_left(self._ready, chr(ord(self._ready[0][0]) + 1))
            start = contention.start(equals, most)
        taken = self._ready[start : start + most]
        del self._ready[start : start + most]
        return [self._candidate(place, "") for place in taken]

    def head(self, most: int) -> list[str]:
        """Places of the first ready messages of the best priority: no other may be chosen before them."""
        first = self._ready[:most]
        return first[: bisect_left(first, chr(ord(first[0][0]) + 1))] if first else first

    def take_these(self, places: Iterable[str]) -> list[Candidate]:
        """Those of these messages that are still ready; they are not ready any more."""
        taken = []
        for place in places:
            at = bisect_left(self._ready, place)
            if at < len(self._ready) and self._ready[at] == place:
                del self._ready[at]
                taken.append(self._candidate(place, ""))
        return taken

    def take_orphans(self, dead: Set[str], most: int) -> list[Candidate]:
        """Up to `most` messages whose holder is one of `dead`, in order."""
        places = [place for place, held in self._claims.items() if held.holder in dead and place in self._messages]
        return [self._candidate(place, self._claims[place].holder) for place in sorted(places)[:most]]

    def give_back(self, candidate: Candidate) -> None:
        """The claim was not tried: it is as it was."""
        if not candidate.holder and candidate.place in self._messages and self._is_free(candidate.place):
            self._make_ready(candidate.place)

    def claimed(self, candidate: Candidate, fence: int, incarnation: str) -> None:
        """The claim is ours."""
        known = self._claims.get(candidate.place)
        if known is None or known.mod < fence:
            self._claims[candidate.place] = Held(fence, incarnation, candidate.deliveries + 1)
        self._drop_value(candidate.place)

    def released(self, place: str, revision: int, deliveries: int) -> None:
        """We gave it back at `revision`: it is ready before the watch tells."""
        self.claim_put(place, Held(revision, "", deliveries))

    def holders(self) -> set[str]:
        """Every incarnation that holds a claim here."""
        return {held.holder for held in self._claims.values() if held.holder}

    # -- parts -------------------------------------------------------------------------------------

    def _candidate(self, place: str, holder: str) -> Candidate:
        held = self._claims.get(place)
        return Candidate(
            place,
            self._messages[place],
            held.mod if held else 0,
            held.deliveries if held else 0,
            holder,
            self._values.get(place),
        )

    def _is_free(self, place: str) -> bool:
        held = self._claims.get(place)
        return held is None or not held.holder

    def _make_ready(self, place: str) -> None:
        ready = self._ready
        at = bisect_left(ready, place)
        if at < len(ready) and ready[at] == place:
            return
        ready.insert(at, place)
        if len(ready) > 2 * self._limit:
            self._cut()

    def _cut(self) -> None:
        """Forget the far half: the window is bounded, the queue is not."""
        self._horizon = self._ready[self._limit - 1]
        del self._ready[self._limit :]
        for place in [place for place in self._messages if place > self._horizon]:
            del self._messages[place]
            self._drop_value(place)

    def _unready(self, place: str) -> None:
        ready = self._ready
        at = bisect_left(ready, place)
        if at < len(ready) and ready[at] == place:
            del ready[at]
        self._drop_value(place)

    def _forget(self, place: str) -> None:
        self._unready(place)

    def _drop_value(self, place: str) -> None:
        value = self._values.pop(place, None)
        if value is not None:
            self._bytes -= len(value)


__all__ = ["Candidate", "Held", "Window", "read_claim"]
