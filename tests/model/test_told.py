"""Transaction 23 (told): a centre that stood by knows at its first decision all that was written before its election.

Two streams that lag as they like; a leader whose transactions may still be under way, answered or not, when its lease
ends; a centre that stands by, is elected, waits for what its first transaction put to come back on both streams, and
only then decides whether the job's run is alive (in the one stream) and which fires are decided (in the other).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.model.explorer import Explorer, Result

FIRES = 3


class Write(NamedTuple):
    """One committed change: which stream tells of it, and what it says."""

    stream: int
    what: str


class State(NamedTuple):
    log: tuple[tuple[Write, ...], ...] = ()
    """What etcd committed, a revision each."""
    term: int = 1
    """The term of the leader key; 0: nobody leads."""
    pending: tuple[int, ...] = ()
    """Fires that the first leader has sent and etcd has not looked at yet."""
    sent: int = 0
    told: tuple[int, int] = (0, 0)
    """How far each stream has told the one that stands by: revisions."""
    elected: int = 0
    """Revision of its election; 0: it stands by."""
    marked: int = 0
    """Revision of its first transaction."""
    decided: tuple[int, ...] = ()
    """Fires that it dispatched, by what it knew."""
    wrong: str = ""


def explore(*, wait: bool = True, compare: bool = True, both: bool = True) -> Result:
    """`wait`: for the mark on the streams (`both` of them). `compare`: the old leader's fires compare their term."""

    def cursor(log: tuple[tuple[Write, ...], ...]) -> int:
        return sum(1 for writes in log for write in writes if write.what == "done")

    def known(state: State, stream: int) -> list[str]:
        found = state.log[: state.told[stream]]
        return [write.what for writes in found for write in writes if write.stream == stream]

    def steps(state: State) -> Iterator[tuple[str, State]]:
        if state.wrong:
            return
        if state.sent < FIRES and state.term != 2:
            yield "the leader sends a fire", state._replace(pending=(*state.pending, state.sent), sent=state.sent + 1)
        for fire in state.pending:
            rest = tuple(each for each in state.pending if each != fire)
            # Its own cursor is compared as well; the run it leaves alive is what only the term protects.
            if state.term == 1 or (not compare and cursor(state.log) == fire):
                log = (*state.log, (Write(0, "done"), Write(1, "run")))
                yield f"etcd carries out fire {fire}", state._replace(log=log, pending=rest)
            else:
                yield f"etcd refuses fire {fire}", state._replace(pending=rest)
        for stream in (0, 1):
            if state.told[stream] < len(state.log):
                told = list(state.told)
                told[stream] += 1
                yield f"stream {stream} tells", state._replace(told=(told[0], told[1]))
        if state.term == 1:
            yield "the lease ends", state._replace(term=0)
        if state.term == 0:
            yield "the other one is elected", state._replace(term=2, log=(*state.log, ()), elected=len(state.log) + 1)
        if state.elected and not state.marked:
            log = (*state.log, (Write(0, "told"), Write(1, "told")))
            yield "it puts its mark", state._replace(log=log, marked=len(log))
        if state.marked and not state.decided:
            least = min(state.told) if both else max(state.told)
            if not wait or least >= state.marked:
                before = [write.what for writes in state.log[: state.elected] for write in writes]
                missing = before.count("run") - known(state, 1).count("run")
                behind = before.count("done") - known(state, 0).count("done")
                late = [write.what for writes in state.log[state.marked :] for write in writes]
                wrong = "a run is alive of which it does not know" if missing else ""
                wrong = wrong or ("a fire is decided of which it does not know" if behind else "")
                wrong = wrong or ("something of an earlier term came after its own mark" if "run" in late else "")
                yield "it decides", state._replace(decided=(1,), wrong=wrong)
        if state.decided and any(write.what == "run" for writes in state.log[state.marked :] for write in writes):
            yield "it looks again", state._replace(wrong="something of an earlier term came after its own mark")

    return Explorer(State(), steps, lambda state: state.wrong).run()


def test_whoever_waits_for_its_mark_knows_what_a_listing_would_tell() -> None:
    result = explore()
    assert not result.violation, str(result)
    assert result.states > 500


@pytest.mark.parametrize("rule", ["wait", "both", "compare"])
def test_without_one_of_the_rules_it_does_not(rule: str) -> None:
    assert explore(**{rule: False}).violation
