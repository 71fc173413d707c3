"""A canary in a secret, with real processes: the services that are to have it have it, and it is seen nowhere else."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from crony.domain.sealing import new_secret_key
from tests.helpers.etcd import EtcdServer
from tests.helpers.platform import Platform, platform
from tests.helpers.service import Asked, service
from tests.helpers.wait import until

CANARY = 'c4n4ry-"Zq7/ö+w'
PLAIN = "c4n4ry-plain-Zq7"
"""For where a secret has to be a header: printable ASCII."""
FORMS = tuple(
    form
    for text in (CANARY, PLAIN)
    for form in (
        text.encode(), json.dumps(text)[1:-1].encode(), base64.b64encode(text.encode())[:12],
    )
)  # fmt: skip
TASK = "tests.acceptance.work.give_away"


@contextmanager
def _watching_the_process_list() -> Iterator[list[str]]:
    """Command lines of this machine, again and again: those that hold the canary."""
    seen: list[str] = []
    over = Event()

    def watch() -> None:
        while not over.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = path.read_bytes()
                except OSError:
                    continue
                if any(form in line for form in FORMS):
                    seen.append(repr(line))

    thread = Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def _leaks(data: bytes, where: str) -> list[str]:
    return [f"{form!r} in {where}" for form in FORMS if form in data]


def _everything(crony: Platform, runs: dict[str, str]) -> list[str]:
    """Wherever the canary is found: files (logs, spools, the database), etcd, API answers, pages."""
    found = []
    for path in crony.folder.rglob("*"):
        if path.is_file():
            found += _leaks(path.read_bytes(), str(path.relative_to(crony.folder)))
    for kv in crony.client.list(crony.keys.root).kvs:
        found += _leaks(kv.key.encode() + kv.value, kv.key)
    paths = ["secrets", "secrets/canary", "secrets/canary/versions", "audit", "jobs", "runs", "nodes", "alerts"]
    for run in runs.values():
        paths += [f"runs/{run}", f"runs/{run}/attempts", f"runs/{run}/output"]
    for path in paths:
        answer = crony.http.get(f"{crony.api}/api/v1/{path}", timeout=60)
        found += _leaks(answer.content, path)
    return found


def test_a_canary_is_where_it_belongs_and_nowhere_else(own_etcd: EtcdServer, tmp_path: Path) -> None:
    def answer(asked: Asked) -> tuple[int, dict[str, str], bytes]:
        told = json.dumps({"you sent": asked.headers["authorization"], "and": json.loads(asked.body)["password"]})
        return 200 if "good" in asked.path else 500, {"Content-Type": "application/json"}, told.encode()

    with (
        platform(tmp_path / "crony", [own_etcd.endpoint], imports="tests.acceptance.work") as crony,
        service(answer) as there,
    ):
        crony.extra["CRONY_SECRET_KEY"] = new_secret_key()
        crony.centre("one")
        crony.web()
        crony.node("keyless", CRONY_SECRET_KEY="")
        crony.await_nodes("keyless")
        for name, value in (("canary", CANARY), ("plain", PLAIN)):
            saved = crony.call("PUT", f"secrets/{name}", {"value": value})
            assert "value" not in saved and saved["live"]
        refused = crony.http.post(f"{crony.api}/api/v1/jobs", json=_shell("x", "true", {"P": "nothing"}), timeout=60)
        assert refused.status_code == 422 and refused.json()["field"] == "secrets.P"

        printing = (
            'printf "%s" "$P" | head -c 6; sleep 0.3; printf "%s\\n" "$P" | tail -c +7; '
            'for i in 1 2 3; do echo "again $P" >&2; done; printf "%s" "user:$P" | base64; env | grep ^P=; exit 3'
        )
        jobs = {
            "shell": _shell("canary/shell", printing, {"P": "canary"}),
            "http": _http("canary/http", f"{there.url}/good"),
            "refused": _http("canary/refused", f"{there.url}/bad"),
            "python": {
                "name": "canary/python",
                "action": {"kind": "python", "task": TASK, "kwargs": {"given": "<{{secret.P}}>"}},
                "secrets": {"P": "canary"},
            },
        }
        made = {name: crony.job(document) for name, document in jobs.items()}
        first = crony.trigger(made["shell"])
        waiting = until(lambda: (run := crony.run(first))["state"] == "waiting" and run, 20, "it to wait for a key")
        assert "no key for secrets" in json.dumps(crony.call("GET", f"runs/{first}")) + json.dumps(waiting)

        with _watching_the_process_list() as processes:
            crony.node("keyed", pool="prefork", concurrency=2)
            crony.await_nodes("keyless", "keyed")
            runs = {"shell": first} | {name: crony.trigger(made[name]) for name in ("http", "refused", "python")}
            ended = {name: crony.wait(run, 60) for name, run in runs.items()}
        assert {name: run["outcome"] for name, run in ended.items()} == {
            "shell": "failed", "http": "succeeded", "refused": "failed", "python": "failed",
        }  # fmt: skip
        assert {run["node"] for run in ended.values()} == {"keyed"}

        assert {asked.headers["authorization"] for asked in there.asked} == {f"Bearer {PLAIN}"}
        assert {json.loads(asked.body)["password"] for asked in there.asked} == {CANARY}
        assert "***" in json.dumps(ended["http"]["result"]) and "***" in json.dumps(ended["python"])
        shown = {name: until(lambda run=run: crony.output(run), 20, f"output of {name}") for name, run in runs.items()}
        assert shown["shell"].count("again ***") == 3 and "P=***" in shown["shell"]
        assert "kwargs <***>" in shown["python"] and "asked ***" in shown["python"]
        crony.archived()

        assert processes == [] and _everything(crony, runs) == []
        assert any(b"crony1:" in kv.value for kv in crony.client.list(crony.keys.obj("secret", "")).kvs)


def _shell(name: str, script: str, secrets: dict[str, str]) -> dict[str, Any]:
    return {"name": name, "action": {"kind": "shell", "script": script}, "secrets": secrets}


def _http(name: str, url: str) -> dict[str, Any]:
    action = {
        "kind": "http",
        "method": "POST",
        "url": url,
        "headers": {"Authorization": "Bearer {{secret.TOKEN}}"},
        "json": {"password": "{{secret.P}}"},
    }
    return {"name": name, "action": action, "secrets": {"TOKEN": "plain", "P": "canary"}}
