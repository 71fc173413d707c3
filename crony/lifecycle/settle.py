"""Settle (transaction 16): the position up to which outcomes have had their consequences, in revision order.

The alerts of those outcomes are put in the same transaction: a failure behind the position has its alert, or was
counted because there was no room for it. So are the requests to the leader of a job some of whose runs are awaited
(a delay after the end, say): an end behind the position has been told, once. And so are the requests for runs of jobs
that follow others, or the records why they do not run: who follows whom is compared, as a save may have changed it.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from crony.domain import gathering, ids, punctual
from crony.domain.alert import BAD, Alert, AlertKind, recovered, run_failed
from crony.domain.alerting import Rule
from crony.domain.chain import End, Graph
from crony.domain.gathering import Consequence, Gathering
from crony.domain.jsontext import dumps
from crony.domain.outcome import Outcome
from crony.domain.record import Record, UnknownRecord
from crony.domain.run import Request
from crony.etcd.keys import Keys
from crony.lifecycle.alert import put
from crony.lifecycle.move import Move

log = logging.getLogger("crony.beat")

MOST_ALERTS = 15
"""Most alerts put by one settle; each is two keys, and most change what is known of their job."""
MOST_ENDS = 35
"""Most awaited ends told by one settle."""
MOST_WHOLES = 15
"""Most runs of whose parts one settle tells."""
MOST_WRITES = 97
"""Most puts and deletes of one settle, but for the position and what is put again: a transaction has 100."""
WRITES = 5
"""Most of them for one outcome, but for those of jobs that follow."""
MOST_BYTES = 200 * 1024
"""Most bytes, about, of parameters in one settle; what follows one end has less."""
_AWAITED = b'"awaited":true'
# The first of each in a record of ours is its own. Most outcomes are good, and reading one costs more than this.
_KIND = re.compile(rb'"kind":"([a-z_]*)"')
_FINAL = re.compile(rb'"final":(true|false)')
_ENDED = re.compile(rb'"ended_at":([0-9]{1,11}(?:\.[0-9]{1,9})?)')


@dataclass(frozen=True, slots=True)
class Position(Record):
    """`settled`: every outcome at or before (revision, key) has had its consequences."""

    revision: int = 0
    key: str = ""

    def covers(self, revision: int, key: str) -> bool:
        """Whether an outcome written at `revision` under `key` lies behind it."""
        return (revision, key) <= (self.revision, self.key)


class Over(NamedTuple):
    """A run that ended for good, cancelled ones left out."""

    job: str
    failed: bool
    at: float
    value: bytes
    """Its outcome."""


@dataclass(frozen=True, slots=True)
class Consequences:
    """What follows from a stretch of outcomes: the position behind them, the failures, and what leaders are told."""

    position: Position
    alerts: Sequence[Alert]
    """At most `MOST_ALERTS`, each once."""
    requests: Mapping[str, Request]
    """By request id: at most `MOST_ENDS` awaited ends, whose ids sort as the outcomes do, at most `MOST_WHOLES`
    runs of which parts ended, and runs of jobs that follow others."""
    lapses: Mapping[str, bool]
    """Job -> whether its last run failed: the jobs of which that changes."""
    over: Sequence[Over]
    """The runs that ended for good, for counting."""
    skips: Sequence[Outcome] = ()
    """Records of jobs that follow others and do not run."""
    gathered: Mapping[str, Gathering | None] = field(default_factory=dict)
    """What becomes of the records of runs that are to follow several others; None: it goes."""
    late: Sequence[Alert] = ()
    """Runs that began late, of which nobody was told while they lived; at most `MOST_ALERTS`."""


def consequences(
    keys: Keys,
    outcomes: Iterable[tuple[int, str, bytes]],
    position: Position,
    graph: Graph | None = None,
    gathered: Mapping[str, Gathering] | None = None,
    now: float = 0.0,
    *,
    lapsed: Collection[str] = (),
    rules: Collection[Rule] = (),
    told: Callable[[str], bool] = lambda run: False,
) -> Consequences:
    """Go from `position` over `outcomes` (revision, key, value), in order, as far as one transaction can.

    `graph`: which jobs follow which (None: no job any), `gathered`: what those that follow several have so far,
    `now`: when the consequences are drawn; `lapsed`: the jobs whose last run failed; one that succeeds then is an
    alert, too. `rules`: the alert rules; `told`: whether people know already that a run is late.

    The final failure of a part is no alert: that of its run will be, and names it.
    """
    alerts: dict[str, Alert] = {}
    ends: dict[str, Request] = {}
    parts: dict[str, Request] = {}
    chained: list[Consequence] = []
    known, changed = dict(gathered or {}), dict[str, Gathering | None]()
    carried = 0
    lapses: dict[str, bool] = {}
    over: list[Over] = []
    late: dict[str, Alert] = {}
    for revision, key, value in outcomes:
        run = key.removeprefix(keys.outs).split("/")[0]
        whole = ids.whole(run)
        job = run.split(".")[0]
        alert, end = run_failed(run, value), _ended(run, value)
        if alert is None and whole == run and lapses.get(job, job in lapsed):
            alert = recovered(run, value)
        if alert is None and whole == run:
            alert = punctual.missed(run, value, rules)
        began_late = punctual.late_end(run, value)
        if began_late is not None and (began_late.id in late or told(run)):
            began_late = None
        part = _part_ended(run, whole, value, parts.get(whole)) if whole != run else None
        if part is not None and alert is not None and alert.kind == AlertKind.RUN_FAILED:
            alert = None
        follows = _followed(run, value, graph, known, now) if graph is not None else []
        written = (
            2 * len(alerts)
            + 3 * (len(late) + (began_late is not None))
            + len(lapses)
            + len(ends)
            + len(parts)
            + _writes(chained)
        )
        if (
            (alert is not None and len(alerts) >= MOST_ALERTS)
            or (began_late is not None and len(late) >= MOST_ALERTS)
            or (end is not None and len(ends) >= MOST_ENDS)
            or (part is not None and whole not in parts and len(parts) >= MOST_WHOLES)
            or written + WRITES + _writes(follows) > MOST_WRITES
            or (carried and carried + _bytes(follows) > MOST_BYTES)
        ):
            break
        carried += _bytes(follows)
        if alert is not None:
            alerts.setdefault(alert.id, alert)
            if alert.kind in (AlertKind.RUN_FAILED, AlertKind.RECOVERED):
                lapses[job] = alert.kind == AlertKind.RUN_FAILED
        if began_late is not None:
            late[began_late.id] = began_late
        if end is not None:
            ends[f"s{revision:016x}.{run}"] = end
        if part is not None:
            parts[whole] = part
        chained += follows
        for each in follows:
            if each.gathered is not None:
                of, record = each.gathered
                changed[of] = record
                if record is not None:
                    known[of] = record
                else:
                    known.pop(of, None)
        if whole == run and (ended := over_for_good(run, value)) is not None:
            over.append(ended)
        position = Position(revision, key)
    requests = {**ends, **{f"p{position.revision:016x}.{whole}": told for whole, told in parts.items()}}
    requests |= dict(each.request for each in chained if each.request)
    skips = tuple(each.skip for each in chained if each.skip)
    turned = {job: failed for job, failed in lapses.items() if failed != (job in lapsed)}
    return Consequences(position, tuple(alerts.values()), requests, turned, over, skips, changed,
                        tuple(late.values()))  # fmt: skip


def over_for_good(run: str, value: bytes) -> Over | None:
    """The end of a run that an outcome is; None: something follows, it was cancelled, skipped or cannot be read."""
    kind, final, at = _KIND.search(value), _FINAL.search(value), _ENDED.search(value)
    if kind is None or at is None or final is None or final[1] != b"true":
        return None
    failed = kind[1].decode() in BAD
    if not failed and kind[1] != b"succeeded":
        return None
    return Over(run.split(".")[0], failed, float(at[1]), value)


def _followed(run: str, value: bytes, graph: Graph, known: Mapping[str, Gathering], now: float) -> list[Consequence]:
    """What the end of a run comes to for the jobs that follow its job."""
    end = End.of(value) if graph.after(run.split(".")[0]) else None
    if end is None or end.run != run:
        return []
    try:
        return gathering.consequences(end, graph, known, now)
    except Exception:  # whoever writes outcomes and links must not be able to stop the others
        log.exception("what follows the end of run %s cannot be told: nothing does", run)
        return []


def _writes(chained: Iterable[Consequence]) -> int:
    """How many records they write, at most."""
    return sum(sum(part is not None for part in each) for each in chained)


def _bytes(chained: Iterable[Consequence]) -> int:
    """About how many bytes of parameters they carry."""
    requests = [each.request[1].params for each in chained if each.request]
    records = [each.gathered[1].params for each in chained if each.gathered and each.gathered[1]]
    return sum(len(dumps(params, "replace")) for params in (*requests, *records) if params)


def _ended(run: str, value: bytes) -> Request | None:
    """What the leader of a job is told of an outcome: that an awaited run is over."""
    if _AWAITED not in value:
        return None
    try:
        told = Outcome.read(value)
        if told.awaited is not True or not told.final:
            return None
        return Request(
            "ended", run=run, job=run.split(".")[0], generation=int(told.generation), trigger=str(told.trigger),
            outcome=str(told.kind), revision=int(told.revision), ended_at=float(told.ended_at),
        )  # fmt: skip
    except (UnknownRecord, ValueError, TypeError, OverflowError):
        return None  # the archiver says that it cannot be read


def _part_ended(run: str, whole: str, value: bytes, known: Request | None) -> Request | None:
    """What is told of the whole run with this outcome of its part; None: the part has not ended, or is none."""
    try:
        told, parsed = json.loads(value), ids.parse_run_id(run)
        if not told["final"]:
            return None
        starts = [at for at in (told.get("started_at"), known and known.started_at) if isinstance(at, int | float)]
        parts = {**(known.parts if known else {}), str(parsed.part): str(told["kind"])}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    request = Request("parts", run=whole, job=parsed.job, generation=parsed.generation)
    return replace(request, parts=parts, started_at=min(starts, default=None))


def settle(
    keys: Keys,
    *,
    settled_seen: int,
    position: Position,
    alerts: Iterable[Alert] = (),
    late: Iterable[Alert] = (),
    again: Alert | None = None,
    requests: Mapping[str, Request] | None = None,
    skips: Iterable[Outcome] = (),
    chains_seen: int = 0,
    gathered: Mapping[str, tuple[int, Gathering | None]] | None = None,
    lapses: Mapping[str, bool] | None = None,
) -> Move:
    """Advance the position, put the alerts, tell the leaders, ask for what follows; two leaders cannot both.

    An alert or a request that is there already is put again: it says the same, and refusing would stop every later one.
    `late`: alerts about runs that began late, unless people were told meanwhile; `again`: an alert that people have
    been told of already, put because it stands for more now; `chains_seen`: revision up to which it is known which
    jobs follow which; `gathered`: what becomes of the records of runs that are to follow several others, with the
    revision seen of each.
    """
    puts = {keys.settled: position.encode()}
    for alert in alerts:
        puts |= put(keys, alert)
    told_of = {keys.run_told(alert.run, AlertKind.LATE): alert for alert in late}
    for key, alert in told_of.items():
        puts |= {key: b"{}", **put(keys, alert)}
    if again is not None:
        puts[keys.alert(again.id)] = again.encode()
    puts |= {keys.run_in(ident): request.encode() for ident, request in (requests or {}).items()}
    puts |= {keys.out(skip.run, 0): skip.encode() for skip in skips}
    puts |= {keys.lapse(job): b"{}" for job, failed in (lapses or {}).items() if failed}
    deletes = [keys.lapse(job) for job, failed in (lapses or {}).items() if not failed]
    seen = {keys.settled: settled_seen, keys.chains: chains_seen, **dict.fromkeys(told_of, 0)}
    for run, (known, record) in (gathered or {}).items():
        key = keys.run_chain(run)
        seen[key] = known
        if record is not None:
            puts[key] = record.encode()
        elif known:
            deletes.append(key)
    return Move(seen, puts=puts, deletes=tuple(deletes), proof=keys.settled)


def give_up(keys: Keys, run: str, *, gathered_seen: int, skip: Outcome | None) -> Move:
    """A run that was to follow several others gathers no more: they did not come in time, or it is decided."""
    key = keys.run_chain(run)
    puts = {} if skip is None else {keys.out(skip.run, 0): skip.encode()}
    return Move({key: gathered_seen}, puts=puts, deletes=(key,))
