"""The window of a queue against the queue itself: nothing ready is missed for good, nothing is kept without bound."""

from __future__ import annotations

import random

from crony.transport_etcd.queue import KEEP_BYTES, Candidate, Held, Window


class Queue:
    """The truth: messages and claims with revisions, and the events a watch would bring."""

    def __init__(self, window: Window) -> None:
        self.revision = 10
        self.messages: dict[str, int] = {}
        self.claims: dict[str, Held] = {}
        self.window = window
        self.late: list[tuple[str, str, int, Held | None]] = []

    def put(self, place: str) -> None:
        self.revision += 1
        self.messages[place] = self.revision
        self.late.append(("put", place, self.revision, None))

    def end(self, place: str) -> None:
        self.revision += 1
        self.late.append(("gone", place, self.revision, None))
        self.messages.pop(place)
        if self.claims.pop(place, None):
            self.late.append(("unclaim", place, self.revision, None))

    def hold(self, place: str, holder: str) -> None:
        self.revision += 1
        known = self.claims.get(place)
        self.claims[place] = Held(self.revision, holder, (known.deliveries if known else 0) + (1 if holder else 0))
        self.late.append(("claim", place, self.revision, self.claims[place]))

    def try_claim(self, candidate: Candidate) -> bool:
        known = self.claims.get(candidate.place)
        if self.messages.get(candidate.place) != candidate.mod or (known.mod if known else 0) != candidate.claim:
            return False
        self.hold(candidate.place, "me")
        self.window.claimed(candidate, self.revision, "me")
        return True

    def deliver(self, count: int) -> None:
        for kind, place, mod, held in self.late[:count]:
            if kind == "put":
                self.window.message_put(place, mod, b"v")
            elif kind == "gone":
                self.window.message_gone(place, mod)
            elif kind == "claim":
                assert held is not None
                self.window.claim_put(place, held)
            else:
                self.window.claim_gone(place)
        del self.late[:count]

    def refill(self, page: int) -> None:
        self.window.begin(self.revision)
        places = sorted(self.messages)
        for start in range(0, max(1, len(places)), page):
            part = places[start : start + page]
            last = start + page >= len(places)
            if self.window.extend([(place, self.messages[place]) for place in part], last=last):
                break

    def free(self) -> list[str]:
        return sorted(p for p in self.messages if p not in self.claims or not self.claims[p].holder)


def loaded(limit: int) -> tuple[Window, Queue]:
    window = Window(limit)
    queue = Queue(window)
    window.set_claims({})
    queue.refill(limit)
    return window, queue


def test_best_first_and_priorities_before_age() -> None:
    window, queue = loaded(10)
    for place in ("9b", "9a", "3z", "0k"):
        queue.put(place)
    queue.deliver(99)
    assert [candidate.place for candidate in window.take(10)] == ["0k", "3z", "9a", "9b"]


def test_what_is_put_before_our_position_is_found_after_the_window_is_drained() -> None:
    window, queue = loaded(3)
    for number in range(10):
        queue.put(f"5{number}")
    queue.refill(3)
    assert [c.place for c in window.take(3)] == ["50", "51", "52"]
    assert window.needs_filling


def test_a_released_message_is_ready_again_with_its_count() -> None:
    window, queue = loaded(5)
    queue.put("5a")
    queue.deliver(9)
    (candidate,) = window.take(1)
    assert queue.try_claim(candidate)
    assert window.take(1) == []
    queue.hold("5a", "")
    queue.deliver(9)
    (again,) = window.take(1)
    assert (again.place, again.deliveries) == ("5a", 1)


def test_a_message_that_was_put_anew_is_not_delivered_as_it_was() -> None:
    """A run that waits for long is sealed again: the one before runs out, and may be small enough to be kept."""
    window = Window()
    window.begin(1)
    window.extend([], last=True)
    window.message_put("0a", 5, b"before")
    window.message_put("0a", 6, b"x" * (KEEP_BYTES + 1))
    window.message_put("0b", 7, b"before")
    window.message_put("0b", 8, b"after")
    assert [(each.place, each.mod, each.value) for each in window.take(2)] == [("0a", 6, None), ("0b", 8, b"after")]


def test_orphans_of_the_dead_are_offered_only_when_asked_for() -> None:
    window, queue = loaded(5)
    queue.put("5a")
    queue.hold("5a", "other")
    queue.deliver(9)
    assert window.take(5) == []
    assert window.take_orphans({"someone"}, 5) == []
    (orphan,) = window.take_orphans({"other"}, 5)
    assert (orphan.place, orphan.holder) == ("5a", "other")


def test_the_window_is_bounded_and_what_was_cut_off_comes_back() -> None:
    window, queue = loaded(10)
    for number in range(100):
        queue.put(f"5{number:03d}")
    queue.deliver(1000)
    assert len(window) <= 20
    seen = []
    while queue.free():
        for candidate in window.take(7):
            assert queue.try_claim(candidate)
            seen.append(candidate.place)
        if window.needs_filling:
            queue.refill(10)
    assert seen == sorted(seen)
    assert len(seen) == 100


def test_random_histories_never_lose_a_message() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    for round_ in range(150):
        rng = random.Random(seed + round_)
        window, queue = loaded(rng.choice([1, 3, 8]))
        for step in range(120):
            action = rng.random()
            if action < 0.35:
                place = f"{rng.randrange(10)}{step:04d}"
                if place not in queue.messages:
                    queue.put(place)
            elif action < 0.45 and queue.free():
                queue.hold(rng.choice(queue.free()), "other")
            elif action < 0.55 and queue.claims:
                place = rng.choice(sorted(queue.claims))
                if rng.random() < 0.5:
                    queue.hold(place, "")
                else:
                    queue.end(place)
            elif action < 0.75:
                queue.deliver(rng.randrange(4))
            elif action < 0.8:
                queue.refill(rng.choice([1, 2, 5]))
            else:
                for candidate in window.take(rng.randrange(1, 4)):
                    queue.try_claim(candidate)
        # Everything that is free in the end is claimed once events have arrived, without help from outside.
        for _ in range(1000):
            queue.deliver(1000)
            if not queue.free():
                break
            if window.needs_filling:
                queue.refill(3)
            for candidate in window.take(5):
                queue.try_claim(candidate)
        assert queue.free() == [], f"seed {seed + round_}"
