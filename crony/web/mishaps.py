"""What leader and nodes say of fires and runs that did not happen, or not well: more patterns of `reasons.SAID`."""

from __future__ import annotations

from crony.web.i18n import N_

MISHAPS = (
    (r"deleted before they were decided", N_("deleted before they were decided")),
    (r"there were more than (?P<n>\d+)", N_("there were more than %(n)s")),
    (r"at least this many", N_("at least this many")),
    (
        r"its instant had passed when the job could be published",
        N_("its instant had passed when the job could be published"),
    ),
    (r"the fire of (?P<at>\S+) was still under way", N_("the fire of %(at)s was still under way")),
    (r"the job was deleted and created again", N_("the job was deleted and created again")),
    (r"there is no such job", N_("there is no such job")),
    (r"its job was deleted", N_("its job was deleted")),
    (r"no attempts are left", N_("no attempts are left")),
    (r"it is too large for one message", N_("it is too large for one message")),
    (r"ValueError: its message is too large", N_("its message is too large: shorten the job")),
    (r"a part of it is too large for one message", N_("a part of it is too large for one message")),
    (r"it expired (?P<n>\d+) s ago", N_("it expired %(n)s s ago")),
    (
        r"the job runs at most once: a run of it cannot have retries",
        N_("the job runs at most once: a run of it cannot have retries"),
    ),
    (
        r"the task (?P<name>\S+) is not in a module that may be run by name \(CRONY_IMPORTS of the centre\)",
        N_("the task %(name)s is not in a module that may be run by name (CRONY_IMPORTS of the centre)"),
    ),
    (
        r"its message was quarantined by (?P<name>\S+): (?P<what>.+)",
        N_("its message was quarantined by %(name)s: %(what)s"),
    ),
    (r"a node set its message aside: (?P<what>.+)", N_("a node set its message aside: %(what)s")),
    (r"its backfill was cancelled", N_("its backfill was cancelled")),
    (r"its backfill was cancelled by (?P<name>.+)", N_("its backfill was cancelled by %(name)s")),
    (r"replaced by run (?P<run>\S+)", N_("replaced by run %(run)s")),
    (r"not started: (?P<what>.+)", N_("not started: %(what)s")),
    (r"there is no secret (?P<name>\S+)", N_("there is no secret %(name)s")),
    (
        r"the secret (?P<name>\S+) cannot be opened on this node(?:[.:] .+)?",
        N_("the secret %(name)s cannot be opened on this node"),
    ),
    (
        r"its secrets could not be read[.:] etcd did not answer for (?P<n>\d+) s",
        N_("its secrets could not be read: etcd did not answer for %(n)s s"),
    ),
    (r"it did not start: (?P<what>.+)", N_("it did not start: %(what)s")),
    (r"Celery let go of it without an outcome", N_("Celery let go of it without an outcome")),
    (r"over Celery's hard time limit(?: of (?P<n>[\d.e+]+) s)?", N_("over Celery's hard time limit")),
    (r"its process was killed", N_("its process was killed")),
    (r"the process that ran it died: (?P<what>.+)", N_("the process that ran it died: %(what)s")),
    (
        r"the process that minded the command was killed, and it with it",
        N_("the process that minded the command was killed, and it with it"),
    ),
    (r"the function did not stop, so its process was ended", N_("the function did not stop, so its process was ended")),
    (r"(?P<what>\w+) by a Celery control command", N_("%(what)s by a Celery control command")),
    (r"the (?P<kind>\w+) runner failed: (?P<what>.+)", N_("the %(kind)s runner failed: %(what)s")),
    (
        r"(?:the job's document is not acted on: )?the record is not signed by a trusted key(?:[.:] .+)?",
        N_("the job's document is not signed by a web that the centre knows (CRONY_WEB_KEYS)"),
    ),
    (
        r"(?:the job's document is not acted on: )?the document is of another job[.:] (?P<job>\S+)",
        N_("the document is of another job: %(job)s"),
    ),
    (
        r"(?:the job's document is not acted on: )?a LiveJob of version (?P<n>\d+)\. upgrade this process",
        N_("the document is of version %(n)s: upgrade the centre"),
    ),
    (r"its node was stopped before it started", N_("its node was stopped before it started")),
    (r"sent to an earlier start of this node", N_("sent to an earlier start of this node")),
    (
        r"it was to be answered later, and its job has no `async` section",
        N_("it was to be answered later, and its job has no `async` section"),
    ),
    (r"has no key for secrets: (?P<nodes>.+)", N_("has no key for secrets: %(nodes)s")),
    (r"(?P<name>\S+) is not a task of this node", N_("%(name)s is not a task of this node")),
    (r"see CRONY_IMPORTS", N_("see CRONY_IMPORTS")),
    (r"(?P<n>\d+) nodes fit", N_("%(n)s nodes fit")),
    (r"a broadcast goes to (?P<n>\d+) at most", N_("a broadcast goes to %(n)s at most")),
)
"""Pattern of a clause, and its text in the catalogue. The first that fits counts; `what` is looked up in its turn."""
