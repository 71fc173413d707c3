"""Every reason that leader and nodes give for a fire or run that did not happen is said in Chinese, too."""

from __future__ import annotations

import re

import pytest

from crony.web import reasons
from crony.web.i18n import translator

REASONS = (
    "deleted before they were decided",
    "its instant had passed when the job could be published",
    "deleted before they were decided; there were more than 1000000",
    "at least this many; decided more than 60 s late; only the latest runs, at most 604800 s old",
    "decided more than 60 s late; late fires do not run",
    "paused until a set time",
    "j1.1.5 was still under way",
    "the fire of 2026-11-29T08:00:00Z was still under way",
    "no place in line was free (limit 1)",
    "a later one took its place",
    "the job was paused before its turn",
    "the job is deleted",
    "the job was deleted and created again",
    "there is no such job",
    "it is too large for one message",
    "ValueError: its message is too large",
    "a part of it is too large for one message",
    "its node did not come back within 60 s; away: n1",
    "5000 nodes fit; a broadcast goes to 4000 at most",
    "the job runs at most once: a run of it cannot have retries",
    "the task a.b is not in a module that may be run by name (CRONY_IMPORTS of the centre)",
    "cancelled by li",
    "its job was deleted",
    "no attempts are left",
    "given up: 5 nodes were lost while they ran it",
    "its message was quarantined by n1: it expired 5 s ago",
    "a node set its message aside: it expired 5 s ago",
    "its backfill was cancelled by li",
    "its backfill was cancelled",
    "replaced by run j1.1.5",
    "not started: there is no secret x",
    "not started: the secret x cannot be opened on this node. its key is not here",
    "not started: its secrets could not be read. etcd did not answer for 30 s",
    "Celery let go of it without an outcome",
    "over Celery's hard time limit; its process was killed",
    "over Celery's hard time limit of 5 s; its process was killed",
    "the process that ran it died: Worker exited prematurely: signal 9 (SIGKILL) Job: 0.",
    "the function did not stop, so its process was ended",
    "the shell runner failed: ValueError: x",
    "etcd was restored from a backup; whether they ran since is not known",
    "2 of 5 parts did not succeed; failed: 1, 2",
    "3 of 5 parts were not begun",
    "cancelled by li; 3 of 5 parts were not begun",
    "the record is not signed by a trusted key. InvalidSignature",
    "the document is of another job. j1",
    "a LiveJob of version 2. upgrade this process",
    "not completed within 2h",
    "nothing was heard of it for 5m",
    "its node was stopped before it started",
    "sent to an earlier start of this node",
    "it did not start: the process that ran it died: x",
    "cancelled when its callee accepted it",
    "it was to be answered later, and its job has no `async` section",
    "cancelled before it started",
    "stopped, because its node was cut off from etcd",
    "no run of a is part of a chain that began so; its success was awaited",
    "a ended as failed; its success was awaited",
    "a was skipped; success of 2 of 2 was awaited",
    "b did not end within 1d after its chain began",
    "no time zone is called Mars/Base in the time zone data of the centre (2026a): install other data there, or save the job with another zone",  # noqa: E501
    "released by li",
    "no node is alive",
    "its node takes no more work",
    "pool a lets 2 run at a time",
    "there is no pool x",
    "does not run shell jobs: n1; zone is b, not a: n2; has no key for secrets: n3",
    "no node takes from its shared queue",
    "its node was lost before the work started",
    "the job does not run after it any more",
)
OURS = {
    "ascii": r"[A-Za-z]{3,}",
    "kept": r"CRONY_\w+|Celery|LiveJob|ValueError|Worker exited .*|Mars/Base|async|etcd|shell|zone|Web|max",
}


@pytest.mark.parametrize("text", REASONS)
def test_a_reason_is_said_in_both_languages(text: str) -> None:
    assert reasons.said(text, translator("en"), "en") == text
    chinese = reasons.said(text, translator("zh"), "zh")
    assert chinese != text and re.search("[\u4e00-\u9fff]", chinese)
    left = re.findall(OURS["ascii"], re.sub(OURS["kept"], "", chinese))
    assert not left, f"half of each: {chinese}"
