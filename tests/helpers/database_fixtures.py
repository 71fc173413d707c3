"""Fixtures with a database of each kind: `pytest_plugins = ["tests.helpers.database_fixtures"]` in a test module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from crony.store.db import Database
from tests.helpers.databases import KINDS, emptied, url_of


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    return url_of(request.param, tmp_path)


@pytest.fixture(params=KINDS)
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An upgraded, empty database of each kind. Its tables must stay as they are; see `own_db`."""
    database = Database(emptied(request.param, tmp_path))
    yield database
    database.close()


@pytest.fixture
def own_db(url: str) -> Iterator[Database]:
    """An upgraded database of each kind that the test may spoil."""
    database = Database(url)
    database.upgrade()
    yield database
    database.close()


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[Database]:
    """An upgraded SQLite database, where the kind does not matter."""
    database = Database(emptied("sqlite", tmp_path))
    yield database
    database.close()
