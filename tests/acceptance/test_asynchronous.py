"""C5, C6, C7: work that is answered later, while all around it is killed: one outcome, one answer, nothing lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from crony.etcd.keys import prefix_end
from crony.etcd.watch import Event, Watcher
from tests.helpers.etcd import EtcdServer, free_ports
from tests.helpers.mariadb import MariaServer
from tests.helpers.platform import Platform, platform
from tests.helpers.service import Asked, Service, service
from tests.helpers.wait import until
from tests.property.run_judge import RunJudge

ENDED_WELL = {"state": "ended", "outcome": "succeeded", "cancel": False}


class Callee:
    """A service that accepts everything and remembers how to call back; `gate` shut: its answers wait."""

    def __init__(self) -> None:
        self.given: dict[tuple[str, int], dict[str, str]] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.http = requests.Session()
        self.http.trust_env = False

    def answer(self, asked: Asked) -> tuple[int, dict[str, str], bytes]:
        """202, when the gate is open."""
        self.given[asked.headers["x-crony-run"], int(asked.headers["x-crony-attempt"])] = asked.headers
        self.gate.wait(60)
        return 202, {}, b"accepted\n"

    def called(self, run: str, attempt: int = 1) -> None:
        """Wait for the call."""
        until(lambda: (run, attempt) in self.given, 30, f"the call of {run} attempt {attempt}")

    def say(
        self, run: str, verb: str, body: Any = None, *, attempt: int = 1, port: int = 0
    ) -> requests.Response | None:
        """One call, through the web at `port` (default: the one it was told of); None without an answer."""
        given = self.given[run, attempt]
        url = given["x-crony-callback"]
        if port:
            url = f"http://127.0.0.1:{port}/api" + url.split("/api", 1)[1]
        headers = {"Authorization": f"Bearer {given['x-crony-token']}"}
        try:
            return self.http.post(f"{url}:{verb}", json=body or {}, headers=headers, timeout=10)
        except requests.RequestException:
            return None

    def insist(self, run: str, verb: str, body: Any = None, **options: Any) -> requests.Response:
        """As the contract says: repeat it as it was until somebody has answered for good."""

        def answered() -> list[requests.Response]:
            found = self.say(run, verb, body, **options)
            return [found] if found is not None and found.status_code not in (429, 500, 503) else []

        return until(answered, 40, f"an answer to {verb}", every=0.1)[0]


@contextmanager
def watched(crony: Platform) -> Iterator[list[Event]]:
    """Everything that happens in etcd while the body runs; judged at the end."""
    events: list[Event] = []
    start, root = crony.client.range(crony.keys.root, count_only=True).revision, crony.keys.root
    watcher = Watcher(
        crony.client, root, prefix_end(root), on_snapshot=None, on_events=lambda new, _: events.extend(new),
        from_revision=start + 1,
    ).start()  # fmt: skip
    yield events
    marker = crony.client.put(f"{root}settled-marker", b"")
    until(lambda: watcher.revision >= marker, 20, "all of it to be seen")
    watcher.stop()
    assert RunJudge(crony.keys).judge(events) == []


def accepted(crony: Platform, run: str) -> None:
    until(lambda: crony.client.get(crony.keys.run_acc(run)), 20, f"{run} to be accepted")


def job(crony: Platform, there: Service, name: str, **more: Any) -> dict[str, Any]:
    action = {"kind": "http", "method": "POST", "url": there.url}
    return crony.job({"name": name, "action": action, "overlap": "allow", "async": {"deadline": "10m"}, **more})


def test_everything_is_killed_but_the_answers_stay(own_etcd: EtcdServer, maria: MariaServer, tmp_path: Path) -> None:
    callee, second = Callee(), free_ports(1)[0]
    with service(callee.answer) as there, platform(tmp_path / "crony", [own_etcd.endpoint], maria.fresh()) as crony:
        with watched(crony):
            centres = {name: crony.centre(name) for name in ("one", "two")}
            web = crony.web()
            crony.web("web-two", second)
            node = crony.node("n1", pool="prefork", concurrency=2)
            crony.await_nodes("n1")
            plain = job(crony, there, "plain")

            # The node is lost after the 202: nothing comes of it. It held neither place nor claim.
            run = crony.trigger(plain)
            accepted(crony, run)
            more = [crony.trigger(plain) for _ in range(4)]
            for each in more:
                accepted(crony, each)
            node.kill()
            told = callee.insist(run, "progress", {"percent": 50, "message": "half"}, port=second)
            assert told.json()["state"] == "running"
            shown = until(lambda: (found := crony.run(run))["progress"] and found, 10, "progress")
            assert (shown["state"], shown["progress"]["percent"]) == ("accepted", 50)
            assert callee.insist(run, "complete", {"result": {"rows": 3}}).json() == ENDED_WELL
            ended = crony.wait(run)
            assert (ended["outcome"], ended["result"], len(ended["attempts"])) == ("succeeded", {"rows": 3}, 1)
            crony.node("n2", concurrency=4)
            until(lambda: "n2" in crony.nodes(), 30, "another node")

            # The database is away: all but logs goes on, and the archive follows when it is back.
            assert callee.insist(more[0], "log", {"text": "before\n", "offset": 0}).json()["have"] == 7
            maria.kill()
            assert callee.insist(more[0], "heartbeat").json()["state"] == "running"
            log = callee.say(more[0], "log", {"text": "after\n", "offset": 7})
            assert log is not None and log.status_code == 503 and log.headers["retry-after"]
            assert callee.insist(more[1], "complete").json() == ENDED_WELL
            maria.start()
            assert callee.insist(more[0], "log", {"text": "after\n", "offset": 7}).json()["have"] == 13
            assert callee.insist(more[0], "complete").json() == ENDED_WELL
            until(lambda: crony.output(more[0]).endswith("before\nafter\n"), 20, "its output")

            # A web is killed in the middle of a report: another one, and the same one later, say what became of it.
            said = threading.Thread(target=callee.say, args=(more[2], "complete", {"result": 2}))
            said.start()
            web.kill()
            said.join()
            assert callee.insist(more[2], "complete", {"result": 2}, port=second).json() == ENDED_WELL
            web.start()
            assert callee.insist(more[2], "complete", {"result": 2}).json() == ENDED_WELL
            late = callee.insist(more[2], "fail", {"reason": "no"})
            assert (late.status_code, late.json()["outcome"]) == (409, "succeeded")

            # etcd is away for ten seconds: no answer is a lie, and the silence of that time counts for nobody.
            beating = crony.trigger(job(crony, there, "beating", **{"async": {"deadline": "10m", "heartbeat": "6s"}}))
            accepted(crony, beating)
            own_etcd.kill()
            away = time.monotonic()
            codes = set()
            while time.monotonic() - away < 10:
                found = callee.say(beating, "heartbeat", port=second)
                codes.add(found.status_code if found is not None else 0)
                threading.Event().wait(0.3)
            assert codes == {503}
            own_etcd.start()
            assert callee.insist(beating, "heartbeat", port=second).json()["state"] == "running"
            assert callee.insist(more[3], "complete").json() == ENDED_WELL
            assert callee.insist(beating, "complete").json() == ENDED_WELL
            assert len(crony.wait(beating)["attempts"]) == 1

            # The leader is killed at each step: while the call is under way, while it waits, when it has just ended.
            retried = job(
                crony, there, "retried", retry={"max": 1, "delay": "1s", "jitter": False},
                **{"async": {"deadline": "10m", "heartbeat": "2s"}},
            )  # fmt: skip

            def kill_the_leader() -> None:
                name = crony.await_leader()
                centres[name].kill()
                centres[name].start()

            callee.gate.clear()
            run = crony.trigger(retried)
            callee.called(run)
            kill_the_leader()
            callee.gate.set()
            accepted(crony, run)
            kill_the_leader()
            until(lambda: crony.client.get(crony.keys.out(run, 1)), 20, "the silence to end it")
            kill_the_leader()
            callee.called(run, 2)
            stale = callee.insist(run, "complete", {"result": "late"})
            assert stale.status_code == 409
            assert (stale.json()["outcome"], stale.json()["attempt"]) == ("timed_out", 2)
            assert callee.insist(run, "complete", {"result": "new"}, attempt=2).json() == ENDED_WELL
            ended = crony.wait(run)
            assert [(each["n"], each["outcome"]) for each in ended["attempts"]] == [(1, "timed_out"), (2, "succeeded")]
            assert ended["result"] == "new"

            # A cancel and a completion at the same moment: one of them, and everybody is told the same.
            runs = [crony.trigger(plain) for _ in range(6)]
            for each in runs:
                accepted(crony, each)
            answers = {}
            for number, each in enumerate(runs):
                asking = threading.Thread(target=crony.http.post, args=(f"{crony.api}/api/v1/runs/{each}:cancel",))
                asking.start()
                if number % 2:
                    asking.join()
                answers[each] = callee.insist(each, "complete", port=second)
                asking.join()
            for each, answer in answers.items():
                outcome = crony.wait(each)["outcome"]
                assert answer.json()["outcome"] == outcome
                assert answer.status_code == (200 if outcome == "succeeded" else 409)
                told = callee.insist(each, "heartbeat").json()
                assert told == {"state": "ended", "outcome": outcome, "cancel": outcome == "cancelled"}
            crony.quiet()
            assert crony.count("run/beat/") == 0
        logs = "".join(process.log.read_text(errors="replace") for process in crony.processes)
        assert not [given for given in callee.given.values() if given["x-crony-token"].split(".")[2] in logs]
