"""The table in the page on clock changes is what the schedule does: each cell is computed."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from crony.domain.fires import fires_between
from crony.domain.schedule import parse_schedules

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "clock-changes.md"
ROW = re.compile(r"\| `([^`]+)` \| (\w+/\w+) \| (\d{4}-\d\d-\d\d) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|")
ROWS = ROW.findall(PAGE.read_text(encoding="utf-8"))


def test_the_table_is_found() -> None:
    assert len(ROWS) == 15


@pytest.mark.parametrize("row", ROWS, ids=[f"{row[1]} {row[2]} {row[0]}" for row in ROWS])
def test_each_cell(row: tuple[str, ...]) -> None:
    text, name, day, *cells = row
    zone, midnight = ZoneInfo(name), datetime.fromisoformat(day)
    start, end = (int((midnight + timedelta(days=days)).replace(tzinfo=zone).timestamp()) - 1 for days in (0, 1))
    for rule, cell in zip(("once", "elapsed", "both"), cells, strict=True):
        fires = fires_between(parse_schedules({"cron": text, "timezone": name, "dst": rule}), start, end, 10)
        said = [datetime.fromtimestamp(fire, zone).isoformat()[11:16] + _offset(fire, zone) for fire in fires]
        assert (", ".join(said) or "none") == cell, rule


def _offset(fire: int, zone: ZoneInfo) -> str:
    return datetime.fromtimestamp(fire, zone).isoformat()[-6:]
