"""Kombu's own integration mixins, as they are in its source archive, with our broker's URL as their only parameter.

Run by `tests/outsider/test_kombu_suites.py` in a process of its own: nothing of ours but this file is collected there.
"""

import os

import kombu
import pytest
from t.integration import common

import crony.transport_etcd  # noqa: F401  # `etcd3://` is known from here on

URL, DEAD = os.environ["JUDGE_URL"], os.environ["JUDGE_DEAD_URL"]


@pytest.fixture
def connection():
    return kombu.Connection(URL)


@pytest.fixture
def invalid_connection():
    return kombu.Connection(DEAD)


@pytest.fixture
def failover_connection():
    return kombu.Connection(f"{DEAD};{URL}")


class test_basic(common.BasicFunctionality):
    pass


class test_exchanges(common.BaseExchangeTypes):
    pass


class test_ttl(common.BaseTimeToLive):
    pass


class test_priority(common.BasePriority):
    PRIORITY_ORDER = "asc"


class test_message(common.BaseMessage):
    pass


class test_failover(common.BaseFailover):
    pass


class test_eventloop(common.BaseEventLoop):
    pass
