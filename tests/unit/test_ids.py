"""Ids and places: unique, sortable, and the same for the same fire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crony.domain import ids


def test_fresh_ids_are_unique_and_sort_by_age() -> None:
    made = [ids.fresh("m") for _ in range(2000)]
    assert len(set(made)) == 2000
    assert [ident[:10] for ident in made] == sorted(ident[:10] for ident in made)
    assert {len(ident) for ident in made} == {21}
    assert ids.job_id()[0] == "j"
    assert ids.incarnation()[0] == "i"
    assert ids.request_id()[0] == "q"


@given(st.integers(1, 99), st.integers(0, 4_000_000_000))
def test_a_fire_has_one_name(generation: int, second: int) -> None:
    run = ids.fire_run_id("j1", generation, second)
    assert run == ids.fire_run_id("j1", generation, second)
    parts = ids.parse_run_id(run)
    assert (parts.job, parts.generation, parts.fire) == ("j1", generation, second)


def test_other_runs_have_no_fire() -> None:
    assert ids.parse_run_id(ids.fresh_run_id("j1", 2)).fire is None


@given(st.integers(0, 4_000_000_000))
def test_a_run_of_a_backfill_has_a_name_of_its_own(second: int) -> None:
    for ident in (ids.backfill_id(), ids.keyed_backfill_id("j1", f"key {second}")):
        parts = ids.parse_run_id(ids.backfill_run_id("j1", 1, ident, second))
        assert (parts.job, parts.generation, parts.backfill, parts.fire) == ("j1", 1, ident, None)
        assert len(ident) == 21 and set(ident) <= set("0123456789abcdefghjkmnpqrstvwxyz")
    assert ids.keyed_backfill_id("j1", "k") == ids.keyed_backfill_id("j1", "k") != ids.keyed_backfill_id("j2", "k")
    assert ids.parse_run_id(ids.fire_run_id("j1", 1, second)).backfill == ""
    assert ids.parse_run_id(ids.fresh_run_id("j1", 1)).backfill == ""


def test_a_part_is_a_run_but_no_fire_of_its_own() -> None:
    run = ids.fire_run_id("j1", 2, 60)
    part = ids.part_id(run, 12)
    parsed = ids.parse_run_id(part)
    assert (parsed.job, parsed.generation, parsed.suffix, parsed.part, parsed.fire) == ("j1", 2, "60", 12, None)
    assert ids.whole(part) == ids.whole(run) == run and ids.part_of(part) == 12
    assert ids.part_of(run) is None and ids.part_of("nonsense") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "j1",
        "j1.1",
        ".1.5",
        "j1..5",
        "j1.x.5",
        "j1.1.",
        "j1.1.5.",
        "j1.1.5.x",
        "j1.1.5.-1",
        "j1.1.5.01",
        "j1.1.5.1.1",
    ],
)
def test_what_is_no_run_id(text: str) -> None:
    with pytest.raises(ValueError):
        ids.parse_run_id(text)


def test_tasks_have_the_same_id_everywhere() -> None:
    assert ids.task_job_id("app.tasks.close") == ids.task_job_id("app.tasks.close")
    assert ids.task_job_id("app.tasks.close") != ids.task_job_id("app.tasks.open")


POSITION = st.tuples(st.integers(0, 9), st.integers(0, 2**60))


@given(POSITION, POSITION)
def test_places_sort_by_priority_then_sequence(one: tuple[int, int], two: tuple[int, int]) -> None:
    def order(position: tuple[int, int]) -> tuple[int, int]:
        return -position[0], position[1]

    first, second = ids.place(*one, "j1.1.5"), ids.place(*two, "j1.1.5")
    assert (first < second) == (order(one) < order(two))
    assert ids.place_ident(first) == "j1.1.5"
