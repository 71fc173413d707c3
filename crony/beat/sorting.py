"""Whose business a key is: of one shard's leader, or of every one's."""

from __future__ import annotations

import json

from crony.domain.ids import parse_run_id, place_ident
from crony.domain.shards import shard_of
from crony.etcd.keys import Keys

ALL = -1


class Sorter:
    """Sorts keys by shard, `count` of them."""

    def __init__(self, keys: Keys, count: int) -> None:
        self._root, self.count = len(keys.root), count

    def owner(self, key: str, value: bytes | None) -> int:
        """The shard whose leader has to know this key, or `ALL`. `value`: None for a deletion.

        What belongs to no job that can be told is shard 0's, so that somebody says what is wrong with it.
        """
        if self.count == 1:
            return 0
        match key[self._root :].split("/"):
            case ["job" | "done", job]:
                return shard_of(job, self.count)
            case ["run", "in" | "backfill", _]:  # whose it was a deletion does not tell
                return ALL if value is None else self._run_or_job(*_asked(value))
            case ["run", "wait" | "acc" | "beat" | "join" | "out" | "told", run, *_] | ["cmd", _, run]:
                return self._run_or_job(run)
            case ["run", "q", _, "c", place] | ["dead", _, place]:
                return self._run_or_job(_run_at(place))
            case ["settled"] | ["dead", *_] | ["run", "chain", _] | ["lapse", _]:
                return 0
        return ALL  # nodes, sessions, the stop switch; and messages: how many lie in a queue is its load

    def _run_or_job(self, run: str, job: str = "") -> int:
        return shard_of(job_of(run) or job, self.count)


def job_of(run: str) -> str:
    """The job of a run; empty for what is not a run id."""
    try:
        return parse_run_id(run).job
    except ValueError:
        return ""


def filled_by(run: str) -> str:
    """The backfill that made a run; empty for every other run."""
    if ".b" not in run:  # most are not, and this is asked of all
        return ""
    try:
        return parse_run_id(run).backfill
    except ValueError:
        return ""


def _run_at(place: str) -> str:
    try:
        return place_ident(place)
    except IndexError:
        return ""


def _asked(value: bytes) -> tuple[str, str]:
    """Run and job that a request is about."""
    try:
        told = json.loads(value)
        return str(told.get("run", "")), str(told.get("job", ""))
    except (ValueError, AttributeError, RecursionError):
        return "", ""
