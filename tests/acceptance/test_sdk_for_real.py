"""The SDK against a real node, centre and web: signature, acceptance, heartbeats, output, and a web that is away."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from crony_sdk import Completion, verify

from tests.helpers.etcd import EtcdServer
from tests.helpers.platform import platform
from tests.helpers.service import Asked, service
from tests.helpers.wait import until

SECRET = "one-secret-of-32-characters-and-more"


def test_what_the_sdk_says_is_what_crony_hears(own_etcd: EtcdServer, tmp_path: Path) -> None:
    taken: dict[str, Completion] = {}

    def answer(asked: Asked) -> tuple[int, dict[str, str], bytes]:
        verify(asked.headers, asked.body, method=asked.method, target=asked.path, secrets=[SECRET])
        completion = Completion.from_headers(asked.headers, spool=tmp_path / "spool", numbered=True)
        taken[completion.call.run] = completion
        return 202, {}, b""

    with service(answer) as there, platform(tmp_path / "crony", [own_etcd.endpoint]) as crony:
        crony.centre("one")
        web = crony.web()
        crony.node("n1", CRONY_CALL_SECRETS=f"{SECRET},another-secret-of-32-characters-000")
        crony.await_nodes("n1")
        action = {"kind": "http", "method": "POST", "url": f"{there.url}/do?x=%20y", "json": {"day": 1}}
        later = {"deadline": "10m", "heartbeat": "3s"}
        job = crony.job({"name": "sdk", "action": action, "overlap": "allow", "async": later})

        # Heartbeats in the background keep it alive well beyond the silence allowed; progress and output are seen.
        run = crony.trigger(job)
        completion = until(lambda: taken.get(run), 20, "the call")
        until(lambda: crony.client.get(crony.keys.run_acc(run)), 10, "the acceptance")
        with completion:
            completion.progress(40, "two of five")
            completion.log("line one\n")
            until(lambda: (crony.run(run)["progress"] or {}).get("percent") == 40, 10, "progress")
            began = time.monotonic()
            while time.monotonic() - began < 5:  # three seconds of silence are allowed
                assert crony.run(run)["state"] == "accepted"
                threading.Event().wait(0.5)
            assert completion.complete({"rows": 3}).state == "ended"
        ended = crony.wait(run)
        assert (ended["outcome"], ended["result"]) == ("succeeded", {"rows": 3})
        until(lambda: "line one\n" in crony.output(run), 10, "its output")

        # A cancel reaches the work by its heartbeat.
        run = crony.trigger(job)
        completion = until(lambda: taken.get(run), 20, "the call").start()
        until(lambda: crony.client.get(crony.keys.run_acc(run)), 10, "the acceptance")
        crony.call("POST", f"runs/{run}:cancel", {})
        assert completion.wait_cancelled(20) and crony.wait(run)["outcome"] == "cancelled"
        completion.stop()

        # The web is away: the report is kept in the spool and arrives when it is back.
        patient = crony.job({"name": "patient", "action": action, "async": {"deadline": "10m"}})
        run = crony.trigger(patient)
        completion = until(lambda: taken.get(run), 20, "the call")
        until(lambda: crony.client.get(crony.keys.run_acc(run)), 10, "the acceptance")
        web.kill()
        assert not completion.fail("disk full", code=28, final=True, patience=0.5).delivered
        web.start()
        until(lambda: crony.client.get(crony.keys.out(run, 1)), 30, "the report")
        ended = crony.wait(run)
        assert (ended["outcome"], ended["code"], ended["reason"]) == ("failed", 28, "disk full")

        # A shell job that hands over: the SDK reads the token's file, accepts, and somebody else goes on.
        root = Path(__file__).parents[2]
        script = f"""cd {root} && PYTHONPATH=sdk python3 - <<'END'
from crony_sdk import Completion
completion = Completion.from_environ(spool={str(tmp_path / "shell")!r})
completion.accept()
completion.complete("early")
END"""
        run = crony.trigger(crony.shell("hand-over", script, **{"async": later}))
        ended = crony.wait(run)
        assert (ended["outcome"], ended["result"], len(ended["attempts"])) == ("succeeded", "early", 1)
