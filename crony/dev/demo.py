"""Jobs for `crony dev --demo`: a real crontab made harmless, and lively ones that show everything within a minute."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from crony.catalog.crontab import parse_crontab
from crony.catalog.crontab_names import harmless
from crony.catalog.jobs import Catalog
from crony.dev.say import Voice
from crony.errors import Conflict

FOLDER = "demo/"
ACTOR = "crony dev --demo"


def load(catalog: Catalog, address: str, voice: Voice) -> None:
    """Create the demo jobs, unless there are some: what somebody changed or deleted stays so."""
    lively_ones = lively(address)
    known = {job.name: job for job in catalog.list(folder=FOLDER, limit=200).items}
    if known:
        # The web may have moved to another port; its own job follows it.
        for document in lively_ones:
            old = known.get(document["name"])
            if (
                old
                and document["action"]["kind"] == "http"
                and old.document["action"]["url"] != document["action"]["url"]
            ):
                catalog.update(old.id, {**old.document, "action": document["action"]}, None, ACTOR)
        return voice.remark("the demo jobs are here from before")
    documents = [*lively_ones, *from_crontab()]
    for document in documents:
        try:
            catalog.create(document, ACTOR)
        except Conflict:
            continue
    return voice.remark(f"made {len(documents)} demo jobs; the first is due within seconds")


def from_crontab() -> list[dict[str, Any]]:
    """The jobs of the shipped crontab, their commands replaced where they would touch the machine."""
    text = (files("crony.dev") / "demo.crontab").read_text(encoding="utf-8")
    return [harmless(job) for job in parse_crontab(text).jobs]


def lively(address: str) -> list[dict[str, Any]]:
    """Job documents: each shows one thing, several times a minute. `address` is the web's own."""
    return [
        _shell("tick", "every 5 seconds, always well", "5s", 'echo "run $CRONY_RUN_ID on $(uname -n)"'),
        _shell("clock", "every 10 seconds", "10s", "date -u; sleep 0.3; echo done"),
        {
            "name": f"{FOLDER}web-alive",
            "description": "Calls the web's own health page.",
            "tags": ["demo"],
            "schedule": {"every": "10s"},
            "action": {"kind": "http", "method": "GET", "url": f"{address}/livez"},
            "timeout": "5s",
        },
        _shell(
            "flaky",
            "fails at its first attempt, succeeds at its second",
            "15s",
            'if [ "$CRONY_ATTEMPT" = 1 ]; then echo "no luck this time" >&2; exit 3; fi\necho "better"',
            retry={"max": 2, "delay": "1s", "backoff": "fixed", "jitter": False},
        ),
        _shell("slow", "takes longer than its interval: every second fire is skipped", "5s", "sleep 7; echo finally"),
        _shell(
            "after-the-end",
            "starts 4 seconds after the run before it has ended",
            "4s",
            'sleep "$(( $(date +%s) % 3 )).5"; echo rested',
            after="end",
        ),
        _shell("too-slow", "is stopped by its timeout", "30s", "echo waiting; sleep 60", timeout="3s"),
        _shell(
            "broken",
            "fails for good",
            "30s",
            "echo 'cannot find the ledger' >&2; exit 1",
            retry={"max": 1, "delay": "2s", "backoff": "fixed", "jitter": False},
        ),
        _shell(
            "by-hand",
            "no schedule: run it with `crony job run demo/by-hand -p region=eu`",
            None,
            'echo "region: $CRONY_PARAM_REGION"',
            params={"region": "cn"},
        ),
    ]


def _shell(name: str, about: str, every: str | None, script: str, *, after: str = "", **more: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": FOLDER + name,
        "description": f"{about[0].upper()}{about[1:]}.",
        "tags": ["demo"],
        "action": {"kind": "shell", "script": script},
        "timeout": "30s",
        **more,
    }
    if every:
        document["schedule"] = {"every": every, "after": after} if after else {"every": every}
    return document
