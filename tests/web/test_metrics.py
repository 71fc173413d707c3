"""`/metrics` of a web: what centres and nodes say of themselves, readable for Prometheus; the how-to is true."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from crony.domain.figures import Figures
from crony.domain.node import NodeFacts
from crony.domain.shards import CentreFacts
from crony.web.wiring import Web
from tests.web.conftest import Api

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "metrics.md"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def _scrape(api: Api) -> tuple[Samples, set[str]]:
    text = api.client.get("/metrics", headers=api.headers).text
    families = list(text_string_to_metric_families(text))
    samples: Samples = {}
    for family in families:
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in samples, f"twice: {key}"
            samples[key] = sample.value
    assert len({family.name for family in families}) == len(families), "a family comes twice"
    return samples, {sample.name for family in families for sample in family.samples} | {f.name for f in families}


def _tell(web: Web) -> None:
    figures = Figures()
    figures.count("runs", "failed", 3)
    figures.count("late")
    figures.took("lag", 0.3)
    told = figures.told({"backlog": {"": 5}, "failing": {"archiver": 1}})
    for name, incarnation, said in (("one", "ca", told), ("two", "cb", {"c": {"runs": {"failed": 1}}}),
                                    ("odd", "cc", {"c": [], "t": 3, "s": {"backlog": {"x": 1}}})):  # fmt: skip
        facts = CentreFacts(name, at=1.0, figures=said)  # type: ignore[arg-type]
        web.client.put(web.keys.centre(incarnation), facts.encode())
    for name, said in (("n1", {"c": {"stale": {"": 2}}, "s": {"web_away": {"": 1}, "spool": {"": 77}}}), ("n2", {})):
        node = NodeFacts(name, f"i-{name}", f"run.{name}", "h", 1, "b", "1", 4, running=3, figures=said)  # type: ignore[arg-type]
        web.client.put(web.keys.node(name), node.encode())
    web.live.forget()


def test_centres_and_nodes_are_told_of_by_any_web(api: Api, web: Web) -> None:
    _tell(web)
    samples, _ = _scrape(api)

    def value(name: str, **labels: str) -> float | None:
        return samples.get((name, tuple(sorted(labels.items()))))

    assert value("crony_runs_total", centre="one", outcome="failed") == 3
    assert value("crony_runs_total", centre="two", outcome="failed") == 1
    assert value("crony_fires_late_total", centre="one") == 1
    assert value("crony_dispatch_lag_seconds_bucket", centre="one", le="0.25") == 0
    assert value("crony_dispatch_lag_seconds_bucket", centre="one", le="0.5") == 1
    assert value("crony_dispatch_lag_seconds_count", centre="one") == 1
    assert value("crony_archive_backlog", centre="one") == 5
    assert value("crony_archive_backlog", centre="odd") is None
    assert value("crony_duty_failing", centre="one", duty="archiver") == 1
    assert value("crony_node_stale_ends_total", node="n1") == 2
    assert value("crony_node_web_away", node="n1") == 1 and value("crony_node_spool_bytes", node="n1") == 77
    assert value("crony_node_running", node="n2") == 3 and value("crony_node_capacity", node="n2") == 4


def test_calls_of_callees_are_timed_by_call_and_status(api: Api, web: Web) -> None:
    for run in ("j1.1.60", "j2.1.60"):
        path = f"/api/v1/runs/{run}/attempts/1:complete"
        assert api.client.post(path, json={}, headers={"authorization": "Bearer x"}).status_code == 401
    samples, _ = _scrape(api)
    labels = (("call", "complete"), ("status", "401"))
    assert samples["crony_callback_seconds_count", labels] == 2, "no run is a label"


def test_the_how_to_names_figures_that_there_are(api: Api, web: Web) -> None:
    _tell(web)
    path = "/api/v1/runs/j1.1.60/attempts/1:complete"
    api.client.post(path, json={}, headers={"authorization": "Bearer x"})
    _, names = _scrape(api)
    wanted = set(re.findall(r"\bcrony_[a-z_]+\b", HOW_TO.read_text(encoding="utf-8")))
    known = names | {f"{name}_total" for name in names}
    assert len(wanted) > 25 and sorted(wanted - known) == []
