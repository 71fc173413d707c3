"""The life of runs in etcd: where they are, who holds them, how attempts and runs end (PROTOCOL 1.3: I1, I3 to I5)."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from tests.soak.judge.reading import (
    At,
    Change,
    History,
    Judge,
    State,
    Step,
    Told,
    claim_of,
    envelope_of_message,
    fire_of,
    is_part,
    job_of,
    run_at,
    sealed,
    unquote,
)

STARTED = "S"
"""Phase of a claim whose work may have begun."""
ALONE = ("skip", "queue_one", "queue_all", "cancel_previous")
"""Overlap policies under which one run of a job is under way at a time."""


class Places(Judge):
    """I1: a live run is in one place; it leaves it for another, or with a record; and it ends once."""

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self.was: dict[str, list[str]] = {}
        self.over: dict[str, int] = {}
        """Run -> revision of its final record."""
        self.outs: dict[tuple[str, str], Told] = {}

    def before(self, step: Step, state: State) -> None:
        """Remember where the runs of this step were."""
        self.was = {run: list(state.places.get(run, ())) for run in touched(step)}

    def after(self, step: Step, state: State) -> None:
        """Where they are now."""
        records = records_of(step)
        for run, places in self.was.items():
            now, where = state.places.get(run, []), f"{run} at revision {step.revision}"
            if len(now) > 1 and len(places) < 2:
                self.say("one run, one place", f"{where}: {' and '.join(now)}")
            if now and not places and run in self.over:
                self.say("ended is ended", f"{where}: {now[0]}, and it ended at revision {self.over[run]}")
            dead = any(each.new for each in step.of("dead") if each.key.endswith(f".{run}"))
            if places and not now and not dead and not any(each[0] == run for each in records):
                dropped = all(each.startswith("requested") for each in places) and self._known(run)
                if not dropped:
                    self.say("no run vanishes", f"{where}: was {places[0]}, is nowhere, without a record")
        for (run, slot), told in records.items():
            where = f"{run}, attempt {slot}, at revision {step.revision}"
            if (run, slot) in self.outs:
                self.say("an attempt ends once", f"{where}: a second record, {told.get('kind')}")
            self.outs[run, slot] = told
            final = bool(told.get("final")) or slot in ("0", "end")
            if final and run in self.over:
                self.say("a run ends once", f"{where}: it ended at revision {self.over[run]}")
            if final:
                self.over.setdefault(run, step.revision)
                if state.alive(run):
                    self.say("ended is ended", f"{where}: it is still {state.places[run][0]}")
            elif not state.alive(run):
                self.say("no run vanishes", f"{where}: not final, and nothing follows")

    def _known(self, run: str) -> bool:
        """A request for a run that has ended, or is under way already, may simply go."""
        return run in self.over

    def finish(self, state: State) -> None:
        """Every run that was anywhere has ended."""
        if self.history.ended and not self.history.restored:
            for run, places in state.places.items():
                self.say("every run ends", f"{run} is {places[0]} at the end")


class Fences(Judge):
    """I3, I5: what is removed was held by who removes it; claims change hands only by holder or absent session."""

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self.ended: dict[str, int] = defaultdict(int)
        """Run -> last attempt that ended."""
        self.gone: set[str] = set()
        """Incarnations whose session ended at some time."""

    def before(self, step: Step, state: State) -> None:
        """Compares see what is there before anything of the step happens."""
        records = records_of(step)
        for change in step.of("run", "q"):
            match change.parts:
                case [_, _, queue, "c", place]:
                    self._claim(step, state, change, (unquote(queue), place))
                case [_, _, queue, "m", place]:
                    if change.new:
                        self._sent(step, state, change, records)
                    else:
                        self._removed(step, state, (unquote(queue), place), records)
        for (run, slot), told in records.items():
            if slot.isdigit() and slot != "0":
                self._attempt(step, state, run, int(slot), told)

    def _claim(self, step: Step, state: State, change: Change, at: At) -> None:
        where = f"{run_at(at[1])} in {at[0]} at revision {step.revision}"
        message_goes = any(not each.new and each.key == _message_key(change.key) for each in step.changes)
        was = claim_of(change.old) if change.old else None
        if change.new is None:
            if at in state.messages and not message_goes:
                self.say("no claim without message", f"{where}: the claim went, the message stayed")
            return
        now = claim_of(change.new)
        if at not in state.messages or message_goes:
            self.say("no claim without message", f"{where}: claimed by {now.holder or 'nobody'}")
        if now.holder and now.holder not in state.sessions:
            self.say("only the living claim", f"{where}: {now.holder} has no session")
        if was is not None and was.holder and now.holder not in ("", was.holder):
            self.say("a holder keeps it", f"{where}: from {was.holder} to {now.holder}")
        if was is not None and was.phase == STARTED and now.phase != STARTED:
            self.say("a permit is kept", f"{where}: permitted to start, and claimed anew")
        count = was.count if was else 0
        again = was is not None and was.holder == now.holder
        if now.holder and now.count != count + (not again):
            self.say("deliveries are counted", f"{where}: count {now.count} after {count}")

    def _removed(self, step: Step, state: State, at: At, records: dict[tuple[str, str], Told]) -> None:
        """A message goes: by its end, by the leader's decision, or to another place."""
        run, claim = run_at(at[1]), state.claims.get(at)
        message = state.messages.get(at)
        where = f"{run} in {at[0]} at revision {step.revision}"
        claim_key = f"run/q/{_spelt(step, at)}/c/{at[1]}"
        claim_goes = any(each.key == claim_key and each.new is None for each in step.changes)
        if claim is not None and not claim_goes:
            self.say(
                "no claim without message", f"{where}: the message went, {claim.holder or 'nobody'}'s claim stayed"
            )
        attempt = int(message.envelope.get("attempt", 0)) if message else 0
        told = records.get((run, str(attempt)))
        if told is None:
            self._moved(step, state, at, where)
            return
        fence, holder = int(told.get("fence", 0)), claim.holder if claim else ""
        if fence:
            if claim is None or claim.mod != fence:
                held = f"fence {claim.mod}" if claim else "nobody"
                self.say("ended by its fence", f"{where}: ended by fence {fence}, held by {held}")
        elif holder and told.get("kind") != "lost":
            self.say("ended by its fence", f"{where}: {told.get('kind')} without fence, {holder} holds it")
        elif holder and holder in state.sessions:
            self.say("a holder keeps it", f"{where}: taken over from {holder}, whose session is there")

    def _moved(self, step: Step, state: State, at: At, where: str) -> None:
        """No end: re-routed by the leader (unclaimed, or given back), handed back by its holder, or set aside."""
        claim, run = state.claims.get(at), run_at(at[1])
        waits = [each.new.told for each in step.of("run", "wait") if each.new and each.key.endswith(f"/{run}")]
        aside = any(each.new for each in step.of("dead") if each.key.endswith(at[1]))
        if aside or not waits:
            return  # Places speaks of those that vanish
        message = state.messages.get(at)
        attempt = int(message.envelope.get("attempt", 0)) if message else 0
        if int(waits[0].get("finished", -1)) != attempt - 1:
            self.say(
                "attempts only grow", f"{where}: attempt {attempt} moved on as {waits[0].get('finished')} finished"
            )
        if claim is None or not claim.holder:
            return
        if claim.phase == STARTED:
            self.say("a permit is kept", f"{where}: permitted to start, and moved on without an outcome")
        if claim.holder not in state.sessions and not (message and needs_permit(message.envelope)):
            self.say("a holder keeps it", f"{where}: claimed by {claim.holder}, gone, and no attempt was lost")

    def _sent(self, step: Step, state: State, change: Change, records: dict[tuple[str, str], Told]) -> None:
        assert change.new is not None
        envelope = envelope_of_message(change.new.value)
        run, attempt = str(envelope.get("run", "")), int(envelope.get("attempt", 0))
        where = f"{run} at revision {step.revision}"
        if change.old is not None:
            before = envelope_of_message(change.old.value)
            if int(before.get("attempt", 0)) != attempt:
                self.say("attempts only grow", f"{where}: attempt {attempt} put over {before.get('attempt')}")
            return  # sealed again: the same attempt
        if attempt != self.ended[run] + 1:
            self.say("attempts only grow", f"{where}: attempt {attempt} sent, {self.ended[run]} have ended")
        shared = change.key.startswith("run/q/run.@")
        if envelope.get("incarnation") not in state.sessions and not shared:
            self.say("sent to the living", f"{where}: {envelope.get('incarnation')} has no session")
        if state.leader(job_of(run)) is None:
            self.say("only a leader dispatches", f"{where}: sent while nobody leads")

    def _attempt(self, step: Step, state: State, run: str, attempt: int, told: Told) -> None:
        where = f"{run}, attempt {attempt}, at revision {step.revision}"
        lies = [at for at in state.messages if run_at(at[1]) == run] if state.alive(run) else []
        cancelled = told.get("kind") == "cancelled" and run in state.waits
        if not lies and run not in state.accepted and not cancelled:
            self.say("no end rests on an absence", f"{where}: {told.get('kind')}, and no record of it went")
        if attempt <= self.ended[run]:
            self.say("attempts only grow", f"{where}: {self.ended[run]} had ended")
        self.ended[run] = max(self.ended[run], attempt)


