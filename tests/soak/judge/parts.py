"""Runs in parts, and broadcasts: each part is made once, and the whole ends with its parts, as they ended."""

from __future__ import annotations

from tests.soak.judge.reading import History, Judge, State, Step, Told, is_part, part_of, whole_of
from tests.soak.judge.runs import records_of, touched


class Parts(Judge):
    """`run/join/` against the parts."""

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self._made: dict[str, int] = {}
        """Part -> revision at which it was there first."""
        self._ended: dict[str, str] = {}
        """Part -> the kind of its final record."""

    def before(self, step: Step, state: State) -> None:
        """Which parts come, and which wholes end."""
        records = records_of(step)
        for change in step.of("run", "join"):
            self._counted(step, change.parts[2], change.old and change.old.told, change.new and change.new.told)
        for run in touched(step):
            if is_part(run) and run not in self._made:
                self._first(step, state, run)
        for (run, slot), told in records.items():
            if is_part(run) and (told.get("final") or slot == "end"):
                self._ended.setdefault(run, str(told.get("kind")))
        for (run, slot), told in records.items():
            if slot == "end" and run in state.joins:
                self._whole(step, run, state.joins[run], told)

    def _counted(self, step: Step, run: str, was: Told | None, now: Told | None) -> None:
        before, after = int((was or {}).get("made", 0)), int((now or was or {}).get("made", 0))
        if after < before or after > int((now or was or {}).get("total", 0)):
            self.say("each part is made once", f"{run} at revision {step.revision}: {after} made after {before}")

    def _first(self, step: Step, state: State, run: str) -> None:
        """A part appears with the step that counts it as made."""
        self._made[run] = step.revision
        whole, number = whole_of(run), part_of(run)
        where = f"part {number} of {whole} at revision {step.revision}"
        change = next((each for each in step.of("run", "join") if each.parts[2] == whole), None)
        now = change.new.told if change and change.new else {}
        before = int(state.joins.get(whole, {}).get("made", 0))
        if not before <= number < int(now.get("made", 0)):
            self.say("each part is made once", f"{where}: {before} were made, the step makes {now.get('made')}")

    def _whole(self, step: Step, run: str, join: Told, told: Told) -> None:
        where = f"{run} at revision {step.revision}"
        total, made, cancelled = int(join.get("total", 0)), int(join.get("made", 0)), bool(join.get("cancelled"))
        kinds = [self._ended.get(f"{run}.{number}") for number in range(made)]
        if None in kinds:
            self.say("the whole ends with its parts", f"{where}: ended, and part {kinds.index(None)} has not")
        if made < total and not cancelled and told.get("kind") not in ("cancelled", "refused"):
            self.say("the whole ends with its parts", f"{where}: ended, and {made} of {total} parts were made")
        well = made == total and all(kind == "succeeded" for kind in kinds)
        if well != (told.get("kind") == "succeeded"):
            self.say(
                "the whole ends as its parts", f"{where}: {told.get('kind')}, its parts {', '.join(map(str, kinds))}"
            )
