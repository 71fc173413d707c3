"""What the tests of the SDK share: a fake platform, and a private spool."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from crony_sdk import Handlers
from crony_sdk.outbox import Outbox, open_outbox
from crony_sdk.spool import Directory
from crony_sdk.testing import FakePlatform
from crony_sdk.wire import Wire


@pytest.fixture
def crony() -> Iterator[FakePlatform]:
    with FakePlatform() as platform:
        yield platform


@pytest.fixture
def handler() -> Handlers:
    return Handlers()


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    box = Outbox(
        Directory(tmp_path / "spool"), Wire(connect_timeout=20, timeout=60), pauses=(0.05, 0.5), text_first=0.5
    )
    yield box
    box.close(0)


@pytest.fixture
def successor(tmp_path: Path) -> Iterator[Outbox]:
    """The outbox of a service that is started again with the spool of one that died; to be started."""
    box = open_outbox(tmp_path / "spool")
    yield box
    box.close(0)
