"""Jobs that run after others in the catalogue: parents there are, no circle, nobody's parent renamed or deleted."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from crony.catalog import chains
from crony.catalog.jobs import Catalog
from crony.domain.chain import Link
from crony.domain.livejob import LiveJob
from crony.domain.signing import Sealer, new_key, peek
from crony.errors import Conflict, CronyError, Invalid
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.store.db import Database

pytest_plugins = ["tests.helpers.database_fixtures"]

SEALER = Sealer(new_key()[0])


def _job(name: str, *after: str, **more: Any) -> dict[str, Any]:
    chained = {"after": {"jobs": list(after)}} if after else {}
    return {"name": name, "action": {"kind": "shell", "command": ["true"]}, **chained, **more}


@pytest.fixture
def catalog(db: Database, client: Client, keys: Keys) -> Catalog:
    return Catalog(db, client, keys, SEALER)


def _link(catalog: Catalog, job: str) -> Link | None:
    found = catalog.client.get(catalog.keys.chain(job))
    return Link.read(found.value) if found is not None else None


def _told(catalog: Catalog) -> int:
    found = catalog.client.get(catalog.keys.chains)
    return found.mod if found is not None else 0


def test_what_follows_what_is_published_with_the_job(catalog: Catalog) -> None:
    with pytest.raises(Invalid, match=r"after\.jobs\[0\]: names the job a, which there is not"):
        catalog.create(_job("b", "a"), "ann")
    parent = catalog.create(_job("a"), "ann")
    assert _told(catalog) == 0, "nothing follows it"
    with pytest.raises(Invalid, match=r"after\.ids"):
        catalog.create(_job("b", after={"jobs": ["a"], "ids": [parent.id]}), "ann")
    child = catalog.create(_job("b", "a"), "ann")
    link, first = _link(catalog, child.id), _told(catalog)
    assert link == Link(child.id, "b", 1, 1, "success", {parent.id: "a"}, 1, 86400.0) and first
    published = catalog.client.get(catalog.keys.job(child.id))
    assert published is not None and (after := LiveJob.read(peek(published.value)).job.after) is not None
    assert after.ids == (parent.id,)
    assert catalog.get(child.id).document["after"]["jobs"] == ["a"], "people see names"
    catalog.update(child.id, _job("b", after={"jobs": ["a"], "on": "failure"}), None, "ann")
    link = _link(catalog, child.id)
    assert link is not None and (link.on, link.revision) == ("failure", 2) and _told(catalog) > first
    second = _told(catalog)
    catalog.update(child.id, _job("b"), None, "ann")
    assert _link(catalog, child.id) is None and _told(catalog) > second, "it follows nobody any more"
    catalog.update(child.id, _job("b", "a"), None, "ann")
    catalog.delete(child.id, "ann")
    assert _link(catalog, child.id) is None
    catalog.delete(parent.id, "ann")


def test_a_parent_is_neither_deleted_nor_renamed(catalog: Catalog) -> None:
    catalog.create(_job("a"), "ann")
    catalog.create(_job("b", "a"), "ann")
    for refused in (lambda: catalog.delete("a", "ann"), lambda: catalog.update("a", _job("z"), None, "ann")):
        with pytest.raises(Conflict, match="The job a cannot be") as error:
            refused()
        assert error.value.why == "jobs run after it: b" and error.value.hint == "take it out of them first"
    catalog.update("b", _job("c", "a"), None, "ann")
    assert catalog.get("a").live_revision == 1
    with pytest.raises(Conflict, match="run after it: c"):
        catalog.delete("a", "ann")


def test_circles_are_refused_and_named(catalog: Catalog) -> None:
    with pytest.raises(Invalid, match=r"after\.jobs\[0\]: closes a circle: a -> a"):
        catalog.create(_job("a", "a"), "ann")
    catalog.create(_job("a"), "ann")
    with pytest.raises(Invalid, match="closes a circle: a -> a"):
        catalog.update("a", _job("a", "a"), None, "ann")
    catalog.create(_job("b", "a"), "ann")
    catalog.create(_job("c", "b"), "ann")
    with pytest.raises(Invalid, match="closes a circle: a -> b -> c -> a"):
        catalog.update("a", _job("a", "c"), None, "ann")
    with pytest.raises(Invalid, match="closes a circle: new -> new"):
        catalog.update("c", _job("new", "new"), None, "ann")
    catalog.update("b", _job("b"), None, "ann")
    catalog.update("a", _job("a", "c"), None, "ann")
    with pytest.raises(Invalid, match="closes a circle: b -> c -> a -> b"):
        catalog.rollback("b", 1, "ann")


def test_two_saves_at_once_close_no_circle(catalog: Catalog) -> None:
    """Four jobs that each want to follow the next: whoever is last is refused."""
    names = ["a", "b", "c", "d"]
    for name in names:
        catalog.create(_job(name), "ann")
    refused: list[str] = []
    start = threading.Barrier(4)

    def save(name: str, parent: str) -> None:
        start.wait()
        try:
            catalog.update(name, _job(name, parent), None, "ann")
        except CronyError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=save, args=(name, names[(at + 1) % 4])) for at, name in enumerate(names)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(refused) == 1 and "closes a circle" in refused[0], refused


def test_so_many_follow_one_job_and_no_more(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "MOST_CHILDREN", 2)
    catalog.create(_job("a"), "ann")
    for number in range(2):
        catalog.create(_job(f"b{number}", "a"), "ann")
    with pytest.raises(Invalid, match="a has 2 jobs that run after it"):
        catalog.create(_job("one-more", "a"), "ann")
    catalog.update("b0", _job("b0", "a", description="again"), None, "ann")
