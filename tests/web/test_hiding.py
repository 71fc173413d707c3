"""What a callee says later: the secrets of its job are masked in all of it, and the report counts all the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from crony.domain.callback import Report
from crony.domain.masking import Mask
from crony.domain.sealing import Cipher, new_secret_key
from crony.lifecycle.complete import complete
from crony.web.hiding import WITHHELD, Hiding
from crony.web.wiring import Web
from tests.helpers.callee import Callee
from tests.web.conftest import Api
from tests.web.test_callbacks import Calls

CANARY = 'c4n4ry-"Zq7/ö+w'


@pytest.fixture
def callee(web: Web, api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callee]:
    """It was given the secret."""
    cipher = Cipher([new_secret_key()])
    for there in (web.catalog.secrets, web.hiding):
        monkeypatch.setattr(there, "_cipher", cipher)
    assert api("PUT", "secrets/canary", json={"value": CANARY}).status_code in (200, 201)
    yield Callee(web.client, web.keys, retries=1, more={"secrets": {"P": "canary"}}).waiting()


def everywhere(web: Web, api: Api, callee: Callee) -> bytes:
    """What is kept of the attempt, and shown of it."""
    stored = b"".join(kv.value for kv in web.client.list(web.keys.run).kvs)
    shown = b"".join(api("GET", f"runs/{callee.run}{part}").content for part in ("", "/output"))
    return stored + shown


def test_nothing_that_a_callee_says_shows_its_secret(web: Web, api: Api, anonymous: TestClient, callee: Callee) -> None:
    calls = Calls(anonymous, callee)
    for _ in range(2):  # not remembered, and remembered
        assert calls("progress", {"percent": 5, "message": f"with {CANARY} of"}).status_code == 200
        beat = callee.beat()
        assert beat is not None and beat.message == "with *** of"
    text = f"ä {CANARY}\nand {CANARY[:8]}"
    assert calls("log", {"text": text, "offset": 0}).json()["have"] == len(text.encode())
    told = api("GET", f"runs/{callee.run}/output").text
    assert told == f"ä {'*' * len(CANARY.encode())}\nand ********", "as many bytes: the callee counts them"
    body = {"reason": f"no entry for {CANARY}\nat all", "final": True}
    for _ in range(2):
        assert calls("fail", body).json() == {"state": "ended", "outcome": "failed", "cancel": False}
    assert calls("fail", {**body, "reason": "no entry for *** at all"}).status_code == 409, "other words"
    out = callee.outcome()
    assert out is not None and out.reason == "no entry for *** at all"
    assert CANARY.encode() not in everywhere(web, api, callee) and b"c4n4ry" not in everywhere(web, api, callee)


@pytest.mark.parametrize("early", [False, True])
def test_a_result_is_masked_also_before_the_answer_to_the_call(web: Web, api: Api, callee: Callee, early: bool) -> None:
    each = Callee(web.client, web.keys, more={"secrets": {"P": "canary"}})
    each.call() if early else each.waiting()
    report = Report(True, result={"by": [CANARY, {CANARY: 1}]})
    told = complete(web.client, web.keys, each.run, 1, each.token, report, hide=web.hiding.report)
    assert told.outcome == "succeeded"
    out = each.outcome()
    assert out is not None and out.result == {"by": ["***", {"***": 1}]} and out.report == report.digest


def test_a_web_without_the_key_keeps_the_outcome_and_not_the_words(web: Web, api: Api, callee: Callee) -> None:
    blind = Hiding(web.client, web.keys, Cipher(()))
    assert blind.message(callee.told, CANARY) == "***" and blind.output(callee.told, b"abc") == b"***"
    report = Report(False, reason=CANARY, code=28)
    for _ in range(2):
        told = complete(web.client, web.keys, callee.run, 1, callee.token, report, hide=blind.report)
        assert told.outcome == "failed"
    out = callee.outcome()
    assert out is not None and (out.reason, out.code, out.report) == (f"({WITHHELD})", 28, report.digest)
    plain = Callee(web.client, web.keys).waiting()
    assert blind.report(plain.told, report) is report, "whose job has no secrets is not concerned"


def test_masked_bytes_are_as_many() -> None:
    mask = Mask([CANARY])
    for text in (CANARY, f"x{CANARY}", f"{CANARY}{CANARY}y", CANARY[:5], f"ö{CANARY[:9]}", "nothing", ""):
        data = text.encode()
        made = mask.blotted(data)
        assert len(made) == len(data) and b"c4n4" not in made
        assert made.decode(errors="strict").strip("*") == text.replace(CANARY, "").replace(CANARY[:9], "").replace(
            CANARY[:5], ""
        )
