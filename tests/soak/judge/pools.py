"""Pools: so many runs at a time and no more, each in a slot of its own (Q3)."""

from __future__ import annotations

from collections import Counter

from tests.soak.judge.reading import History, Judge, State, Step, Told, envelope_of_message, run_at, sealed


class Pools(Judge):
    """Who holds slots, by the envelopes of what is under way."""

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self.limits: dict[str, int] = {}
        """Pool -> the highest limit it had."""
        self.holds: dict[str, tuple[str, tuple[str, ...]]] = {}
        """Key of a message or an accepted run -> its run, and the slots that its envelope names."""

    def after(self, step: Step, state: State) -> None:
        """Count."""
        moved = False
        for change in step.changes:
            match change.parts:
                case ["obj", "pool", name] if change.new:
                    told = sealed(change.new.value)
                    self.limits[name] = max(self.limits.get(name, 0), int(told.get("limit", 0)))
                case ["run", "q", _, "m", place]:
                    moved |= self._held(
                        step, change.key, run_at(place), change.new and envelope_of_message(change.new.value)
                    )
                case ["run", "acc", run]:
                    envelope = change.new and sealed(str(change.new.told.get("envelope", "")))
                    moved |= self._held(step, change.key, run, envelope)
        if moved:
            self._count(step, state)

    def _held(self, step: Step, key: str, run: str, envelope: Told | None) -> bool:
        if envelope is None:
            return self.holds.pop(key, None) is not None
        slots = tuple(map(str, envelope.get("slots") or ()))
        pools = list(map(str, envelope.get("pools") or ()))
        missing = set(pools) - {slot.split("/")[0] for slot in slots}
        if missing and missing <= self.limits.keys():
            self.say(
                "in a slot of its pool", f"{run} at revision {step.revision}: sent without one of {sorted(missing)}"
            )
        if not slots:
            return self.holds.pop(key, None) is not None
        self.holds[key] = run, slots
        return True

    def _count(self, step: Step, state: State) -> None:
        slots = Counter(slot for _, held in self.holds.values() for slot in held)
        twice = [slot for slot, count in slots.items() if count > 1]
        if twice:
            runs = sorted(run for run, held in self.holds.values() if twice[0] in held)
            self.say("one slot, one run", f"{twice[0]} at revision {step.revision}: {' and '.join(runs)}")
        for pool, count in Counter(slot.split("/")[0] for slot in slots).items():
            if count > self.limits.get(pool, count):
                self.say(
                    "a pool is not overrun", f"{pool} at revision {step.revision}: {count}, {self.limits[pool]} may"
                )
        for run, held in self.holds.values():
            for slot in held:
                kept = state.keys.get(f"pool/{slot}")
                if kept is None or kept.told.get("run") != run:
                    who = kept.told.get("run") if kept else "nobody"
                    self.say(
                        "one slot, one run", f"{slot} at revision {step.revision}: {run} has it, {who} is written there"
                    )
