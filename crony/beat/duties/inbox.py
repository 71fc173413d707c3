"""The inbox: what people and programs ask of the leader becomes runs, waits, ends and orders (6 and 15; D5).

In order of arrival. A request is taken off in the transaction that acts on it, so it acts once.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from crony.beat import policy
from crony.beat.commit import Step, Verdict
from crony.beat.desk import allowed
from crony.beat.duties import cancelling, chaining, splitting
from crony.beat.duties.lookup import Later, Refused
from crony.beat.entries import Asked, JobEntry, Joined, own_run
from crony.beat.handout import IN_LINE, hand
from crony.beat.office import Office
from crony.domain import ids
from crony.domain.livejob import LiveJob
from crony.domain.outcome import Kind, Outcome, SkipReason
from crony.domain.routing import Strategy
from crony.domain.run import Envelope, Request, Wait, WaitReason
from crony.errors import CronyError
from crony.lifecycle.admit import admit, set_aside
from crony.lifecycle.cancel import drop
from crony.lifecycle.end import outcome_of
from crony.lifecycle.move import Dispatch, Move
from crony.lifecycle.unhold import unhold

log = logging.getLogger("crony.beat")


AGAIN = 0.02
"""Seconds until a request is decided anew."""
ABOUT_RUNS = ("cancel", "parts")
"""Kinds of request about runs that are there; the others ask for runs."""


class Inbox:
    """The duty on requests."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._held = False

    def work(self) -> float | None:
        """Decide the requests there are."""
        office = self._office
        held = bool(office.holds) or office.book.stopped
        office.book.news.inbox |= self._held and not held
        self._held = held
        if not office.book.news.inbox or not office.committer.free(office.mono()):
            return None
        office.book.news.inbox = False
        steps: list[Step] = []
        limit, waiting = office.committer.limit("admit"), False
        put_off: set[str] = set()
        """Jobs of which an earlier request waits a moment: later ones must not overtake it."""
        for asked in office.book.requests.values():
            if len(steps) >= limit:
                office.book.news.inbox = True
                break
            if asked.busy:
                continue
            job = str(asked.request.job) if asked.request and asked.request.kind not in ABOUT_RUNS else ""
            if asked.rest_until > office.mono() or job in put_off:
                waiting = True
                if asked.put_off and job:
                    put_off.add(job)
                continue
            try:
                asked.put_off = False
                step = self._one(asked)
            except (Later, cancelling.Busy):
                asked.rest_until, asked.put_off, waiting = office.mono() + AGAIN, True, True
                if job:
                    put_off.add(job)
                continue
            except Exception:
                log.exception("request %s cannot be decided; it stays", asked.id)
                asked.rest_until = office.mono() + 60.0
                continue
            if step is not None:
                steps.append(step)
        if waiting:
            office.book.news.inbox = True
        if steps:
            office.committer.send("admit", steps, control_seen=office.book.seen(office.keys.control))
        return AGAIN if waiting else None

    def _one(self, asked: Asked) -> Step | None:
        office, request = self._office, asked.request
        if request is None:
            log.error("request %s cannot be read and is set aside", asked.id)
            return self._step(asked, set_aside(office.keys, asked.id, request_seen=asked.seen, value=asked.value))
        if request.kind in ABOUT_RUNS:
            return self._about(asked, request)
        if self._held:
            return None  # looked at again when that changes
        try:
            if asked.impossible:
                raise Refused(asked.impossible)
            if request.kind == "run":
                return self._run(asked, request)
            if request.kind == "unhold":
                return self._unhold(asked, request)
            raise Refused(f"a request of kind {request.kind!r} is not known")
        except Later:
            raise
        except Refused as error:
            return self._refuse(asked, request, str(error))
        except (CronyError, ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
            log.exception("request %s cannot be decided", asked.id)
            return self._refuse(asked, request, f"{type(error).__name__}: {error}")

    def _about(self, asked: Asked, request: Request) -> Step:
        """A cancel, or news of parts that ended: taken off also while dispatch is held."""
        try:
            if request.kind == "cancel":
                found = cancelling.decide(self._office, asked, request)
            else:
                found = self._parts(asked, request)
        except (CronyError, ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
            log.error("the request %s (%s) makes no sense and is set aside: %s", asked.id, request.kind, error)
            move = set_aside(self._office.keys, asked.id, request_seen=asked.seen, value=asked.value)
            return self._step(asked, move, count="refused")
        return self._step(asked, found.move, count=found.counter, joined=found.joined)

    def _parts(self, asked: Asked, request: Request) -> cancelling.Cancel:
        """Parts of a run ended; nothing to note when the run has ended itself."""
        office, joined = self._office, self._office.book.joins.get(request.run)
        if joined is None:
            return cancelling.Cancel(drop(office.keys, asked.id, request_seen=asked.seen), "")
        if joined.busy:
            raise cancelling.Busy
        return cancelling.Cancel(splitting.ended(office, joined, request, asked.id, asked.seen), "", joined)

    # -- runs ----------------------------------------------------------------------------------

    def _run(self, asked: Asked, request: Request) -> Step | None:
        """A run by hand, by API or by a program."""
        office = self._office
        parts = own_run(request.run)
        if parts.job != request.job or not _asked_for(parts):
            raise Refused("its run id is not one of a request")
        if office.book.is_live(request.run):
            return self._step(asked, drop(office.keys, asked.id, request_seen=asked.seen))
        entry: JobEntry | None = None
        if request.name.startswith("task:") and not request.generation:
            envelope = self._task(request)
        else:
            try:
                entry, live = chaining.published(office, request)
            except chaining.NotFollowed as no:
                move = self._admit(asked, office.owner(request.job), skip=no.record)
                return self._step(asked, move, count="skipped")
            fire = chaining.fire_of(request)
            envelope = office.desk.draft(live, request.run, trigger=request.trigger, at=office.wall(), fire_at=fire)
        if envelope.delivery == "at_most_once" and request.retries:
            raise Refused("the job runs at most once: a run of it cannot have retries")
        if request.labels and envelope.strategy == Strategy.ANY:
            raise Refused("labels were asked for, and whoever takes from its shared queue first gets it")
        envelope = office.desk.override(envelope, request)
        owner = (entry.id, entry.seen) if entry is not None else None
        now, delayed = office.wall(), float(request.not_before_at) > office.wall()
        if delayed:
            wait = office.desk.park(envelope, WaitReason.DELAY.value, at=now, due_at=float(request.not_before_at))
            return self._step(asked, self._admit(asked, owner, wait=wait))
        if entry is not None and envelope.overlap != "allow":
            if self._taken(asked, entry):
                raise Later
            others = office.book.live(entry.id)
            if others and policy.may_wait(live.job, len(office.book.line(entry.id))):
                wait = office.desk.park(envelope, WaitReason.OVERLAP.value, at=now, detail=IN_LINE)
                return self._step(asked, self._room(live, self._admit(asked, owner, wait=wait)), entry)
            if others:
                skip = _skipped(envelope, policy.in_the_way(live.job, others[0]), now)
                return self._step(asked, self._admit(asked, owner, skip=skip), count="skipped")
        handed = hand(office.desk, envelope, now)
        move = admit(
            office.keys,
            asked.id,
            request_seen=asked.seen,
            job=owner,
            dispatches=handed.dispatches,
            waits=handed.waits,
            skips=handed.skips,
        )
        return self._step(asked, move, entry, handed.dispatches, count="skipped" if handed.skips else "")

    def _unhold(self, asked: Asked, request: Request) -> Step:
        """A person lets a run on hold go on; nothing to do when it is not on hold any more."""
        office = self._office
        own_run(request.run)
        waiting = office.book.waits.get(request.run)
        if waiting is None or waiting.wait is None or waiting.wait.reason != WaitReason.HOLD:
            return self._step(asked, drop(office.keys, asked.id, request_seen=asked.seen))
        if waiting.busy or waiting.blocks is not None:
            raise Later
        detail = f"released by {request.by}" if request.by else "released"
        move = unhold(office.keys, asked.id, request_seen=asked.seen, wait=waiting.wait, wait_seen=waiting.seen,
                      detail=detail)  # fmt: skip
        return self._step(asked, move, count="unheld")

    def _room(self, live: LiveJob, move: Move) -> Move:
        """The move that lets a run wait for its turn; with `cancel_previous` those before it go."""
        if live.job.overlap != "cancel_previous":
            return move
        return move.also(cancelling.make_room(self._office, live.id, self._office.wall()))

    def _task(self, request: Request) -> Envelope:
        task = request.name.removeprefix("task:")
        if request.job != ids.task_job_id(task):
            raise Refused("its job id is not the task's")
        if not allowed(task, self._office.settings.imports):
            raise Refused(f"the task {task} is not in a module that may be run by name (CRONY_IMPORTS of the centre)")
        return self._office.desk.draft_task(request)

    def _admit(
        self,
        asked: Asked,
        owner: tuple[str, int] | None,
        *,
        wait: Wait | None = None,
        skip: Outcome | None = None,
    ) -> Move:
        return admit(
            self._office.keys,
            asked.id,
            request_seen=asked.seen,
            job=owner,
            waits=[wait] if wait else (),
            skips=[skip] if skip else (),
        )

    # -- ends ----------------------------------------------------------------------------------

    def _refuse(self, asked: Asked, request: Request, reason: str) -> Step:
        """The request becomes an outcome that says why; one that names no run is set aside."""
        office = self._office
        log.warning("request %s is refused: %s", asked.id, reason)
        try:
            parts = own_run(request.run)
            if parts.job != request.job or not _asked_for(parts) or office.book.is_live(request.run):
                raise ValueError("not a run of its own")
            end = Outcome(
                run=request.run,
                job=request.job,
                name=str(request.name),
                generation=parts.generation,
                revision=0,
                attempt=0,
                kind=Kind.REFUSED.value,
                final=True,
                trigger=str(request.trigger),
                ended_at=office.wall(),
                reason=reason,
                requested_at=float(request.requested_at),
                params=request.params or None,
                idem=str(request.idem),
                chain=str(request.chain),
                cause=str(request.cause),
                chain_at=float(request.chain_at),
                no_chain=request.no_chain is True,
            )
            move = admit(office.keys, asked.id, request_seen=asked.seen, job=office.owner(request.job), end=end)
        except (ValueError, TypeError, AttributeError):
            move = set_aside(office.keys, asked.id, request_seen=asked.seen, value=asked.value)
        return self._step(asked, move, count="refused")

    def _step(
        self,
        asked: Asked,
        move: Move,
        entry: JobEntry | None = None,
        dispatches: list[Dispatch] | None = None,
        *,
        count: str = "",
        joined: Joined | None = None,
    ) -> Step:
        """`entry`: a job of which nothing else may be decided meanwhile, `joined`: a run in parts, likewise."""
        asked.busy = True
        if joined is not None:
            joined.busy = True
        exclusive = entry if entry is not None and self._exclusive(entry) else None
        if exclusive is not None:
            exclusive.busy = True

        def settle(verdict: Verdict) -> None:
            office = self._office
            asked.busy = False
            office.book.news.inbox = True
            if joined is not None:
                joined.busy = False
                office.book.news.joins.add(joined.run)
            if verdict is Verdict.LIMBO and office.book.requests.get(asked.id) is asked:
                asked.blocks = exclusive  # until the request is gone: the run may appear at any moment
            if exclusive is not None and (verdict is Verdict.DONE or asked.blocks is None):
                exclusive.busy, asked.blocks = False, None
                office.book.news.jobs.add(exclusive.id)
            if verdict is not Verdict.DONE:
                hopeless = verdict is Verdict.IMPOSSIBLE
                asked.rest_until = office.mono() + (60.0 if hopeless and asked.impossible else AGAIN)
                asked.put_off = not hopeless
                if hopeless:
                    asked.impossible = "it is too large for one message"
                return
            office.sent(dispatches or ())
            if count:
                office.counts[count] += 1

        return Step(move, settle)

    def _taken(self, asked: Asked, entry: JobEntry) -> bool:
        """Whether something else about the job is under way or in doubt."""
        return entry.limbo or (entry.busy and asked.blocks is not entry)

    def _exclusive(self, entry: JobEntry) -> bool:
        return entry.document(self._office.webs).job.overlap != "allow"


def _skipped(envelope: Envelope, detail: str, now: float) -> Outcome:
    return replace(
        outcome_of(envelope, Kind.SKIPPED, ended_at=now, fence=0, final=True, reason=SkipReason.OVERLAP.value),
        attempt=0,
        detail=detail,
    )


def _asked_for(run: ids.RunId) -> bool:
    """Whether a run has the name of one that somebody asks for: no fire's, no backfill's, no part's."""
    return run.fire is None and not run.backfill and run.part is None
