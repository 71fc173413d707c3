"""What keeps the fires of a job, and its runs that wait, from being dispatched now, and is not the job's own doing.

The stop switch, nobody who leads, a leader whose clock cannot be trusted or whose etcd is nearly full, and a document
that the leader does not act on. The leader's part comes from the record that its centre renews every few seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from crony.domain.figures import CENTRE_STATES, numbers
from crony.domain.shards import CentreFacts, shard_of
from crony.lifecycle.centres import Centres
from crony.lifecycle.hold import Switch, look
from crony.web.i18n import N_, translator
from crony.web.sentences import At, Reason, Sentence
from crony.web.wiring import Web

UNSIGNED = "not signed by a trusted key"


def reasons(web: Web, job: str) -> list[Sentence]:
    """Why nothing of the job is dispatched now; none: it is. Raises `Unavailable`."""
    found = web.live.centres()
    shard = shard_of(job, found.sharding.count) if found.sharding is not None else 0
    said = _stopped(look(web.client, web.keys))
    if shard in found.vacant:
        return [*said, (N_("No scheduling centre leads: nothing fires now."), {}), *_unable(found)]
    facts = found.running.get(found.leaders[shard].centre)
    return said if facts is None else [*said, *_held(facts), *_untrusted(facts, job)]


@dataclass(frozen=True, slots=True)
class Hold:
    """Something for which a leader holds dispatch of all its jobs."""

    said: Sentence

    def sentence(self, language: str) -> str:
        """It for people."""
        text, values = self.said
        return translator(language)(text, **values)


def names(facts: CentreFacts) -> list[str]:
    """For what a centre that leads holds dispatch: clock, room."""
    return [name for name, value in numbers(facts.figures, "s", CENTRE_STATES).get("held", {}).items() if value]


def holds(found: Centres) -> list[Hold]:
    """For what dispatch is held now, centre by centre."""
    leading = [found.running.get(leader.centre) for leader in found.leaders.values()]
    facts = {each.name: each for each in leading if each is not None}
    return [Hold(said) for _, each in sorted(facts.items()) for said in _held(each)]


def _stopped(switch: Switch) -> list[Sentence]:
    if not switch.stop:
        return []
    said: list[Sentence] = [(N_("Dispatch is stopped for the whole platform."), {})]
    if switch.by:
        said.append((N_("%(who)s stopped it %(since)s."), {"who": switch.by, "since": At(switch.at)}))
    if switch.reason:
        said.append((N_("Reason: %(reason)s."), {"reason": Reason(switch.reason)}))
    return said


def _unable(found: Centres) -> list[Sentence]:
    """Centres that run, and may not lead."""
    text = N_("Centre %(name)s may not lead: its wall clock is %(skew)s s off from etcd's. Set it right (NTP).")
    return [
        (text, {"name": facts.name, "skew": f"{facts.skew:+.1f}"})
        for facts in sorted(found.running.values(), key=lambda facts: facts.name)
        if not facts.able
    ]


def _held(facts: CentreFacts) -> list[Sentence]:
    """What the leader waits for, of all its jobs."""
    said: list[Sentence] = []
    for name in names(facts):
        values: dict[str, object] = {"name": facts.name, "skew": f"{facts.skew:+.1f}", "reason": name}
        if name == "clock":
            text = N_("Centre %(name)s leads and holds dispatch: its wall clock has stepped, or is off from etcd's "
                      "(%(skew)s s). Set it right (NTP).")  # fmt: skip
            said.append((text, values))
        elif name == "room":
            text = N_("Centre %(name)s leads and holds dispatch: etcd is nearly full. `crony doctor` says how full, "
                      "and what to do.")  # fmt: skip
            said.append((text, values))
        else:
            said.append((N_("Centre %(name)s leads and holds dispatch: %(reason)s."), values))
    return said


def _untrusted(facts: CentreFacts, job: str) -> list[Sentence]:
    """Why the leader does not act on the document of this job."""
    why = facts.untrusted.get(job)
    if why is None:
        return []
    if UNSIGNED in why:
        text = N_("Centre %(name)s leads and does not act on the job: its document is not signed by a web that it "
                  "knows. Its CRONY_WEB_KEYS has to have the public key of the web that saved it.")  # fmt: skip
        return [(text, {"name": facts.name})]
    text = N_("Centre %(name)s leads and does not act on the document of the job: %(reason)s.")
    return [(text, {"name": facts.name, "reason": Reason(why.rstrip("."))})]
