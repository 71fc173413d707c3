"""Pages of a long range: each key once, in order, and etcd goes through few more keys than there are."""

from __future__ import annotations

import bisect
import random

import pytest

from crony.domain import ids
from crony.etcd.keys import prefix_end
from crony.etcd.paging import ENOUGH, paged
from crony.etcd.wire import KV, Page


class Store:
    """Keys in order, read as etcd reads them; `passed`: how many it went through for that."""

    def __init__(self, keys: list[str], limit: int) -> None:
        self.keys, self.limit, self.passed, self.reads = sorted(set(keys)), limit, 0, 0

    def read(self, start: str, end: str | None) -> Page:
        low = bisect.bisect_left(self.keys, start)
        high = low + 1 if end is None else len(self.keys) if end == "\0" else bisect.bisect_left(self.keys, end)
        self.passed += high - low
        self.reads += 1
        found = self.keys[low:high][: self.limit]
        return Page([KV(key, b"", 1, 1, 1, 0) for key in found], 1, high - low, high - low > self.limit)

    def listed(self, start: str, end: str | None) -> list[str]:
        return [kv.key for part in paged(self.read, start, end, self.limit) for kv in part.kvs]


def spread(rng: random.Random, many: int) -> list[str]:
    """Keys of one of several shapes: ids of one day, of random letters, deep paths, or nearly equal ones."""
    letters = rng.choice(["ab", "0123456789", "0123456789abcdefghjkmnpqrstvwxyz", "az~", "/x\x7fä"])
    length = rng.randint(3, 14)
    head = rng.choice(["", "j1m8k", "run/out/"])
    return ["/n/job/" + head + "".join(rng.choices(letters, k=rng.randint(1, length))) for _ in range(many)]


def test_any_keys_are_listed_whole_once_and_in_order() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(60):
        keys = [*spread(rng, rng.randint(0, 600)), "/n/jo", "/n/job0", "/o"]
        store = Store(keys, rng.choice([1, 2, 7, 50]))
        for start, end in (("/n/job/", "/n/job0"), ("/n/job/", "\0"), ("/n/job/j1", "/n/job/j2"), ("/n/jo", None)):
            wanted = [
                key for key in store.keys
                if (key == start if end is None else key >= start and (end == "\0" or key < end))
            ]  # fmt: skip
            assert store.listed(start, end) == wanted, (start, end, store.keys)


@pytest.mark.parametrize("limit", [100, 400])
def test_etcd_goes_through_a_small_multiple_of_the_keys(limit: int) -> None:
    keys = ["/n/done/" + ids.job_id() for _ in range(10_000)]
    store = Store(keys, limit)
    assert len(store.listed("/n/done/", prefix_end("/n/done/"))) == len(keys)
    assert store.passed < (ENOUGH + 6) * len(keys)  # in pages of the whole range: limit 100: 100 times as many
    assert store.reads < 6 * len(keys) / limit
