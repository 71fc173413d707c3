"""The blocks of the SDK's README run, in their order, as a reader would type them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import crony_sdk
import pytest
import yaml

from crony.domain.job import parse
from tests.helpers.service import Asked, service

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "sdk/README.md"


def blocks(language: str) -> list[tuple[int, str]]:
    """Blocks with the number of their first line."""
    text = README.read_text()
    found = re.finditer(rf"^```{language}\n(.*?)^```", text, re.M | re.S)
    return [(text[: match.start(1)].count("\n") + 1, match[1]) for match in found]


def web(asked: Asked) -> tuple[int, dict[str, str], bytes]:
    """As much of the REST API as the last section asks for."""
    run = {"id": "r1", "state": "ended", "outcome": "succeeded", "result": {"closed": "us"}}
    if asked.path.endswith(":run"):
        return 202, {"Content-Type": "application/json"}, b'{"run": "r1", "created": true}'
    if "/output" in asked.path:
        return 200, {"Content-Type": "text/plain; charset=utf-8"}, b"closed us\n" if "offset=0" in asked.path else b""
    return 200, {"Content-Type": "application/json"}, json.dumps(run).encode()


def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    made: list[crony_sdk.Service] = []

    class Service(crony_sdk.Service):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            made.append(self)

    monkeypatch.setattr(crony_sdk, "Service", Service)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "tutorial"}
    with service(web) as api:
        monkeypatch.setenv("CRONY_API", api.url)
        monkeypatch.setenv("CRONY_TOKEN", "x")
        for line, block in blocks("python"):
            exec(compile("\n" * line + block, str(README), "exec"), names)
    assert "succeeded {'closed': 'us'}\nclosed us\n" in capsys.readouterr().out
    for each in made:
        each.close(0)
    for spool in ("spool", "spool-with-ca"):
        crony_sdk.open_outbox(spool).close(0)
    assert len(blocks("python")) >= 8 and "django" in sys.modules


def test_the_jobs_in_it_are_jobs() -> None:
    document, later = (yaml.safe_load(block) for _, block in blocks("yaml"))
    parse(document)
    assert set(later) == {"async"}


def test_what_it_names_exists() -> None:
    text = README.read_text()
    for name in re.findall(r"`crony_sdk\.(\w+)", text):
        assert hasattr(crony_sdk, name) or (ROOT / f"sdk/crony_sdk/{name}.py").exists(), name
    for name in re.findall(r"`([a-z_./]+/|[a-z]+\.json)`", text):
        assert (ROOT / "sdk" / name).exists(), name
