"""Output is followed while it is printed, by events and by the command line, over the death of a web."""

from __future__ import annotations

import json
import subprocess
import sys
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
        job = crony.shell("talk", f"echo eins\n{crony.at_gate}\nprintf 'zw\\303\\266lf \\377\\n'")
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
                assert next(line for line in lines if line.startswith("data: ")) == 'data: {"text": "eins\\n"}'
            until(lambda: seen.read_bytes() == b"eins\n", 20, "the command to show what is printed while it runs")
            web.kill()
            web.start()
            until(lambda: _answers(crony.api), 30, "the web to be back")
            crony.gate.touch()
            assert following.wait(60) == 0
            assert seen.read_bytes() == b"eins\nzw\xc3\xb6lf \xff\n", "nothing twice, nothing missing, byte by byte"
        finally:
            following.kill()
            following.wait()
        crony.wait(run)
        url = f"{crony.api}/api/v1/runs/{run}/output"
        again = crony.http.get(url, params={"follow": "true"}, headers={"Last-Event-ID": "5"}, timeout=30)
        data = [json.loads(line[6:]) for line in again.text.splitlines() if line.startswith("data: ")]
        assert data == [{"base64": "enfDtmxmIP8K"}, {"state": "complete", "attempt": 1}]
        assert crony.http.get(url.replace(run, "j1.1.9"), params={"follow": "true"}, timeout=30).status_code == 404


def _answers(api: str) -> bool:
    try:
        return requests.get(f"{api}/livez", timeout=1).status_code == 200
    except requests.RequestException:
        return False
