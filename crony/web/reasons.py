"""Why outcomes are what they are, in the reader's language: what nodes, services and the leader say in English.

Clause by clause; a clause nobody translated leaves the sentence English rather than half of each.
"""

from __future__ import annotations

import re

from crony.web.i18n import N_, Gettext
from crony.web.mishaps import MISHAPS

SAID = (
    (
        r"the (?:request|call) was not sent: no instance of (?P<service>\S+) that speaks (?P<what>.+) is registered",
        N_("it was not sent: no instance of %(service)s that speaks %(what)s is registered"),
    ),
    (r"(?P<host>\S+) cannot be reached: Connection refused", N_("%(host)s cannot be reached: nobody listens there")),
    (r"(?P<host>\S+) cannot be reached: (?P<why>.+)", N_("%(host)s cannot be reached: %(why)s")),
    (r"exit code (?P<n>-?\d+)", N_("exit code %(n)s")),
    (r"exit code (?P<n>-?\d+) \(command not found\)", N_("exit code %(n)s (command not found)")),
    (r"exit code (?P<n>-?\d+) \(cannot be executed\)", N_("exit code %(n)s (cannot be executed)")),
    (r"killed by signal (?P<name>\w+)", N_("killed by signal %(name)s")),
    (r"still running after (?P<n>[\d.e+]+) s", N_("still running after %(n)s s")),
    (r"its processes were ended", N_("its processes were ended")),
    (r"cancelled", N_("cancelled")),
    (r"cancelled by (?P<name>.+)", N_("cancelled by %(name)s")),
    (r"cancelled before it started", N_("cancelled before it started")),
    (r"no complete answer within (?P<n>[\d.e+]+) s", N_("no complete answer within %(n)s s")),
    (
        r"the service answered (?P<code>\d+) (?P<words>[^,]*), expected (?P<wanted>.+)",
        N_("the service answered %(code)s %(words)s, expected %(wanted)s"),
    ),
    (r"not completed within (?P<n>[\d.a-z]+)", N_("not completed within %(n)s")),
    (r"nothing was heard of it for (?P<n>[\d.a-z]+)", N_("nothing was heard of it for %(n)s")),
    (r"cancelled when its callee accepted it", N_("cancelled when its callee accepted it")),
    (
        r"this node cannot say where to call back: it needs CRONY_API or CRONY_API_PUBLIC",
        N_("this node cannot say where to call back: it needs CRONY_API or CRONY_API_PUBLIC"),
    ),
    (r"its node was lost", N_("its node was lost")),
    (
        r"etcd was restored from a backup",
        N_("etcd was restored from a backup"),
    ),
    (r"it may have run since", N_("it may have run since")),
    (r"whether they ran since is not known", N_("whether they ran since is not known")),
    (r"stopped, because its node was cut off from etcd", N_("stopped, because its node was cut off from etcd")),
    (
        r"given up: delivered (?P<n>\d+) times and never started",
        N_("given up: delivered %(n)s times and never started"),
    ),
    (r"pool (?P<name>\S+) lets (?P<n>\d+) run at a time", N_("pool %(name)s lets %(n)s run at a time")),
    (r"there is no pool (?P<name>\S+)", N_("there is no pool %(name)s")),
    (r"released by (?P<name>.+)", N_("released by %(name)s")),
    (r"it may have run, and must not run twice", N_("it may have run, and must not run twice")),
    (r"its node was lost before the work started", N_("its node was lost before the work started")),
    (r"its session ended without a stop or a drain", N_("its session ended without a stop or a drain")),
    (
        r"(?P<name>[^;]+) leads now, before it (?P<before>[^;]+) did",
        N_("%(name)s leads now, before it %(before)s did"),
    ),
    (
        r"(?P<name>[^;]+) leads shard (?P<n>\d+) now, before it (?P<before>[^;]+) did",
        N_("%(name)s leads shard %(n)s now, before it %(before)s did"),
    ),
    (r"more than (?P<n>\d+) waited for the database", N_("more than %(n)s waited for the database")),
    (r"it has waited for (?P<n>\d+) min", N_("it has waited for %(n)s min")),
    (
        r"it was due at (?P<at>[-\d: ]+UTC) and began (?P<how>\w+) later",
        N_("it was due at %(at)s and began %(how)s later"),
    ),
    (
        r"it was due at (?P<at>[-\d: ]+UTC) and has not begun (?P<how>\w+) later",
        N_("it was due at %(at)s and has not begun %(how)s later"),
    ),
    (
        r"it is under way since (?P<at>[-\d: ]+UTC), for more than (?P<how>\w+)",
        N_("it is under way since %(at)s, for more than %(how)s"),
    ),
    (r"it was due at (?P<at>[-\d: ]+UTC)", N_("it was due at %(at)s")),
    (
        r"it was due (?P<n>\d+) times from (?P<first>[-\d: ]+UTC) to (?P<last>[-\d: ]+UTC)",
        N_("it was due %(n)s times from %(first)s to %(last)s"),
    ),
    (r"another run was under way", N_("another run was under way")),
    (r"it was decided too late", N_("it was decided too late")),
    (r"it could not be decided", N_("it could not be decided")),
    (r"etcd was restored from a backup", N_("etcd was restored from a backup")),
    (r"no node fitted", N_("no node fitted")),
    (r"no node fits", N_("no node fits")),
    (r"a pool of its job has no free slot", N_("a pool of its job has no free slot")),
    (r"node (?P<name>\S+) has not begun it", N_("node %(name)s has not begun it")),
    (r"their runs are listed as failed", N_("their runs are listed as failed")),
    (r"its node takes no more work", N_("its node takes no more work")),
    (
        r"given up: (?P<n>\d+) nodes were lost while they ran it",
        N_("given up: %(n)s nodes were lost while they ran it"),
    ),
    (r"this node does not run (?P<kind>\w+) jobs", N_("this node does not run %(kind)s jobs")),
    (r"the only node that fits", N_("the only node that fits")),
    (
        r"its turn among (?P<n>\d+) nodes, weight (?P<weight>\d+) of (?P<total>\d+)",
        N_("its turn among %(n)s nodes, weight %(weight)s of %(total)s"),
    ),
    (
        r"the least busy of (?P<n>\d+) nodes, (?P<live>\d+) of (?P<places>\d+) places taken",
        N_("the least busy of %(n)s nodes, %(live)s of %(places)s places taken"),
    ),
    (
        r"drawn among (?P<n>\d+) nodes, weight (?P<weight>\d+) of (?P<total>\d+)",
        N_("drawn among %(n)s nodes, weight %(weight)s of %(total)s"),
    ),
    (r"the key belongs to it among (?P<n>\d+) nodes", N_("the key belongs to it among %(n)s nodes")),
    (
        r"the first of (?P<n>\d+) nodes to take it from the shared queue (?P<name>\S+)",
        N_("the first of %(n)s nodes to take it from the shared queue %(name)s"),
    ),
    (
        r"the only node that takes from the shared queue (?P<name>\S+)",
        N_("the only node that takes from the shared queue %(name)s"),
    ),
    (r"each of (?P<n>\d+) nodes has a part", N_("each of %(n)s nodes has a part")),
    (r"(?P<n>\d+) of (?P<all>\d+) parts have ended", N_("%(n)s of %(all)s parts have ended")),
    (r"(?P<n>\d+) of (?P<all>\d+) parts did not succeed", N_("%(n)s of %(all)s parts did not succeed")),
    (r"(?P<n>\d+) of (?P<all>\d+) parts were not begun", N_("%(n)s of %(all)s parts were not begun")),
    (r"failed: (?P<parts>.+)", N_("failed: %(parts)s")),
    (r"timed_out: (?P<parts>.+)", N_("timed out: %(parts)s")),
    (r"cancelled: (?P<parts>.+)", N_("cancelled: %(parts)s")),
    (r"lost: (?P<parts>.+)", N_("lost: %(parts)s")),
    (r"unknown: (?P<parts>.+)", N_("unknown: %(parts)s")),
    (r"refused: (?P<parts>.+)", N_("refused: %(parts)s")),
    (r"its node did not come back within (?P<n>[\d.e+]+) s", N_("its node did not come back within %(n)s s")),
    (r"strategy (?P<name>[a-z_]+)", N_("strategy %(name)s")),
    (r"(?P<n>\d+) more", N_("%(n)s more")),
    (r"(?P<name>.+) ended as succeeded", N_("%(name)s ended as succeeded")),
    (r"(?P<name>.+) ended as failed", N_("%(name)s ended as failed")),
    (r"(?P<name>.+) ended as timed_out", N_("%(name)s ended as timed out")),
    (r"(?P<name>.+) ended as cancelled", N_("%(name)s ended as cancelled")),
    (r"(?P<name>.+) ended as lost", N_("%(name)s ended as lost")),
    (r"(?P<name>.+) ended as unknown", N_("%(name)s ended as unknown")),
    (r"(?P<name>.+) ended as refused", N_("%(name)s ended as refused")),
    (r"(?P<name>.+) was skipped", N_("%(name)s was skipped")),
    (r"its success was awaited", N_("its success was awaited")),
    (r"its failure was awaited", N_("its failure was awaited")),
    (r"its end was awaited", N_("its end was awaited")),
    (r"success of (?P<n>\d+) of (?P<all>\d+) was awaited", N_("success of %(n)s of %(all)s was awaited")),
    (r"failure of (?P<n>\d+) of (?P<all>\d+) was awaited", N_("failure of %(n)s of %(all)s was awaited")),
    (r"end of (?P<n>\d+) of (?P<all>\d+) was awaited", N_("the end of %(n)s of %(all)s was awaited")),
    (
        r"no run of (?P<name>.+) is part of a chain that began so",
        N_("no run of %(name)s is part of a chain that began so"),
    ),
    (
        r"(?P<name>.+) did not end within (?P<n>[\d.a-z]+) after its chain began",
        N_("%(name)s did not end within %(n)s after its chain began"),
    ),
    (
        r"(?P<name>.+) ended more than (?P<n>[\d.a-z]+) after its chain began",
        N_("%(name)s ended more than %(n)s after its chain began"),
    ),
    (r"there is nothing for the parameter (?P<name>.+)", N_("there is nothing for the parameter %(name)s")),
    (r"the run of (?P<name>.+) has no (?P<what>.+)", N_("the run of %(name)s has no %(what)s")),
    (
        r"what is taken from its parents is larger than (?P<n>\d+) KiB",
        N_("what is taken from its parents is larger than %(n)s KiB"),
    ),
    (r"the job was paused", N_("the job was paused")),
    (r"the job is deleted", N_("the job is deleted")),
    (r"the job does not run after it any more", N_("the job does not run after it any more")),
    (r"(?P<name>.+) has not ended", N_("%(name)s has not ended")),
    (r"not in its turn: (?P<nodes>.+)", N_("not in its turn: %(nodes)s")),
    (r"busier: (?P<nodes>.+)", N_("busier: %(nodes)s")),
    (r"all places taken: (?P<nodes>.+)", N_("all places taken: %(nodes)s")),
    (r"not drawn: (?P<nodes>.+)", N_("not drawn: %(nodes)s")),
    (r"not the key's node: (?P<nodes>.+)", N_("not the key's node: %(nodes)s")),
    (r"failed this run before: (?P<nodes>.+)", N_("failed this run before: %(nodes)s")),
    (r"away: (?P<nodes>.+)", N_("away: %(nodes)s")),
    (r"stopping: (?P<nodes>.+)", N_("stopping: %(nodes)s")),
    (r"drained: (?P<nodes>.+)", N_("drained: %(nodes)s")),
    (r"cordoned: (?P<nodes>.+)", N_("cordoned: %(nodes)s")),
    (r"weight 0: (?P<nodes>.+)", N_("weight 0: %(nodes)s")),
    (r"not registered: (?P<nodes>.+)", N_("not registered: %(nodes)s")),
    (r"not the node asked for: (?P<nodes>.+)", N_("not the node asked for: %(nodes)s")),
    (r"excluded by the job: (?P<nodes>.+)", N_("excluded by the job: %(nodes)s")),
    (
        r"does not take from the queue (?P<name>\S+): (?P<nodes>.+)",
        N_("does not take from the queue %(name)s: %(nodes)s"),
    ),
    (r"no node takes from its shared queue", N_("no node takes from its shared queue")),
    (r"no node has taken it from its shared queue", N_("no node has taken it from its shared queue")),
    (
        r"labels were asked for, and whoever takes from its shared queue first gets it",
        N_("labels were asked for, and whoever takes from its shared queue first gets it"),
    ),
    (
        r"takes no start permits \(upgrade it\): (?P<nodes>.+)",
        N_("takes no start permits (upgrade it): %(nodes)s"),
    ),
    (r"does not run (?P<kind>\w+) jobs: (?P<nodes>.+)", N_("does not run %(kind)s jobs: %(nodes)s")),
    (r"has no (?P<key>\S+): (?P<nodes>.+)", N_("has no %(key)s: %(nodes)s")),
    (
        r"(?P<key>\S+) is (?P<value>.+?), not (?P<wanted>\S+): (?P<nodes>.+)",
        N_("%(key)s is %(value)s, not %(wanted)s: %(nodes)s"),
    ),
    (r"all that fit were to be avoided", N_("all that fit were to be avoided")),
    (r"(?P<n>\d+) avoided after a failed attempt", N_("%(n)s avoided after a failed attempt")),
    (r"no node is alive", N_("no node is alive")),
    (r"(?P<run>\S+) was still under way", N_("%(run)s was still under way")),
    (r"no place in line was free \(limit (?P<n>\d+)\)", N_("no place in line was free (limit %(n)s)")),
    (r"its turn comes when what is under way has ended", N_("its turn comes when what is under way has ended")),
    (
        r"(?P<n>\d+) failures in a row, the last one run (?P<run>\S+)",
        N_("%(n)s failures in a row, the last one run %(run)s"),
    ),
    (r"paused until a set time", N_("paused until a set time")),
    (r"a later one took its place", N_("a later one took its place")),
    (r"the job was paused before its turn", N_("the job was paused before its turn")),
    (r"decided more than (?P<n>[\d.e+]+) s late", N_("decided more than %(n)s s late")),
    (r"only the latest runs, at most (?P<n>[\d.e+]+) s old", N_("only the latest runs, at most %(n)s s old")),
    (r"each one runs, at most (?P<n>[\d.e+]+) s old", N_("each one runs, at most %(n)s s old")),
    (r"late fires do not run", N_("late fires do not run")),
    (r"waits for the leader", N_("waits for the leader")),
    (
        r"no time zone is called (?P<zone>\S+) in the time zone data of the centre \((?P<release>[^)]+)\): install "
        r"other data there, or save the job with another zone",
        N_("the centre's time zone data (%(release)s) have no zone %(zone)s: install other data or change the zone"),
    ),
    (
        r"what was due by the schedule before cannot be told any more: no time zone is called (?P<zone>\S+)",
        N_("what was due by the schedule before, in %(zone)s, cannot be told any more"),
    ),
    (r"did you mean (?P<names>.+)\?", N_("did you mean %(names)s?")),
    (
        r"clocks went from (?P<old>\S+) to (?P<new>\S+) since the one before",
        N_("clocks went from %(old)s to %(new)s since the one before"),
    ),
    (
        r"(?P<time>[\d:]+) does not exist on this day, so it fires at the end of the gap",
        N_("%(time)s does not exist on this day, so it fires at the end of the gap"),
    ),
    (r"(?P<time>[\d:]+) occurs twice on this day: this is the first", N_("%(time)s occurs twice: the first")),
    (r"(?P<time>[\d:]+) occurs twice on this day: this is the second", N_("%(time)s occurs twice: the second")),
    (
        r"moved here from (?P<day>[\d-]+), a closed day",
        N_("moved here from %(day)s, a closed day"),
    ),
    (
        r"left out before it, as (?P<time>[\d: -]+) did not exist: (?P<n>\d+)",
        N_("%(n)s left out before it, as %(time)s did not exist"),
    ),
)
_SAID = tuple((re.compile(pattern), message) for pattern, message in (*MISHAPS, *SAID))


def said(text: str, _: Gettext, language: str) -> str:
    """A reason or explanation in `language`; as it is where any of its clauses has no translation."""
    if language == "en" or not text:
        return text
    clauses = []
    for clause in text.split("; "):
        found = next(((match, message) for pattern, message in _SAID if (match := pattern.fullmatch(clause))), None)
        if found is None:
            return text
        values = {name: said(value, _, language) if name == "what" else value
                  for name, value in found[0].groupdict().items()}  # fmt: skip
        clauses.append(_(found[1], **values))
    return _("; ").join(clauses)
