"""An end is tried for as long as it can succeed, and not longer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from crony.errors import CronyError, Halted
from crony.etcd.errors import BadRequest, EtcdUnavailable
from crony.workers.ending import persist
from tests.helpers.wait import within


def failing(*errors: CronyError) -> Callable[[], str]:
    left = list(errors)

    def act() -> str:
        if left:
            raise left.pop(0)
        return "written"

    return act


def test_an_outage_is_waited_out() -> None:
    assert persist(failing(EtcdUnavailable("away"), EtcdUnavailable("away")), "the end") == "written"


@pytest.mark.parametrize("error", [BadRequest("too large"), Halted("etcd's data went back in time")], ids=str)
def test_what_can_never_be_is_given_up(error: CronyError) -> None:
    with within(2, "giving up"):
        assert persist(failing(*[error] * 10_000), "the end") is None
