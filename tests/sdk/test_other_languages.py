"""The clients in Go and Java agree on signatures, report, bear an outage, and learn of a cancel."""

from __future__ import annotations

import json

import pytest
from crony_sdk.testing import SECRET, FakePlatform

from tests.helpers.sdk_examples import SDK, Example
from tests.helpers.sdk_examples import example as compiled
from tests.helpers.wait import until


@pytest.fixture(scope="module", params=["go", "java"])
def example(request: pytest.FixtureRequest) -> Example:
    return compiled(request.param)


def test_every_language_takes_the_same_signatures(example: Example) -> None:
    vectors = json.loads((SDK / "vectors.json").read_text())["vectors"]
    assert example.taken() == [vector["name"] for vector in vectors if vector["valid"]]


def test_a_service_reports_over_an_outage_and_learns_of_a_cancel(crony: FakePlatform, example: Example) -> None:
    with example.serving(SECRET) as (url, printed):
        failed = crony.call(url, "fail")
        assert failed.status == 202
        assert (failed.wait(150).reason, failed.final) == ("the work went wrong", True)
        assert (failed.percent, failed.message) == (50, "half way")
        assert failed.output.decode() == f"a line of {example.language} 日\n"

        forged = crony.attempt()
        forged.headers["X-Crony-Signature"] = "v1=" + "0" * 64
        secret, crony.secret = crony.secret, None
        assert crony.call(url, "complete", attempt=forged).status == 401
        crony.secret = secret
        assert crony.call(url, "complete", later=False).status == 400

        waiting = crony.call(url, "wait", heartbeat=0.6)
        until(lambda: waiting.heartbeats >= 3, 20, "heartbeats")
        waiting.end("cancelled", cancel=True)

        crony.down()
        later = crony.call(url, "complete", {"n": 1})
        assert later.status == 202
        crony.up()
        assert later.wait(150).result == {"by": example.language, "run": later.run}
        refused = next(line for line in printed if line.startswith(waiting.run))
        assert "409" in refused
