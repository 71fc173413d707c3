"""Transaction 3 and the reconciling duty: what is saved in the database becomes live in etcd, and nothing older does.

Webs commit a save and publish it later, or die in between, or are so slow that others have published
meanwhile; a delete leaves a tombstone; the leader's duty reads etcd, then the database, and publishes
what it found there by the same function.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.model.explorer import Explorer, Result


class Save(NamedTuple):
    """A revision of the job; a deletion is one as well."""

    revision: int
    deleted: bool


class Stored(NamedTuple):
    """`job/<id>` in etcd; `version` stands for its mod revision."""

    save: Save
    version: int


class Publish(NamedTuple):
    """A publisher under way. `seen` is the version it read (0: the key was absent), -1 before it read."""

    who: str
    save: Save
    seen: int = -1


class State(NamedTuple):
    database: Save
    stored: Stored | None
    script: tuple[bool, ...]
    """Saves still to come; True is the deletion."""
    publishers: tuple[Publish, ...]
    crashes: int
    duty: tuple[int, int] | None
    """The duty has read etcd: (version, revision) seen there."""
    duties: int
    writes: int
    highest: int
    """Highest revision that was ever live."""
    broken: str = ""


class Model:
    """The model with some of its rules removed."""

    def __init__(self, script: tuple[bool, ...], without: str = "") -> None:
        self.script, self.without = script, without

    def run(self) -> Result:
        first = Save(1, False)
        initial = State(first, Stored(first, 1), self.script, (), 1, None, 2, 1, 1)
        return Explorer(initial, self.steps, self.check, self.final).run()

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        if state.script and not state.database.deleted:
            save = Save(state.database.revision + 1, state.script[0])
            yield (
                f"a web commits {self.words(save)}",
                state._replace(
                    database=save,
                    script=state.script[1:],
                    publishers=tuple(sorted((*state.publishers, Publish("web", save)))),
                ),
            )
        for one in state.publishers:
            rest = list(state.publishers)
            rest.remove(one)
            gone = state._replace(publishers=tuple(rest))
            if one.who == "web" and state.crashes:
                yield f"the web publishing {self.words(one.save)} dies", gone._replace(crashes=state.crashes - 1)
            if one.seen == -1:
                yield f"the {one.who} publishing {self.words(one.save)} reads etcd", self.read(state, gone, one)
            else:
                yield f"etcd takes {self.words(one.save)} from the {one.who}", self.apply(gone, one)
        quiet = not state.script and not state.publishers
        if state.duty is None and (state.duties or (quiet and self.differs(state))):
            seen = (0, 0) if state.stored is None else (state.stored.version, state.stored.save.revision)
            yield "the duty reads etcd", state._replace(duty=seen, duties=max(0, state.duties - 1))
        if state.duty is not None:
            version, revision = state.duty
            done = state._replace(duty=None)
            if (revision >= state.database.revision and version and self.without != "revision") or (
                state.database.deleted and not version
            ):
                yield "the duty finds nothing to do", done
            else:
                again = Publish("duty", state.database, version)
                publishers = tuple(sorted({*state.publishers, again}))
                yield f"the duty publishes {self.words(state.database)}", done._replace(publishers=publishers)

    def differs(self, state: State) -> bool:
        if state.stored is None:
            return not state.database.deleted
        return state.stored.save != state.database

    def words(self, save: Save) -> str:
        return f"{'the deletion, ' if save.deleted else ''}revision {save.revision}"

    def read(self, state: State, gone: State, one: Publish) -> State:
        stored = state.stored
        if stored is not None and stored.save.revision >= one.save.revision and self.without != "revision":
            return gone  # a higher one is there already
        seen = one._replace(seen=0 if stored is None else stored.version)
        return gone._replace(publishers=tuple(sorted({*gone.publishers, seen})))

    def apply(self, state: State, one: Publish) -> State:
        version = 0 if state.stored is None else state.stored.version
        if version != one.seen and self.without != "mod":
            # Read again and decide anew, as the publish does.
            return self.read(state, state, one._replace(seen=-1))
        broken = state.broken
        if one.save.revision < state.highest:
            broken = f"{self.words(one.save)} became live after revision {state.highest}"
        stored: Stored | None = Stored(one.save, state.writes + 1)
        if one.save.deleted and self.without == "tombstone":
            stored = None
        return state._replace(
            stored=stored, writes=state.writes + 1, highest=max(state.highest, one.save.revision), broken=broken
        )

    def check(self, state: State) -> str:
        return state.broken

    def final(self, state: State) -> str:
        if self.differs(state):
            return f"at rest the database has {self.words(state.database)} and etcd {state.stored}"
        return ""


SCRIPTS = [(False,), (True,), (False, True), (False, False), (False, False, True)]


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_is_saved_becomes_live_and_nothing_older_does(script: tuple[bool, ...]) -> None:
    result = Model(script).run()
    print(result)
    assert not result.violation, str(result)
    assert result.states > 20


@pytest.mark.parametrize("without", ["revision", "mod", "tombstone"])
def test_each_rule_is_needed(without: str) -> None:
    result = Model((False, True), without).run()
    print(without, "->", result)
    assert "became live after revision" in result.violation
