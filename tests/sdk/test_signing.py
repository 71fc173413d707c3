"""Signatures: what the vectors say, for every language; and that nothing else is let in."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from crony_sdk import BadSignature, Invalid, sign, verify
from crony_sdk.signing import secrets_from_environ

from tests.helpers.wait import within

ROOT = Path(__file__).resolve().parents[2]
VECTORS: list[dict[str, Any]] = json.loads((ROOT / "sdk/vectors.json").read_text())["vectors"]
SECRET = "s" * 32
NOW = 1_764_288_000


def call(secret: str = SECRET, at: int = NOW, body: bytes = b"{}", **headers: str) -> dict[str, str]:
    made = sign(secret, method="POST", target="/x", run="j1.1.5", attempt=1, fence=7, body=body, timestamp=at)
    given = {
        "x-crony-run": "j1.1.5",
        "X-CRONY-ATTEMPT": "1",
        "X-Crony-Fence": "7",
        "X-Crony-Timestamp": str(at),
        "X-Crony-Signature": made,
    }
    return {**given, **headers}


def check(headers: dict[str, str], body: bytes = b"{}", now: float = NOW, secrets: Any = (SECRET,)) -> None:
    verify(headers, body, method="POST", target="/x", secrets=secrets, now=now)


def test_the_vectors_hold() -> None:
    for vector in VECTORS:
        headers = {
            "X-Crony-Run": vector["run"],
            "X-Crony-Attempt": str(vector["attempt"]),
            "X-Crony-Fence": str(vector["fence"]),
            **({"X-Crony-Callback": vector["callback"]} if vector["callback"] else {}),
            "X-Crony-Timestamp": str(vector["timestamp"]),
            "X-Crony-Signature": vector["signature"],
        }
        try:
            verify(
                headers,
                base64.b64decode(vector["body"]),
                method=vector["method"],
                target=vector["target"],
                secrets=[vector["secret"]],
                now=vector["timestamp"],
            )
            taken = True
        except BadSignature:
            taken = False
        assert taken == vector["valid"], vector["name"]
    assert sum(vector["valid"] for vector in VECTORS) >= 8 and len(VECTORS) >= 22


def test_the_window_is_five_minutes_either_way() -> None:
    for now in (NOW - 300, NOW, NOW + 300):
        check(call(), now=now)
    for now in (NOW - 301, NOW + 301, NOW + 86400):
        with pytest.raises(BadSignature, match=r"\d+ s (ahead of|behind) our clock") as caught:
            check(call(), now=now)
        assert caught.value.reason == "expired"


def test_secrets_are_changed_without_a_gap() -> None:
    old, new = "o" * 32, "n" * 32
    for used in (old, new):
        check(call(used), secrets=[old, new])
    with pytest.raises(BadSignature) as caught:
        check(call(old), secrets=[new])
    assert caught.value.reason == "mismatch" and old not in str(caught.value) and new not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"X-Crony-Signature": ""}, "missing"),
        ({"X-Crony-Timestamp": ""}, "missing"),
        ({"X-Crony-Timestamp": "yesterday"}, "malformed"),
        ({"X-Crony-Timestamp": "1764288000.5"}, "malformed"),
        ({"X-Crony-Timestamp": "-1"}, "malformed"),
        ({"X-Crony-Timestamp": "9" * 40}, "malformed"),
        ({"X-CRONY-ATTEMPT": "one"}, "malformed"),
        ({"X-Crony-Signature": "v1=zz"}, "malformed"),
        ({"X-Crony-Signature": "v1=" + "ä" * 64}, "malformed"),
        ({"X-Crony-Signature": "v1=" + "0" * 64}, "mismatch"),
        ({"x-crony-run": "j1.1.6"}, "mismatch"),
        ({"X-CRONY-ATTEMPT": "2"}, "mismatch"),
    ],
)
def test_what_is_not_signed_so_is_refused_with_a_reason(change: dict[str, str], reason: str) -> None:
    with pytest.raises(BadSignature) as caught:
        check(call(**change))
    assert caught.value.reason == reason


def test_a_changed_body_is_refused_whatever_its_size() -> None:
    large = b"x" * 5_000_000
    with within(5):
        check(call(body=large), body=large)
        with pytest.raises(BadSignature):
            check(call(body=large), body=large[:-1] + b"y")


@pytest.mark.parametrize("secrets", [[], ["short"], ["s" * 31], [SECRET, ""]])
def test_no_secret_and_short_ones_are_refused(secrets: list[str]) -> None:
    with pytest.raises(Invalid, match="secrets"):
        check(call(), secrets=secrets)


def test_secrets_come_from_the_environment_or_a_file(tmp_path: Path) -> None:
    assert secrets_from_environ({"CRONY_CALL_SECRETS": f"{SECRET}, {'t' * 32}"}) == (SECRET, "t" * 32)
    path = tmp_path / "secrets"
    path.write_text(SECRET + "\n")
    assert secrets_from_environ({"CRONY_CALL_SECRETS_FILE": str(path)}) == (SECRET,)
    assert secrets_from_environ({}) == ()
    with pytest.raises(Invalid, match="CRONY_CALL_SECRETS_FILE"):
        secrets_from_environ({"CRONY_CALL_SECRETS_FILE": str(tmp_path / "none")})