class Dispatches(Judge):
    """I4: the leader dispatches, from the document that stands, one at a time; nothing while it is stopped."""

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self.known: set[str] = set()
        self.alone: dict[str, str] = {}
        """Job -> its overlap policy."""
        self.twice: set[str] = set()

    def before(self, step: Step, state: State) -> None:
        """Judge what is handed out against what stood before."""
        stopped = bool(state.keys["control"].told.get("stop")) if "control" in state.keys else False
        for run, envelope, sent in handed_out(step):
            where, job = f"{run} at revision {step.revision}", job_of(run)
            if sent and stopped:
                self.say("stopped is stopped", f"{where}: sent while the switch says stop")
            if run in self.known:
                continue
            self.known.add(run)
            if state.leader(job) is None:
                self.say("only a leader dispatches", f"{where}: while nobody leads")
            if is_part(run):
                continue  # of the document of its whole run
            live = state.jobs.get(job)
            if live is None:
                if not job.startswith("t"):
                    self.say("the document that stands", f"{where}: there is no such job")
                continue
            if live.get("deleted") or int(envelope.get("revision", 0)) != int(live.get("revision", 0)):
                now = f"revision {live.get('revision')}{', deleted' if live.get('deleted') else ''}"
                self.say(
                    "the document that stands", f"{where}: of revision {envelope.get('revision')}, published is {now}"
                )
            elif fire_of(run) is not None and int(envelope.get("generation", 0)) != int(live.get("generation", 0)):
                self.say("the document that stands", f"{where}: of generation {envelope.get('generation')}")

    def after(self, step: Step, state: State) -> None:
        """One at a time."""
        for run in touched(step):
            job = job_of(run)
            document = (state.jobs.get(job) or {}).get("document") or {}
            policy = document.get("overlap", "skip")
            if policy not in ALONE or not document:
                continue
            under_way = [each for each in runs_of(state, job) if not in_line(state, each)]
            if len(under_way) > 1:
                if job not in self.twice:
                    self.say("one at a time", f"job {job} at revision {step.revision}: {' and '.join(under_way)}")
                self.twice.add(job)
            else:
                self.twice.discard(job)
            most = {"queue_one": 1, "queue_all": int(document.get("overlap_limit", 100))}.get(policy)
            line = [each for each in runs_of(state, job) if in_line(state, each) == "overlap"]
            if most is not None and len(line) > most:
                self.say("the line is bounded", f"job {job} at revision {step.revision}: {len(line)} wait, {most} may")


