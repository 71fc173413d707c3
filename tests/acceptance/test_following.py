"""Output is followed while it is printed, by events and by the command line, over the death of a web."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import requests

from tests.helpers.etcd import EtcdServer
from tests.helpers.platform import platform
from tests.helpers.wait import until


def test_output_is_followed_live_and_whole(own_etcd: EtcdServer, tmp_path: Path) -> None:
    with platform(tmp_path / "crony", [own_etcd.endpoint]) as crony:
        crony.centre("one")
        web = crony.web()
        crony.node("n")
        crony.await_nodes("n")
        job = crony.shell("talk", f"echo eins\n{crony.at_gate}\necho oops >&2; printf 'zw\\303\\266lf \\377\\n'")
        run = crony.trigger(job)
        seen = tmp_path / "seen"
        command = [sys.executable, "-m", "crony", "run", "output", "-f", run]
        with seen.open("wb") as file:
            environ = crony._environ(CRONY_API=crony.api, CRONY_TOKEN=crony.token)
            following = subprocess.Popen(command, stdout=file, env=environ)
        try:
            with crony.http.get(
                f"{crony.api}/api/v1/runs/{run}/output", params={"follow": "true"}, stream=True, timeout=30
            ) as answer:
                assert answer.headers["Content-Type"].startswith("text/event-stream")
                lines = answer.iter_lines(chunk_size=1, decode_unicode=True)
                first = json.loads(next(line for line in lines if line.startswith("data: "))[6:])
                assert (first["text"], first["stream"]) == ("eins\n", "stdout")
                assert abs(datetime.fromisoformat(first["at"]).timestamp() - time.time()) < 60
            until(lambda: seen.read_bytes() == b"eins\n", 20, "the command to show what is printed while it runs")
            web.kill()
            web.start()
            until(lambda: _answers(crony.api), 30, "the web to be back")
            crony.gate.touch()
            assert following.wait(60) == 0
            whole = b"eins\noops\nzw\xc3\xb6lf \xff\n"
            assert seen.read_bytes() == whole, "nothing twice, nothing missing, byte by byte"
        finally:
            following.kill()
            following.wait()
        crony.wait(run)
        url = f"{crony.api}/api/v1/runs/{run}/output"
        again = crony.http.get(url, params={"follow": "true"}, headers={"Last-Event-ID": "5"}, timeout=30)
        data = [json.loads(line[6:]) for line in again.text.splitlines() if line.startswith("data: ")]
        told = [(each.get("stream"), each.get("text") or each.get("base64")) for each in data]
        assert told == [("stderr", "oops\n"), ("stdout", "enfDtmxmIP8K"), (None, None)]
        assert data[-1] == {"state": "complete", "attempt": 1}
        environ = crony._environ(CRONY_API=crony.api, CRONY_TOKEN=crony.token)
        for option, expected in (("--stdout", rb"eins\nzw\xc3\xb6lf \xff\n"), ("--stderr", rb"oops\n"), (
            "--times", rb"20\S+ \d\d:\d\d:\d\d\.\d{3}[+-]\d{4} stdout eins\n\S+ \S+ stderr oops\n\S+ \S+ stdout zw.*\n"
        )):  # fmt: skip
            words = [sys.executable, "-m", "crony", "run", "output", run, option]
            done = subprocess.run(words, env=environ, capture_output=True, timeout=60, check=True)
            assert re.fullmatch(expected, done.stdout), (option, done.stdout)
        assert crony.http.get(url.replace(run, "j1.1.9"), params={"follow": "true"}, timeout=30).status_code == 404


def _answers(api: str) -> bool:
    try:
        return requests.get(f"{api}/livez", timeout=1).status_code == 200
    except requests.RequestException:
        return False
