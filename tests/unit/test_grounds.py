"""Why a node was chosen and others were not, as a line: it can be taken apart again, and it stays short."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from crony.domain.grounds import LONGEST, MOST, Grounds, grounds

NODES = st.lists(st.text("ab-.:;,/\u3000 7", min_size=1, max_size=90), min_size=1, max_size=12)
REASONS = st.sampled_from(["cordoned", "not in its turn", "zone is b, not a", "has no gpu", "weight 0"])


@given(st.sampled_from(["", "the only node that fits", "its turn; 1 avoided"]), st.dictionaries(REASONS, NODES))
@settings(max_examples=150, deadline=None)
def test_a_line_is_taken_apart_as_it_was_put_together(why: str, passed: dict[str, list[str]]) -> None:
    made = grounds(why, "least_busy", passed.items())
    assert Grounds.read(made.text()) == made
    named = sum(len(nodes) for _, nodes in made.passed)
    assert named <= MOST and named + made.more == sum(map(len, passed.values()))
    assert len(made.text()) < LONGEST + 250


def test_it_reads_well() -> None:
    said = grounds("its turn among 2 nodes, weight 1 of 3", "weighted", {"cordoned": ["n3", "n4"]}.items())
    assert said.text() == "its turn among 2 nodes, weight 1 of 3; strategy weighted; cordoned: n3, n4"
    many = grounds("", "", [("away", [f"n{i}" for i in range(30)])])
    assert many.more == 10 and many.text().endswith("n19; 10 more")


def test_lines_of_before_and_lines_that_were_cut_say_less() -> None:
    assert Grounds.read("") == Grounds()
    assert Grounds.read("the only node that fits") == Grounds("the only node that fits")
    assert Grounds.read("…").why == "…"
    cut = Grounds.read("its turn; strategy weighted; cordoned: n1, n…")
    assert cut.strategy == "weighted" and cut.passed == (("cordoned", ("n1", "n…")),)