def needs_permit(envelope: Told) -> bool:
    """Whether work must not begin without a durable permit."""
    told = envelope.get("delivery"), envelope.get("on_node_loss", "rerun"), envelope.get("on_cut", "continue")
    later = float(envelope.get("deadline") or 0) > 0
    return told[0] == "at_most_once" or told[1] != "rerun" or told[2] == "stop" or later


def runs_of(state: State, job: str) -> list[str]:
    """Live runs of a job that are past the inbox; those of backfills, and parts, count for themselves."""
    prefix = f"{job}."
    return [
        run
        for run, places in state.places.items()
        if run.startswith(prefix)
        and not is_part(run)
        and not run.split(".")[2].startswith("b")
        and not all(each.startswith("requested") for each in places)
    ]


def in_line(state: State, run: str) -> str:
    """Why a run does not count as under way: it waits for its turn or its moment; empty: it does count."""
    wait = state.waits.get(run)
    reason = str(wait.get("reason", "")) if wait else ""
    return reason if reason in ("overlap", "delay") else ""


def touched(step: Step) -> list[str]:
    """Runs whose places a step changes."""
    found: dict[str, None] = {}
    for change in step.of("run"):
        match change.parts:
            case ["run", "in", _]:
                for side in (change.old, change.new):
                    told = side.told if side else {}
                    if told.get("kind") == "run":
                        found[str(told.get("run"))] = None
            case ["run", "wait" | "acc" | "join", run]:
                found[run] = None
            case ["run", "q", _, "m", place]:
                found[run_at(place)] = None
    return [run for run in found if run.count(".") in (2, 3)]


def records_of(step: Step) -> dict[tuple[str, str], Told]:
    """Outcomes put by a step, by run and attempt."""
    found = {}
    for change in step.of("run", "out"):
        match change.parts:
            case ["run", "out", run, slot] if change.new:
                found[run, slot] = change.new.told
    return found


def handed_out(step: Step) -> list[tuple[str, Told, bool]]:
    """(run, envelope, whether it was sent to a node) of what a leader put: messages, and waits it decided on."""
    found: list[tuple[str, Told, bool]] = []
    for change in step.of("run"):
        match change.parts:
            case ["run", "q", _, "m", place] if change.new and not change.old:
                found.append((run_at(place), envelope_of_message(change.new.value), True))
            case ["run", "join", run] if change.new and not change.old:
                found.append((run, sealed(str(change.new.told.get("envelope", ""))), False))
            case ["run", "wait", run] if change.new:
                told: dict[str, Any] = change.new.told
                if told.get("reason") not in ("ended", "reroute"):
                    found.append((run, sealed(str(told.get("envelope", ""))), False))
    return found


def _message_key(claim_key: str) -> str:
    head, _, place = claim_key.rpartition("/c/")
    return f"{head}/m/{place}"


def _spelt(step: Step, at: At) -> str:
    """The queue of a place as it is spelt in keys."""
    return next(
        (parts[2] for each in step.of("run", "q") if len(parts := each.parts) == 5 and unquote(parts[2]) == at[0]),
        at[0],
    )
