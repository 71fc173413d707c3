"""A node's life: its name, its orderly and its violent end, and being cut from etcd."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from crony.domain.node import NodeFacts
from crony.domain.run import Wait
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.watch import Event, Watcher
from crony.settings import Settings
from crony.transport_etcd.message import task_message
from crony.workers.liveness import Liveness
from crony.workers.process import Process
from tests.helpers.etcd import EtcdServer
from tests.helpers.node import JOBS, Leader, NodeProcess, running_node
from tests.helpers.proxy import Proxy
from tests.helpers.wait import until


@pytest.fixture
def leader(client: Client, keys: Keys) -> Leader:
    return Leader(client, keys)


def shell(script: str) -> dict[str, object]:
    return {"kind": "shell", "script": script}


def holding(mark: Path) -> dict[str, object]:
    """A shell that says it runs and goes on until `<mark>.go` exists."""
    return shell(f"echo $$ > {mark}; while [ ! -e {mark}.go ]; do sleep 0.02; done")


def begun(mark: Path) -> int:
    return int(until(lambda: mark.exists() and mark.read_text().strip(), what="the shell begins"))


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_a_killed_worker_takes_its_shells_along_and_its_name_is_free_at_once(
    leader: Leader, etcd: EtcdServer, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    with running_node(leader, etcd.endpoint, pool="prefork", name="n1", node_ttl=30) as node:
        first = leader.node("n1")
        assert first is not None
        envelope = leader.envelope(first, shell(f"trap '' TERM HUP; echo $$ > {mark}; while :; do sleep 0.1; done"))
        place = leader.put(envelope)
        pid = begun(mark)
        node.kill()
        until(lambda: gone(pid), 5, "the shell dies")
        claim, _ = leader.claimed(first.queue, place)
        assert claim.incarnation == first.incarnation, "the claim stays for the leader to take over"
    with running_node(leader, etcd.endpoint, pool="solo", name="n1", node_ttl=30):
        second = leader.node("n1")
        assert second is not None and second.incarnation != first.incarnation
        assert leader.client.get(leader.keys.session(first.incarnation)) is None, "its lease was revoked"


def test_a_name_in_use_is_refused_with_a_sentence(leader: Leader, etcd: EtcdServer) -> None:
    with running_node(leader, etcd.endpoint, name="n1", node_ttl=2) as first:
        before = leader.node("n1")
        with running_node(leader, etcd.endpoint, name="n1", node_ttl=2, registered=False) as second:
            assert second.popen.wait(100) == 5
        assert "a node named 'n1' is already running" in second.text() and "CRONY_NODE" in second.text()
        after = leader.node("n1")
        assert before and after and after.incarnation == before.incarnation
        assert leader.ended(leader.send(after, shell("true"))).kind == "succeeded"
        assert first.stop() == 0


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_an_orderly_stop(leader: Leader, etcd: EtcdServer, tmp_path: Path, pool: str) -> None:
    mark = tmp_path / "mark"
    with running_node(leader, etcd.endpoint, pool=pool, name="n1", concurrency=1) as node:
        facts = leader.node("n1")
        assert facts is not None
        run = leader.send(facts, holding(mark))
        begun(mark)
        unstarted = leader.put(leader.envelope(facts, shell("true")))
        node.popen.send_signal(signal.SIGTERM)
        until(lambda: (now := leader.node("n1")) and now.draining, 2, "the leader is told")
        found = leader.claim(facts.queue, unstarted)
        assert found is None or not found[0].incarnation, "what did not start is free"
        assert leader.client.get(leader.keys.session(facts.incarnation)) is not None, "running work keeps it alive"
        Path(f"{mark}.go").touch()
        assert leader.ended(run).kind == "succeeded"
        until(lambda: leader.node("n1") is None, 5, "the record goes")
        assert node.popen.wait(100) == 0
        assert leader.client.get(leader.keys.session(facts.incarnation)) is None
        assert leader.client.get(leader.keys.message(facts.queue, unstarted)) is not None, "nothing was lost"


def test_the_last_word_of_a_node_that_leaves_is_that_it_leaves(etcd: EtcdServer, leader: Leader) -> None:
    """Also when nobody announced it (`celery control shutdown`): to the leader, a node that says nothing is lost."""
    settings = Settings(namespace=leader.keys.namespace, etcd_endpoints=(etcd.endpoint,), node="n1")
    process = Process(settings)
    live = Liveness(process, capacity=lambda: 1, running=lambda: 0)
    live.join(lambda seconds: None)
    said: list[Event] = []
    watch = Watcher(
        leader.client, leader.keys.node("n1"), None, on_snapshot=lambda *_: None, name="n1",
        on_events=lambda events, _: said.extend(events),
    ).start()  # fmt: skip
    assert watch.synced(10)
    live.close()
    until(lambda: said and said[-1].kind != "put", 10, "its record to go")
    watch.stop()
    process.client.close()
    assert len(said) > 1 and NodeFacts.read(said[-2].value).draining


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_claimed_run_that_never_started_goes_back_to_the_leader(
    leader: Leader, etcd: EtcdServer, tmp_path: Path, pool: str
) -> None:
    mark = tmp_path / "mark"
    with running_node(leader, etcd.endpoint, pool=pool, name="n1", concurrency=1, level="debug") as node:
        facts = leader.node("n1")
        assert facts is not None
        plain = task_message(f"{JOBS}.hold", "plain-1", [str(mark)], {})  # acknowledged when it starts: takes no credit
        leader.client.put(leader.keys.message("celery", f"9{0:016x}.plain-1"), plain)
        until(mark.exists, what="the only slot is taken")
        envelope = leader.envelope(facts, shell(f"touch {mark}.wrong"))
        leader.put(envelope)
        until(lambda: f"crony.run[{envelope.run}:1] received" in node.text(), what="the run is claimed and delivered")
        node.popen.send_signal(signal.SIGTERM)
        until(lambda: (now := leader.node("n1")) and now.draining, 2, "the node stops")
        parked = until(lambda: leader.client.get(leader.keys.run_wait(envelope.run)), 5, "the run is handed back")
        Path(f"{mark}.go").touch()
        assert (Wait.read(parked.value).reason, Wait.read(parked.value).finished) == ("reroute", 0)
        assert node.popen.wait(100) == 0
        assert not Path(f"{mark}.wrong").exists()


def test_without_keys_to_trust_it_does_not_start(leader: Leader, etcd: EtcdServer) -> None:
    with running_node(leader, etcd.endpoint, name="n1", centre_keys="", registered=False) as node:
        assert node.popen.wait(100) == 2
        assert "CRONY_CENTRE_KEYS: is empty" in node.text() and "Traceback" not in node.text()
        assert leader.node("n1") is None


def test_the_task_must_be_left_as_it_is(etcd: EtcdServer, keys: Keys) -> None:
    script = """
        from crony.celery import app
        from crony.workers.bootsteps import check
        app.loader.import_default_modules(); app.finalize()
        check(app)
        app.tasks["crony.run"].acks_late = False
        try:
            check(app)
        except Exception as error:
            print(type(error).__name__, error)
    """
    environ = {**os.environ, "CRONY_ETCD_ENDPOINTS": etcd.endpoint, "CRONY_NAMESPACE": keys.namespace}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], env=environ, capture_output=True, text=True, timeout=60
    )
    assert "ImproperlyConfigured acks_late" in done.stdout, done.stderr


def test_what_a_node_does_not_do_and_how_quickly_it_leaves(leader: Leader, etcd: EtcdServer) -> None:
    with running_node(leader, etcd.endpoint, name="n1", imports="", shell="off") as node:
        facts = leader.node("n1")
        assert facts is not None and facts.kinds == ["grpc", "http", "python"]
        refused = leader.ended(leader.send(facts, {"kind": "python", "task": f"{JOBS}.add", "args": [1]}))
        assert refused.kind == "refused"
        assert leader.ended(leader.send(facts, shell("true"))).kind == "refused"
        node.popen.send_signal(signal.SIGTERM)
        until(lambda: (now := leader.node("n1")) is None or now.draining, 1, "the leader is told within a second")
        assert node.popen.wait(100) == 0


class Behind(NamedTuple):
    """A node that reaches etcd through a proxy, and what plays its leader."""

    leader: Leader
    node: NodeProcess
    facts: NodeFacts
    proxy: Proxy


@pytest.fixture(scope="module")
def behind(etcd: EtcdServer) -> Iterator[Behind]:
    keys = Keys(f"node-life-{os.getpid()}")
    with Client([etcd.endpoint]) as client, Proxy(etcd.endpoint) as proxy:
        leader = Leader(client, keys)
        with running_node(leader, proxy.endpoint, name="n1", node_ttl=2) as node:
            facts = leader.node("n1")
            assert facts is not None
            yield Behind(leader, node, facts, proxy)


def test_an_end_whose_answer_is_lost_counts_once(behind: Behind) -> None:
    leader, node, facts, proxy = behind
    leader.ended(leader.send(facts, shell("true")))
    envelope = leader.envelope(facts, shell("exit 1"), retry={"max": 3})
    proxy.lose_answer_about(leader.keys.out(envelope.run, 1))
    leader.put(envelope)
    assert leader.ended(envelope.run).kind == "failed"
    assert leader.ended(leader.send(facts, shell("true"))).kind == "succeeded"
    assert proxy.lost == 1
    assert f"stale end of run {envelope.run}" not in node.text()


def test_taken_over_while_cut_the_late_end_is_stale(behind: Behind, tmp_path: Path) -> None:
    leader, node, facts, proxy = behind
    mark = tmp_path / "mark"
    envelope = leader.envelope(facts, holding(mark))
    place = leader.put(envelope)
    begun(mark)
    proxy.cut()
    leader.client.delete(leader.keys.message(facts.queue, place))  # what a take-over does
    leader.client.delete(leader.keys.claim(facts.queue, place))
    Path(f"{mark}.go").touch()
    until(lambda: f"run {envelope.run} attempt 1 (succeeded) cannot be written yet" in node.text(), what="it tries")
    proxy.heal()
    until(lambda: f"stale end of run {envelope.run}" in node.text(), 15, "the node notices")
    assert leader.outcome(envelope.run) is None


def test_cut_from_etcd_it_starts_nothing_and_what_runs_is_ended_later(behind: Behind, tmp_path: Path) -> None:
    leader, node, facts, proxy = behind
    running, late = tmp_path / "running", tmp_path / "late"
    run = leader.send(facts, holding(running))
    begun(running)
    proxy.cut()
    until(lambda: leader.client.get(leader.keys.session(facts.incarnation)) is None, 15, "its lease ends")
    envelope = leader.envelope(facts, shell(f"touch {late}"))
    leader.put(envelope)
    Path(f"{running}.go").touch()
    until(lambda: f"run {run} attempt 1 (succeeded) cannot be written yet" in node.text(), what="the end is tried")
    assert leader.outcome(run) is None and not late.exists()
    proxy.heal()
    assert leader.ended(run).kind == "succeeded", "the claim was still its own"
    back = until(lambda: leader.node("n1"), 15, "the node is back")
    assert back.incarnation == facts.incarnation
    assert leader.ended(envelope.run).kind == "succeeded"
    assert late.exists()
