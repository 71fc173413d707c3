"""A batch waits for as many as may come, and not longer than it has to."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

from crony.etcd.batch import Batcher
from crony.etcd.txn import Txn


class _Etcd:
    def __init__(self) -> None:
        self.requests: list[int] = []

    def txn(self, txn: Txn) -> Any:
        parts = len(txn._nested) or 1
        self.requests.append(parts)
        done = SimpleNamespace(succeeded=True, responses=[])
        return SimpleNamespace(succeeded=True, responses=[done] * parts)


def _together(count: int, company: int, linger: float) -> list[int]:
    etcd = _Etcd()
    batcher = Batcher(etcd, linger=linger, company=lambda: company)  # type: ignore[arg-type]
    futures = [batcher.submit(Txn().put(f"k{number}", b"")) for number in range(count)]
    for future in futures:
        assert future.result(20).succeeded
    batcher.close()
    return etcd.requests


def test_it_goes_at_once_when_all_that_may_come_are_there() -> None:
    assert _together(3, company=3, linger=60.0) == [3]


def test_alone_it_waits_for_nobody() -> None:
    assert _together(1, company=1, linger=60.0) == [1]


def test_it_does_not_wait_for_ever_for_those_who_do_not_come() -> None:
    assert sum(_together(2, company=50, linger=0.01)) == 2


def test_one_that_comes_later_completes_it() -> None:
    etcd, came = _Etcd(), threading.Event()
    batcher = Batcher(etcd, linger=60.0, company=lambda: 2)  # type: ignore[arg-type]
    first = batcher.submit(Txn().put("a", b""))
    assert not first.done()
    threading.Thread(target=lambda: (batcher.submit(Txn().put("b", b"")), came.set()), daemon=True).start()
    assert first.result(20).succeeded and etcd.requests == [2]
    batcher.close()
