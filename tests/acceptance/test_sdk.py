"""A user's service on the SDK and a whole Crony, both of real processes that get killed."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from crony_sdk import CronyClient

from crony.lifecycle.enlist import instances
from crony.store import accounts
from tests.helpers.etcd import EtcdServer, free_ports
from tests.helpers.platform import Platform, Process, platform
from tests.helpers.sdk_examples import SDK, example
from tests.helpers.wait import until

SECRET = "a-secret-of-the-acceptance-tests"
ROOT = Path(__file__).resolve().parents[2]
DETACHED = """
import os
import sys

sys.path.insert(0, os.environ["SDK"])
from crony_sdk import Completion

done = Completion.from_environ(spool=os.environ["SPOOL"])
done.accept()
if os.fork() == 0:
    os.setsid()
    with done:
        done.log("from a process that nobody waits for\\n")
        done.complete({"by": "a shell job"})
"""


def answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def service(folder: Path, port: int) -> Process:
    """The user's service, not started."""
    folder.mkdir(exist_ok=True)
    path = os.pathsep.join([str(ROOT), str(SDK)])
    environ = {**os.environ, "PYTHONPATH": path, "CRONY_CALL_SECRETS": f"another-{SECRET},{SECRET}"}
    command = [sys.executable, "-m", "tests.acceptance.sdk_service", str(port), str(folder)]
    return Process("service", command, environ, folder / "log")


def job(crony: Platform, name: str, url: str, **more: Any) -> None:
    action = {"kind": "http", "method": "POST", "url": url}
    crony.job({"name": name, "action": action, "overlap": "allow", **more})


def test_a_service_on_the_sdk(own_etcd: EtcdServer, tmp_path: Path) -> None:
    folder, port = tmp_path / "service", free_ports(1)[0]
    base = f"http://127.0.0.1:{port}"
    users = service(folder, port)

    def marks(run: str) -> list[str]:
        path = folder / "marks"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [f"{attempt} {what}" for its, attempt, what in lines if its == run]

    def start() -> None:
        users.start()
        until(lambda: answers(port) or not users.running, 20, "the service")
        assert users.running, users.tail()

    with platform(tmp_path / "crony", [own_etcd.endpoint]) as crony:
        try:
            start()
            crony.centre("one")
            web = crony.web()
            crony.node("n1", CRONY_CALL_SECRETS=SECRET)
            crony.await_nodes("n1")
            client = CronyClient(crony.api, crony.token)
            patient = {"async": {"deadline": "10m"}}

            def beating(every: str) -> dict[str, Any]:
                return {"async": {"deadline": "10m", "heartbeat": every}}

            job(crony, "plain", f"{base}/orders/close%20day%20%E6%97%A5?region=cn&x=1%2B1")
            job(crony, "long", f"{base}/long", params={"gate": "outage"}, **patient)
            retry = {"max": 50, "delay": "1s", "backoff": "fixed"}  # a restart of the service takes as long as it takes
            job(crony, "again", f"{base}/long", params={"gate": "again"}, retry=retry, **beating("3s"))
            job(crony, "stopped", f"{base}/long", params={"gate": "never"}, **beating("6s"))
            job(crony, "breaks", f"{base}/breaks", retry={"max": 3, "delay": "1s"}, **patient)

            # Answered at once, the signature of a real node checked; the same key is the same run.
            run = client.trigger("plain", {"region": "us"}, idempotency_key="once")
            assert client.trigger("plain", {"region": "us"}, idempotency_key="once").id == run.id
            assert client.wait(run, 90).result == {"region": "us", "attempt": 1, "job": "plain"}

            # The service is killed between accept and completion: its silence ends the attempt, the next one is done.
            killed = client.trigger("again")
            until(lambda: marks(killed.id) == ["1 begun"], 20, "the work to begin")
            until(lambda: client.run(killed.id).state == "accepted", 20, "the run to be accepted")
            users.kill()
            start()
            until(lambda: len(marks(killed.id)) >= 2, 30, "another attempt")
            (folder / "again").touch()
            ended = client.wait(killed, 90)
            outcomes = [each["outcome"] for each in ended.facts["attempts"]]
            assert (outcomes[0], outcomes[-1], ended.result) == ("timed_out", "succeeded", {"attempt": len(outcomes)})

            # Cancelled while it works.
            cancelled = client.trigger("stopped")
            until(lambda: marks(cancelled.id) == ["1 begun"], 20)
            until(lambda: client.run(cancelled.id).state == "accepted", 20)
            client.cancel(cancelled.id)
            until(lambda: marks(cancelled.id) == ["1 begun", "1 cancelled"], 20, "the handler to hear of it")
            assert client.wait(cancelled, 90).outcome == "cancelled"

            # The web is away for ten seconds, the work ends meanwhile, and the service is killed before it is back.
            outage = client.trigger("long")
            until(lambda: marks(outage.id) == ["1 begun"], 20)
            until(lambda: client.run(outage.id).state == "accepted", 20)
            until(lambda: "it has begun\n" in client.logs(outage.id), 20, "the text so far")
            web.kill()
            away = time.monotonic()
            (folder / "outage").touch()
            until(lambda: marks(outage.id)[-1] == "1 done", 20)
            until(lambda: list((folder / "spool").glob("*-end-*.json")), 20, "the report to be on disk")
            users.kill()
            until(lambda: time.monotonic() > away + 10, 12)
            web.start()
            start()
            ended = client.wait(outage, 90)
            assert (ended.outcome, ended.result, len(ended.facts["attempts"])) == ("succeeded", {"attempt": 1}, 1)
            until(lambda: not list((folder / "spool").glob("*.json")), 20, "an empty spool")

            # Retries inside the service; the last failure is final, the job's own retries are not used.
            broken = client.wait(client.trigger("breaks"), 90)
            assert (broken.outcome, broken.reason) == ("failed", "there are no rates (after 3 tries)")
            assert len(broken.facts["attempts"]) == 1 and marks(broken.id) == ["1 tried"] * 3

            # A shell job hands over to a process that nobody waits for.
            env = {"SDK": str(SDK), "SPOOL": str(tmp_path / "shell-spool")}
            action = {"kind": "shell", "script": DETACHED, "interpreter": sys.executable, "env": env}
            crony.job({"name": "detached", "action": action, **patient})
            detached = client.wait(client.trigger("detached"), 90)
            assert (detached.outcome, detached.result) == ("succeeded", {"by": "a shell job"})
            until(lambda: "nobody waits for" in client.logs(detached.id), 20)

            # Other languages need no SDK.
            for other in (example("go"), example("java")):
                name = other.language.lower()
                token = accounts.create_token(crony.database, name, "service", actor="tests")[0]
                known = {"CRONY_API": crony.api, "CRONY_TOKEN": token, "CRONY_SERVICE": name}
                with other.serving(SECRET, **known):
                    until(lambda: instances(crony.client, crony.keys), 20, "it to register")
                    action = {"kind": "http", "method": "POST", "service": name, "path": "/complete"}
                    crony.job({"name": other.language, "action": action, **patient})
                    there = client.wait(client.trigger(other.language), 90)
                    assert there.result == {"by": other.language, "run": there.id}
                    text = f"a line of {other.language} 日\n"
                    until(lambda run=there.id, text=text: text in client.logs(run), 20)
                assert instances(crony.client, crony.keys) == [], "who ends takes himself off"
            assert "Traceback" not in users.log.read_text()
        except BaseException:
            print(users.tail())
            raise
        finally:
            users.destroy()
