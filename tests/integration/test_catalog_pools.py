"""Pools in the catalogue: published at once, none in use is deleted, what an outage kept back is made good."""

from __future__ import annotations

from typing import Any

import pytest

from crony.catalog.jobs import Catalog
from crony.domain.pool import Pool
from crony.domain.signing import Sealer, new_key
from crony.errors import Conflict, Invalid, NotFound
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.lifecycle.publish_object import publish_object, published
from crony.store import audit
from crony.store.db import Database

pytest_plugins = ["tests.helpers.database_fixtures"]

SEALER = Sealer(new_key()[0])


def _job(name: str, *pools: str) -> dict[str, Any]:
    return {"name": name, "action": {"kind": "shell", "command": ["true"]}, "limits": [f"pool:{p}" for p in pools]}


@pytest.fixture
def catalog(db: Database, client: Client, keys: Keys) -> Catalog:
    return Catalog(db, client, keys, SEALER)


def _live(catalog: Catalog, name: str = "reports") -> Pool | None:
    return published(catalog.client.get(catalog.keys.obj("pool", name)), Pool)


def test_a_pool_from_creation_to_deletion(catalog: Catalog) -> None:
    with pytest.raises(Invalid, match="names the pool reports, which there is not"):
        catalog.create(_job("a", "reports"), "ann")
    made = catalog.pools.save({"name": "reports", "limit": 3}, "ann", revision=0, address="::1")
    assert (made.revision, made.jobs, made.live) == (1, (), True)
    assert _live(catalog) == Pool("reports", 3, revision=1)
    job = catalog.create(_job("a", "reports"), "ann")
    edited = catalog.pools.save({"name": "reports", "limit": 1, "description": "slow"}, "bob", revision=1)
    assert (edited.revision, edited.limit, edited.jobs, edited.updated_by) == (2, 1, ("a",), "bob")
    assert _live(catalog) == Pool("reports", 1, "slow", 2)
    assert catalog.pools.save({"name": "reports", "limit": 1, "description": "slow"}, "ann").revision == 2
    with pytest.raises(Conflict, match="changed meanwhile"):
        catalog.pools.save({"name": "reports", "limit": 9}, "ann", revision=1)
    with pytest.raises(Conflict, match="is in use") as refused:
        catalog.pools.delete("reports", "ann")
    assert "name it: a" in (refused.value.why or "")
    catalog.update(job.id, _job("a"), None, "ann")
    catalog.pools.delete("reports", "ann")
    assert _live(catalog) == Pool("reports", 1, "slow", 3, deleted=True), "runs that still name it need no slot"
    for gone in (catalog.pools.get, catalog.pools.versions):
        if gone is catalog.pools.get:
            with pytest.raises(NotFound):
                gone("reports")
    again = catalog.pools.save({"name": "reports", "limit": 2}, "ann")
    assert again.revision == 4 and _live(catalog) == Pool("reports", 2, revision=4)
    assert [v.action for v in catalog.pools.versions("reports")] == ["create", "delete", "update", "create"]
    entries = [entry for entry in audit.list_entries(catalog.db).items if entry.kind == "pool"]
    assert [entry.action for entry in entries] == ["pool.create", "pool.delete", "pool.update", "pool.create"]
    assert entries[-1].detail == {"revision": 1, "limit": 3}


def test_a_deleted_job_lets_go_of_its_pools(catalog: Catalog) -> None:
    catalog.pools.save({"name": "reports", "limit": 3}, "ann")
    job = catalog.create(_job("a", "reports"), "ann")
    catalog.delete(job.id, "ann")
    catalog.pools.delete("reports", "ann")


def test_what_an_outage_kept_back_is_published_by_the_reconcile_and_never_an_older_one(catalog: Catalog) -> None:
    with Client(["http://127.0.0.1:9"], timeout=0.3) as away:
        offline = Catalog(catalog.db, away, catalog.keys, SEALER)
        assert not offline.pools.save({"name": "reports", "limit": 3}, "ann").live
        assert not offline.pools.save({"name": "other", "limit": 1}, "ann").live
        offline.pools.delete("other", "ann")
    assert catalog.pools.reconcile() == ["reports"] and _live(catalog) == Pool("reports", 3, revision=1)
    assert _live(catalog, "other") is None, "what nobody ever saw needs no tombstone"
    assert publish_object(catalog.client, catalog.keys, SEALER, "pool", Pool("reports", 9, revision=7)) == 7
    assert catalog.pools.reconcile() == [] and _live(catalog) == Pool("reports", 9, revision=7)
    assert publish_object(catalog.client, catalog.keys, SEALER, "pool", Pool("reports", 1, revision=5)) == 7


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"limit": 1}, "name"),
        ({"name": "a"}, "limit"),
        ({"name": "A", "limit": 1}, "name"),
        ({"name": "a/b", "limit": 1}, "name"),
        ({"name": "a", "limit": -1}, "limit"),
        ({"name": "a", "limit": 1001}, "limit"),
        ({"name": "a", "limit": "3"}, "limit"),
        ({"name": "a", "limit": True}, "limit"),
        ({"name": "a", "limit": 1, "size": 2}, "size"),
    ],
)
def test_bad_pools_are_refused_and_nothing_is_stored(catalog: Catalog, document: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        catalog.pools.save(document, "ann")
    assert refused.value.field == field and catalog.pools.every() == []
