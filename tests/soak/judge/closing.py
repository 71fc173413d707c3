"""What is left when all is over: in etcd, in the database, among processes; and what was said during outages."""

from __future__ import annotations

from tests.soak.judge.reading import History, Judge, State, Step, Told, is_part

STAYS = (
    "job/", "name/", "done/", "control", "beat/shards", "settled", "run/out/", "idem/", "nodectl/",
    "obj/", "alert/", "queue/", "bind/", "beat/mark", "taken/", "run/backfill/", "lapse/", "obj.told/", "session.told/",
)  # fmt: skip
"""Keys that may be there when everybody has gone."""
DRAIN = 60.0
"""Seconds in which everything under way has ended once nothing is broken any more."""
NOTICED = 6.0
"""Seconds after which an outage of etcd is said."""


class Closing(Judge):
    """Nothing is left over, all is archived, everybody ends well."""

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self.final: dict[str, str] = {}
        self.skipped: dict[str, int] = {}

    def before(self, step: Step, state: State) -> None:
        """Remember the final record of each run."""
        for change in step.of("run", "out"):
            match change.parts:
                case ["run", "out", run, slot] if change.new:
                    told = change.new.told
                    if is_part(run):
                        continue  # shown with its whole run
                    if slot == "0":
                        self.skipped[run] = int(told.get("count", 1))
                    elif told.get("final") or slot == "end":
                        self.final[run] = str(told.get("kind"))

    def finish(self, state: State) -> None:
        """Judge what the harness found at the end."""
        self._explained()
        for each in self.history.processes:
            late = self.history.restored and float(each["at"]) >= float(self.history.restored["at"])
            if each["what"] == "died" and not late:  # a node that finds etcd back in time says so and ends
                self.say("nobody ends by itself", f"{each['name']}: {each.get('why', '')[-300:]}")
        self._restored()
        self._exits(self.history.stopped["exits"], {0, 9, -15})
        end = self.history.end
        if end is None:
            return
        for key in end["left"]:
            if not key.startswith(STAYS) and not (key.startswith("beat/") and key.endswith("/last")):
                self.say("nothing is left behind", key)
        for what in end["leaked"]:
            self.say("nothing is left behind", f"process {what}")
        self._exits(end["exits"], {0})
        if self.history.restored:
            return  # what the steps before it decided is not all that the archive has
        if end["drained"] > DRAIN:
            self.say("all ends in time", f"{end['drained']:.1f} s until nothing was under way")
        self._archived(end)

    def _exits(self, exits: dict[str, int], good: set[int]) -> None:
        for name, code in exits.items():
            if code not in good | ({-15} if name == "web" else set()):  # uvicorn ends by the signal that told it to
                self.say("everybody ends when told", f"{name}: {code}")

    def _archived(self, end: Told) -> None:
        known: dict[str, str] = {}
        for run, outcome in end["runs"]:
            if run in known:
                self.say("archived once", f"{run} is there twice")
            known[run] = outcome
        for run, kind in self.final.items():
            if known.get(run) != kind:
                self.say("all is archived", f"{run} ended as {kind}, the archive says {known.get(run)}")
        skips: dict[str, int] = {}
        for run, count in end["skips"]:
            if run in skips:
                self.say("archived once", f"the skip {run} is there twice")
            skips[run] = count
        for run, count in self.skipped.items():
            if skips.get(run) != count:
                self.say(
                    "all is archived", f"{run} stands for {count} skipped fires, the archive says {skips.get(run)}"
                )
        for run in known.keys() - self.final.keys():
            self.say("all is archived", f"{run} is in the archive, and never ended")

    def _explained(self) -> None:
        """While etcd is away the web says so."""
        for fault in self.history.faults:
            if not fault.facts.get("etcd_away") or fault.ended - fault.began < NOTICED + 3:
                continue
            asked = [
                each["text"]
                for each in self.history.ready
                if fault.began + NOTICED < float(each["at"]) < min(fault.ended, fault.began + 600)
            ]
            if asked and not any("etcd" in each and "etcd: there" not in each for each in asked):
                self.say("what is away is said", f"etcd was away from {fault.began:.1f} on, the web said {asked[-1]!r}")

    def _restored(self) -> None:
        """After a restore nothing is dispatched or decided until people say so."""
        for line in self.history.after_restore:
            if self.history.recovered and float(line["at"]) >= float(self.history.recovered["at"]):
                return
            key = str(line["key"]).removeprefix(self.history.root)
            sent = key.startswith("run/q/") and "/m/" in key
            handed_back = '"reason":"reroute"' in str(line.get("value"))  # by a node begun anew: nothing runs by it
            if line["kind"] == "put" and (sent or key.startswith(("run/wait/", "done/"))) and not handed_back:
                self.say("a restored etcd stands still", f"{key} put at revision {line['rev']}")


__all__ = ["Closing"]
