"""In which stretches a long range is read page by page, so that etcd does not go through all of it for each page.

For a range with a limit etcd still counts every key of the range (its `count` and `more`), and before 3.5 it looks each
one up as well: a page of the first of a million keys takes it seconds, and a listing in N / limit pages goes through
N * N / limit keys. So what is asked for ends soon after the page: where the prefix ends in which the last one moved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import takewhile

from crony.etcd.keys import prefix_end
from crony.etcd.wire import Page

ENOUGH = 4
"""A stretch of at most so many pages is not divided further."""

Read = Callable[[str, str | None], Page]
"""The first keys of `start` <= key < `end`, in order."""


def paged(read: Read, start: str, end: str | None, limit: int) -> Iterator[Page]:
    """Every page of a range, in key order, each key once; `limit`: about how many pairs `read` gives at most.

    A key that is there all the time is in one page, whatever else comes and goes meanwhile.
    """
    key, stop, seen = start, end, 0
    while True:
        part = read(key, stop)
        yield part
        seen += len(part.kvs)
        if part.more and part.kvs:
            key = part.kvs[-1].key + "\0"
            if part.count > ENOUGH * limit:
                stop, seen = _nearer(part.kvs[0].key, part.kvs[-1].key, stop), 0
        elif stop == end or stop is None:
            return
        else:
            key, stop = stop, _next(stop, end, wide=2 * seen < limit)
            seen = 0


def _nearer(first: str, last: str, stop: str | None) -> str | None:
    """The end of the prefix that `last` is in, at the place where the keys of the page differ."""
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    end = prefix_end(last[: common + 1])
    return end if _before(end, stop) else stop


def _next(stop: str, end: str | None, *, wide: bool) -> str | None:
    """The end of the stretch that begins at `stop`: the next prefix as long, or, `wide`, the rest of one shorter."""
    if not wide:
        after = prefix_end(stop)
    elif len(stop) > 1:
        after = prefix_end(stop[:-1])
    else:
        return end
    return after if _before(after, end) else end


def _before(one: str, other: str | None) -> bool:
    """Whether a key lies before the end of a range (`"\\0"`: no end; None: a single key)."""
    return other is not None and (other == "\0" or one < other)
