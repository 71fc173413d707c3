"""The jobs of a soak: every policy and kind of schedule, sparse, each writing down what it really does."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Document = dict[str, Any]
NO_LIMIT = {"after": "1h"}
"""A misfire policy by which every fire is dispatched as itself, however late."""
RETRY = {"max": 3, "delay": "0s"}


def marking(name: str, marks: Path, *, between: str = ":", code: int = 0, **more: Any) -> Document:
    """A job that writes a line at its start and one at its end, each in one append, to a file outside Crony."""

    def line(what: str) -> str:
        facts = "$CRONY_RUN_ID $CRONY_ATTEMPT $CRONY_FENCE"
        return f'printf "%s\\n" "{facts} {what} $(date +%s.%N)" >> {marks}'

    script = f"{line('start')}\n{between}\n{line('end')}\nexit {code}\n"
    return {"name": name, "action": {"kind": "shell", "script": script}, "tags": ["marks"], "timeout": "60s", **more}


POOLS = ({"name": "few", "limit": 2}, {"name": "one", "limit": 1})
CALENDAR = "quiet"
"""Its periods are changed by callers while jobs keep to it."""


def quiet(rng: random.Random, now: float) -> Document:
    """The calendar, saved now: some seconds soon, in which jobs that keep out of it are not due."""
    begin = int(now) + rng.randint(2, 12)
    times = [datetime.fromtimestamp(at, UTC).isoformat() for at in (begin, begin + rng.randint(2, 9))]
    return {"name": CALENDAR, "periods": [{"start": times[0], "end": times[1]}]}


def cast(rng: random.Random, marks: Path, change: int, zones: list[str], callee: str) -> list[Document]:
    """What is there from the beginning. `change`: when the clocks of our own zones change; `callee`: where a service
    is called that answers later."""

    def job(name: str, schedule: Any, **more: Any) -> Document:
        return marking(name, marks, schedule=schedule, **{"retry": RETRY, **more})

    def cron6(text: str) -> Document:
        return {"cron": text, "dialect": "cron6"}

    nap = "sleep 0.$(( ($(date +%N | sed 's/^0*//') / 1000) % 9 ))"
    crowd = (int(change) + rng.randint(5, 50)) % 60
    jobs = [
        job("tick/all", {"every": "1s"}, overlap="allow", misfire=NO_LIMIT),
        job("tick/skip", {"every": "2s"}, overlap="skip", misfire=NO_LIMIT, between=f"sleep 1.8; {nap}"),
        job("tick/one", {"every": "3s"}, overlap="queue_one", misfire=NO_LIMIT, between=f"sleep 1; {nap}"),
        job("tick/line", {"every": "4s"}, overlap="queue_all", overlap_limit=3, misfire=NO_LIMIT, between="sleep 1"),
        job("tick/newest", {"every": "5s"}, overlap="cancel_previous", misfire=NO_LIMIT, between="sleep 2"),
        job("late/once", cron6("*/3 * * * * *"), overlap="allow", misfire={"after": "2s", "policy": "fire_once"}),
        job("late/all", cron6("1-59/4 * * * * *"), overlap="allow",
            misfire={"after": "2s", "policy": "fire_all", "within": "8s"}),
        job("late/never", cron6("*/5 * * * * *"), overlap="allow", misfire={"after": "2s", "policy": "skip"}),
        job("two/schedules", [{"every": "6s"}, cron6("*/4 * * * * *")], overlap="allow", misfire=NO_LIMIT),
        job("spread/jitter", {"every": "10s", "jitter": "5s"}, overlap="allow", misfire=NO_LIMIT),
        job("spread/hash", cron6("H * * * * *"), overlap="allow", misfire=NO_LIMIT),
        job("once/often", {"every": "4s"}, overlap="allow", misfire=NO_LIMIT, between="sleep 1",
            delivery="at_most_once", retry={"max": 0}),
        job("loss/fail", {"every": "6s"}, overlap="allow", misfire=NO_LIMIT, between="sleep 2", on_node_loss="fail"),
        job("loss/hold", {"every": "9s"}, overlap="allow", misfire=NO_LIMIT, between="sleep 2", on_node_loss="hold"),
        job("cut/stop", {"every": "8s"}, overlap="allow", misfire=NO_LIMIT, between="sleep 3", on_cut="stop"),
        job("queue/any", {"every": "3s"}, overlap="allow", misfire=NO_LIMIT, routing={"strategy": "any"}),
        job("delay/after-end", {"every": "3s", "after": "end"}, overlap="skip", misfire=NO_LIMIT, between="sleep 1"),
        job("pool/few", {"every": "2s"}, overlap="allow", misfire=NO_LIMIT, between="sleep 1", limits=["pool:few"]),
        job("pool/both", {"every": "5s"}, overlap="allow", misfire=NO_LIMIT, between=nap,
            limits=["pool:few", "pool:one"], priority=5),
        job("parts/three", {"every": "6s"}, overlap="skip", misfire=NO_LIMIT, between=nap, routing={"parts": 3}),
        job("parts/all", {"every": "9s"}, overlap="allow", misfire=NO_LIMIT, between=nap,
            routing={"strategy": "broadcast"}),
        job("parts/once", {"every": "10s"}, overlap="allow", misfire=NO_LIMIT, between="sleep 1",
            delivery="at_most_once", retry={"max": 0}, routing={"parts": 2}),
        job("fill/again", {"every": "2s"}, overlap="allow", misfire=NO_LIMIT, between=nap),
        job("fill/once", {"every": "3s"}, overlap="allow", misfire=NO_LIMIT, delivery="at_most_once", retry={"max": 0}),
        job("chain/first", {"every": "5s"}, overlap="allow", misfire=NO_LIMIT, code=0,
            between="[ $((CRONY_FENCE % 3)) != 0 ] || exit 4", retry={"max": 0}),
        job("chain/well", None, overlap="allow", after={"on": "success", "jobs": ["chain/first"]}),
        job("chain/badly", None, overlap="allow", after={"on": "failure", "jobs": ["chain/first"]}),
        job("chain/last", None, overlap="allow", after={"on": "end", "jobs": ["chain/well"]}),
        job("keeps/out", {"every": "2s", "calendars": {"exclude": [CALENDAR]}}, overlap="allow", misfire=NO_LIMIT),
        job("keeps/in", cron6("*/2 * * * * *") | {"calendars": {"include": [CALENDAR]}}, overlap="allow",
            misfire=NO_LIMIT),
        {"name": "later/often", "schedule": {"every": "3s"}, "overlap": "allow", "misfire": NO_LIMIT,
         "action": {"kind": "http", "method": "POST", "url": callee}, "async": {"deadline": "6s"},
         "retry": {"max": 1, "delay": "0s"}},
        job("fails/sometimes", {"every": "7s"}, overlap="allow", misfire=NO_LIMIT, code=0,
            between="[ $((CRONY_ATTEMPT % 2)) = 0 ] || exit 3", retry={"max": 1, "delay": "1s"}),
    ]  # fmt: skip
    for zone in zones:
        there = {"timezone": zone}
        jobs.append(job(f"clocks/{zone}/fixed", {"cron": "0-59 0,2 * * *", **there}, overlap="allow", misfire=NO_LIMIT))
        jobs.append(job(f"clocks/{zone}/wild", {"cron": "* * * * *", **there}, overlap="allow", misfire=NO_LIMIT))
    jobs += [
        job(f"crowd/{number}", cron6(f"{crowd} * * * * *"), overlap="allow", misfire=NO_LIMIT) for number in range(8)
    ]
    jobs += [
        marking("hand/quick", marks, overlap="allow", retry=RETRY),
        marking("hand/long", marks, overlap="allow", retry=RETRY, between="sleep 4"),
        marking("hand/alone", marks, overlap="skip", retry=RETRY, between="sleep 1"),
        marking("hand/fails", marks, overlap="allow", code=3, retry={"max": 1, "delay": "0s"}),
        marking("hand/parts", marks, overlap="allow", retry=RETRY, between="sleep 1", routing={"parts": 3}),
        marking("hand/only-n1", marks, overlap="allow", retry=RETRY, routing={"labels": {"name": "n1"}}),
        {"name": "hand/python", "action": {"kind": "python", "task": "tests.soak.tasks.harmless"}, "overlap": "allow"},
        {"name": "hand/poison", "action": {"kind": "python", "task": "tests.soak.tasks.poison"}, "overlap": "allow",
         "retry": {"max": 1, "delay": "0s"}, "routing": {"labels": {"pool": "prefork"}}},
    ]  # fmt: skip
    return jobs


def passing(rng: random.Random, marks: Path, name: str, now: float) -> Document:
    """A job that callers make, change and delete."""
    soon = datetime.fromtimestamp(int(now) + rng.randint(2, 6), UTC).isoformat()
    schedule = rng.choice(
        [
            {"every": f"{rng.randint(1, 4)}s"},
            {"every": "3s", "start": soon},
            {"cron": f"*/{rng.randint(2, 6)} * * * * *", "dialect": "cron6"},
            {"at": soon},
        ]
    )
    return marking(name, marks, schedule=schedule, overlap="allow", misfire=NO_LIMIT, retry=RETRY)


def changed(rng: random.Random, document: Document) -> Document:
    """The document after an edit of its schedule (or of nothing that decides when it is due)."""
    if rng.random() < 0.3:
        return {**document, "description": f"edited {rng.randrange(10**6)}"}
    return {**document, "schedule": {"every": f"{rng.randint(1, 4)}s"}}
