"""`crony node weight`, `cordon`, `drain` and their way back, and how `crony run get` says why a run is where it is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from crony.cli.main import run
from tests.unit.test_cli_api import says, serving


@pytest.mark.parametrize(
    ("words", "asked", "said"),
    [
        ("weight n/1 5", [("n%2F1", {"weight": 5})], "n/1 has weight 7 now\n"),
        ("weight n1 own", [("n1", {"weight": None})], "n1 has weight 7 now\n"),
        ("cordon a b", [("a", {"cordoned": True}), ("b", {"cordoned": True})], "a is ready now\nb is ready now\n"),
        ("uncordon a", [("a", {"cordoned": False})], "a is ready now\n"),
        ("drain a", [("a", {"drain": True})], "a is ready now\n"),
        ("label a zone=b disk-", [("a", {"labels": {"zone": "b", "disk": None}})], "a has zone=b now\n"),
        ("label a --own", [("a", {"labels": None})], "a has zone=b now\n"),
        ("undrain a", [("a", {"drain": False})], "a is ready now\n"),
    ],
)
def test_what_is_asked_and_said(
    words: str,
    asked: list[tuple[str, dict[str, Any]]],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[tuple[str, dict[str, Any]]] = []

    def answer(handler: Any) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        seen.append((handler.command + handler.path, body))
        says(200, json.dumps({"weight": 7, "state": "ready", "labels": {"zone": "b"}}).encode())(handler)

    with serving(answer) as api:
        monkeypatch.setenv("CRONY_API", api.target.base)
        monkeypatch.setenv("CRONY_TOKEN", "crony_secret")
        assert run(["node", *words.split()]) == 0
    assert seen == [(f"PATCH/api/v1/nodes/{node}", body) for node, body in asked]
    assert capsys.readouterr().out == said


def test_drain_waits_and_says_what_is_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    looks = [2, 1, 0]

    def answer(handler: Any) -> None:
        left = looks.pop(0) if handler.command == "GET" else 9
        holds = [{"id": f"r{n}", "job": {"id": "j1", "name": "bill"}} for n in range(left)]
        says(200, json.dumps({"state": "draining", "queued": 0, "holds": holds}).encode())(handler)

    with serving(answer) as api:
        monkeypatch.setenv("CRONY_API", api.target.base)
        monkeypatch.setenv("CRONY_TOKEN", "crony_secret")
        assert run(["node", "drain", "a", "--wait"]) == 0
        said = capsys.readouterr()
        assert said.out == "a is draining now\nnothing is left there\n"
        assert said.err == "a: 2 running, 0 queued: bill r0, bill r1\na: 1 running, 0 queued: bill r0\n"
        looks += [1]
        assert run(["node", "drain", "a", "--wait", "--timeout", "0"]) == 7
        assert "1 runs are left" in capsys.readouterr().err
        assert run(["node", "drain", "a", "--timeout", "5"]) == 2


def test_run_get_says_why_there_and_why_not_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    route = {"strategy": "hash", "why": "the only node that fits", "more": 3,
             "passed_over": [{"reason": "cordoned", "nodes": ["n2", "n\x1b3"]}]}  # fmt: skip
    found = {"id": "r1", "job_name": "a", "state": "running", "why": "as a line", "route": route}
    with serving(says(200, json.dumps(found).encode())) as api:
        monkeypatch.setenv("CRONY_API", api.target.base)
        monkeypatch.setenv("CRONY_TOKEN", "crony_secret")
        assert run(["run", "get", "r1"]) == 0
    lines = [line.split(None, 2) for line in capsys.readouterr().out.splitlines()]
    assert lines[-4:] == [["why", "there", "the only node that fits"], ["strategy", "hash"],
                          ["passed", "over", "n2, n\\x1b3: cordoned"], ["passed", "over", "3 more"]]  # fmt: skip
    assert not [line for line in lines if line[0] == "took"], "it has not ended"
