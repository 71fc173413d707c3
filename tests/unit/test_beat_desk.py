"""What the leader tells Celery about an attempt."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest

from crony.beat.desk import Desk
from crony.beat.pools import Pools
from crony.domain.run import Envelope
from crony.domain.signing import Sealer, Verifier
from crony.etcd.keys import Keys
from crony.lifecycle.end import PATIENCE
from crony.transport_etcd.message import decode
from tests.helpers.node import PRIVATE, PUBLIC


@pytest.mark.parametrize(
    ("kind", "limits"), [("python", [60.0 + PATIENCE, 60.0]), ("shell", [None, None]), ("http", [None, None])]
)
def test_celerys_limits_leave_a_child_the_time_to_write_its_end(kind: str, limits: list[float | None]) -> None:
    desk = Desk(Sealer(PRIVATE), Verifier([PUBLIC]), cast(Any, None), time.time, Pools(Keys()))
    told = Envelope("r1", "j1", "job", 1, 1, 1, "run.n1", "i1", "manual", {"kind": kind}, timeout=60.0)
    assert decode(desk.again(told))["headers"]["timelimit"] == limits
