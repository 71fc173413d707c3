"""Fixtures of the acceptance tests: each test gets servers of its own, because it kills them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.etcd import EtcdServer
from tests.helpers.mariadb import MariaServer


@pytest.fixture
def own_etcd(tmp_path: Path) -> Iterator[EtcdServer]:
    """An etcd of this test alone."""
    with EtcdServer(data_dir=tmp_path / "etcd") as server:
        yield server


@pytest.fixture
def maria() -> Iterator[MariaServer]:
    """A MariaDB of this test alone."""
    with MariaServer() as server:
        yield server
