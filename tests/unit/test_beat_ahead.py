"""A message written before its fire goes out only if it is what would be written now."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from crony.beat import ahead as module
from crony.beat.agenda import Agenda
from crony.beat.ahead import Ahead
from crony.beat.book import Book
from crony.beat.desk import Desk
from crony.beat.handout import draft_fire
from crony.beat.router import Router
from crony.domain import ids
from crony.domain.livejob import LiveJob
from crony.domain.node import NodeControl, NodeFacts
from crony.domain.run import Done
from crony.domain.signing import Sealer, Verifier, new_key
from crony.etcd.keys import Keys

WEB, CENTRE = new_key(), new_key()
NOW = 1_800_000_000.0


class Scene:
    """A leader's memory, and two nodes."""

    def __init__(self) -> None:
        self.keys, self.now, self.revision = Keys("ahead"), NOW, 10
        self.book = Book(self.keys)
        self.agenda = Agenda(self.book, Verifier([WEB[1]]), lambda: self.now, lambda: self.now)
        self.desk = Desk(Sealer(CENTRE[0]), Verifier([CENTRE[1]]), Router(self.book, lambda: self.now),
                         lambda: self.now, self.book.pools)  # fmt: skip
        for name in ("n1", "n2"):
            self.node(name)
        self.ahead = Ahead(self.agenda, self.book, self.desk, lambda: self.now)

    def put(self, key: str, value: bytes) -> None:
        self.revision += 1
        self.book.put(key, value, self.revision, self.revision)

    def node(self, name: str) -> None:
        incarnation = ids.incarnation()
        facts = NodeFacts(name=name, incarnation=incarnation, queue=f"run.{name}", hostname="h", pid=1, boot_id="b",
                          version="0", capacity=4, kinds=["shell"])  # fmt: skip
        self.put(self.keys.session(incarnation), b"{}")
        self.put(self.keys.node(name), facts.encode())

    def job(self, ident: str = "", **more: Any) -> str:
        document = {"name": "a/b", "schedule": {"every": "60s"}, "action": {"kind": "shell", "command": ["true"]}}
        live = LiveJob.created(ident or ids.job_id(), {**document, **more}, revision=self.revision, now=NOW)
        self.put(self.keys.job(live.id), Sealer(WEB[0]).seal(live.payload()))
        if not ident:
            self.put(self.keys.done(live.id), Done(int(NOW)).encode())
        self.agenda.learn()
        return live.id

    def soon(self, job: str) -> tuple[LiveJob, str]:
        """Go to a moment before it is due and write ahead; its document and the run it will become."""
        entry = self.book.jobs[job]
        live = entry.document(Verifier([WEB[1]]))
        due = live.next_due(int(NOW))
        assert due is not None
        assert not self.ahead.write() and not len(self.ahead), "it is not near yet"
        self.now = due - 5.0
        self.ahead.write()
        return live, ids.fire_run_id(live.id, live.generation, due)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_it_says_what_a_message_written_at_the_instant_would_say(scene: Scene) -> None:
    live, run = scene.soon(scene.job(priority=3, params={"a": 1}, timeout="7s"))
    due = int(run.rsplit(".", 1)[1])
    scene.now = due + 0.5
    ready = scene.ahead.take(live, run)
    assert ready is not None and scene.ahead.used == 1
    assert scene.book.load.of(ready.envelope.queue) == 1
    now = scene.desk.address(draft_fire(scene.desk, live, due, due))
    assert now is not None
    per_node = {"queue": "", "incarnation": "", "why": "", "expires_at": 0.0}
    assert ready.envelope.but(**per_node) == now.envelope.but(**per_node)
    assert scene.desk.open(_sealed(ready.value)) == ready.envelope
    assert ready.envelope.queue in ("run.n1", "run.n2") and ready.place < now.place, "its place is of now"
    assert int(ready.place.split(".")[0][1:], 16) >= int((due + 0.5) * 1e6)
    assert scene.ahead.take(live, run) is None, "it goes out once"


def test_not_after_the_fleet_has_changed(scene: Scene) -> None:
    live, run = scene.soon(scene.job())
    scene.put(scene.keys.nodectl("n1"), NodeControl(cordoned=True).encode())
    assert scene.ahead.take(live, run) is None


def test_not_after_an_edit(scene: Scene) -> None:
    job = scene.job()
    live, run = scene.soon(job)
    scene.job(job, action={"kind": "shell", "command": ["false"]})
    edited = scene.book.jobs[job].document(Verifier([WEB[1]]))
    assert edited is not live and scene.ahead.take(edited, run) is None


@pytest.mark.parametrize(
    "more",
    [{"limits": ["pool:a"]}, {"routing": {"strategy": "least_busy"}}, {"routing": {"strategy": "broadcast"}},
     {"routing": {"parts": 2}}, {"routing": {"labels": {"zone": "nowhere"}}}],
)  # fmt: skip
def test_nothing_is_written_for_what_goes_by_that_moment(scene: Scene, more: dict[str, Any]) -> None:
    scene.soon(scene.job(**more))
    assert len(scene.ahead) == 0


def test_little_is_kept(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    jobs = [scene.job(name=f"a/{number}") for number in range(5)]
    scene.soon(jobs[0])
    assert len(scene.ahead) == 3
    scene.now += math.ceil(module.SOON) + 10
    for job in jobs[3:]:
        scene.put(scene.keys.done(job), Done(int(scene.now) - 55).encode())
    scene.agenda.learn()
    scene.ahead.write()
    assert len(scene.ahead) <= 2, "what nobody took is forgotten"


def _sealed(value: bytes) -> str:
    return str(json.loads(value.partition(b"\n")[2])[0][0])
