"""docs/reference/callbacks.md against the web: the fields, members and statuses of its tables are those there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from crony.etcd.errors import AuthFailed, EtcdUnknown
from crony.web.wiring import Web
from tests.helpers.callee import Callee
from tests.web.conftest import Api

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/reference/callbacks.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table after a heading, without its head."""
    section = PAGE.split(f"\n{heading}\n", 1)[1]
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert table, heading
    return [[cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in table[0].splitlines()[2:]]


def named(cell: str) -> set[str]:
    """Fields that a cell tells of: each stands before a colon."""
    return set(re.findall(r"`([a-z_]+)`: ", cell))


def schema(described: dict[str, Any], path: str, status: str) -> tuple[set[str], set[str]]:
    """Fields of the body, and members of the answer, as the API describes itself."""
    post = described["paths"][path]["post"]
    body = post.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    answer = post["responses"][status].get("content", {}).get("application/json", {}).get("schema", {})
    name = answer.get("$ref", "").rpartition("/")[2]
    members = described["components"]["schemas"][name]["properties"] if name else {}
    return set(body.get("properties", {})), set(members)


def test_the_page_tells_of_every_field_and_member(api: Api) -> None:
    described = api("GET", "openapi.json").json()
    told = {re.findall(r"`(\w+)`", row[0])[0]: named(row[1]) for row in rows("## The calls")}
    members = {re.findall(r"`(\w+)`", row[0])[0] for row in rows("### 200")}
    assert set(told) == {"heartbeat", "progress", "log", "complete", "fail"}
    for verb, fields in told.items():
        body, answer = schema(described, f"/api/v1/runs/{{run}}/attempts/{{attempt}}:{verb}", "200")
        assert (body, answer) == (fields, members if verb == "log" else members - {"have"}), verb
    instances = "/api/v1/services/{service}/instances"
    registering, saying, _ = rows("## Being called by name")
    body, answer = schema(described, instances, "201")
    assert body == set(re.findall(r"`([a-z_]+)`: ", registering[1]))
    assert {"instance", "secret"} <= answer
    body, answer = schema(described, f"{instances}/{{instance}}:heartbeat", "200")
    assert body == {"healthy", "weight"} == set(re.findall(r"`([a-z]+)`", saying[1])) and "secret" not in answer


def test_every_test_that_the_table_of_races_names_is_there() -> None:
    for row in rows("## Races and their answers"):
        for path, _, name in re.findall(r"(tests/[a-z_/]+\.py)(::(\w+))?", row[-1]) or [("", "", "")]:
            assert path, f"nobody tries: {row[0]}"
            source = (ROOT / path).read_text(encoding="utf-8")
            assert not name or f"def {name}(" in source, f"{path} has no {name}"


def test_every_status_of_the_table_is_given_and_no_other(
    web: Web, anonymous: TestClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    callee = Callee(web.client, web.keys).waiting()
    unknown = Callee(web.client, web.keys)
    given: dict[int, str] = {}

    def ask(what: str, verb: str, body: Any = None, token: str = "", at: Callee = callee, **more: Any) -> int:
        path = f"/api/v1/runs/{at.run}/attempts/1:{verb}"
        headers = {"authorization": f"Bearer {token or callee.token.text}"}
        more = more or {"json": {} if body is None else body}
        status = anonymous.post(path, headers=headers, **more).status_code
        given[status] = what
        return status

    def failing(error: Exception) -> None:
        def fail(*_: Any, **__: Any) -> Any:
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(web.client, "txn", fail)
            assert ask(f"{error!r}", "complete") in (500, 503), f"{error!r} must not make a callee give up"

    ask("a field too many", "complete", {"x": 1})
    ask("a form", "complete", content=b"a=1")
    ask("no token", "complete", token="x")
    ask("no such run", "complete", token=unknown.token.under(1).text, at=unknown)
    ask("too large", "complete", {"result": "x" * (256 << 10)})
    for error in (EtcdUnknown("the answer was lost"), AuthFailed("etcd refused us"), ValueError("a mistake")):
        failing(error)
    assert callee.places() == {"acc"}
    ask("well", "complete")
    ask("not so", "fail", {"reason": "x"})
    web.callees._most = 1
    for _ in range(5):
        ask("too often", "heartbeat")
    # 400 is for what is no HTTP or comes too slowly: the server below answers it, or the guard.
    told = {int(status) for row in rows("### Everything else") for status in re.findall(r"\d{3}", row[0])}
    assert set(given) | {400} == told | {200}, given
