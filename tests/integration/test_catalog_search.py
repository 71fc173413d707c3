"""Finding a job: by its own words, whatever their case and script, and never by the names of fields."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from crony.catalog.jobs import Catalog
from crony.domain.signing import Sealer, new_key
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.store import upgrade
from crony.store.db import Database
from crony.store.search import folded, searchable

pytest_plugins = ["tests.helpers.database_fixtures"]

SEALER = Sealer(new_key()[0])
SHELL = {"kind": "shell", "command": ["backup", "--all", "C:\\data"], "env": {"REGION": "EU_1"}}
HTTP = {
    "kind": "http",
    "url": "https://Shop.example/a%20b",
    "headers": {"X-Team": "blue"},
    "json": {"deep": [{"n": 4711}]},
}
JOBS: list[dict[str, Any]] = [
    {"name": "billing/close-day", "tags": ["money", "100%"], "owner": "Ops@Example.org", "action": SHELL},
    {"name": "report/每日报表", "description": "把每日报表发给运营团队", "action": HTTP},
    {"name": "Straße", "description": "Retry by hand when the Lager is ÉTEINT",
     "action": {"kind": "shell", "script": "echo 'a_b'"}},
    {"name": "plain", "action": {"kind": "python", "task": "shop.tasks.sweep", "kwargs": {"who": "Ann"}}},
]  # fmt: skip


@pytest.fixture
def catalog(db: Database, client: Client, keys: Keys) -> Catalog:
    made = Catalog(db, client, keys, SEALER)
    for document in JOBS:
        made.create(document, "ann")
    return made


@pytest.mark.parametrize(
    "cases",
    [
        {
            "BILLING": [0], "Close-Day": [0], "MONEY": [0], "ops@example": [0], "backup": [0], "--all": [0],
            "region": [0], "eu_1": [0], "http": [1], "shop.": [1, 3], "x-team": [1], "4711": [1], "报表": [1],
            "运营团队": [1], "STRASSE": [2], "straße": [2], "éteint": [2], "e\u0301teint": [2], "sweep": [3],
            "ann": [3], "": [0, 1, 2, 3],
        },
        {"%": [0, 1], "100%": [0], "a%b": [], "_": [0, 2], "a_b": [2], "u_1": [0], "x_1": [], "\\": [0],
         ":\\d": [0], "\\\\": [], "/": [0, 1, 2], "'": [2], "n\nm": []},
        # `retry` stands in every document as a field; it is found where a person wrote it.
        {"retry": [2], "timeout": [], "enabled": [], "on_cut": [], "weighted": [], "exponential": [],
         "at_least_once": [], "interpreter": [], "verify_tls": [], "expect_status": [], "command": [], "true": []},
    ],
    ids=["words", "literal", "fields"],
)  # fmt: skip
def test_a_search_finds_what_people_wrote_and_only_that(catalog: Catalog, cases: dict[str, list[int]]) -> None:
    names = sorted(range(len(JOBS)), key=lambda n: JOBS[n]["name"])
    for q, expected in cases.items():
        found = [job.name for job in catalog.list(q=q).items]
        assert sorted(found) == sorted(JOBS[n]["name"] for n in names if n in expected), q
        assert catalog.count(q=q) == len(expected), q


def test_an_edit_changes_what_finds_a_job(catalog: Catalog) -> None:
    job = catalog.get("plain")
    catalog.update(job.id, {**JOBS[3], "description": "now with giraffes"}, 1, "ann")
    assert [found.name for found in catalog.list(q="Giraffe").items] == ["plain"]
    assert catalog.count(q="retry") == 1 and catalog.count(q="max_delay") == 0
    catalog.update(job.id, {**JOBS[3], "name": "renamed"}, 2, "ann")
    assert catalog.list(q="giraffe").items == [] and catalog.count(q="plain") == 0 and catalog.count(q="renamed") == 1
    catalog.rollback(job.id, 2, "ann")
    assert catalog.count(q="giraffe") == 1


def test_a_job_saved_by_the_version_before_is_found_by_name(catalog: Catalog) -> None:
    catalog.db.transaction(lambda session: session.execute(text("UPDATE jobs SET search = NULL WHERE name = 'plain'")))
    assert [job.name for job in catalog.list(q="PLAIN").items] == ["plain"]
    assert catalog.count(q="sweep") == 0 and catalog.count(q="retry") == 1
    catalog.set_enabled("plain", False, "ann")
    assert catalog.count(q="sweep") == 1


def test_an_upgrade_fills_in_the_jobs_that_are_there(url: str, client: Client, keys: Keys) -> None:
    db = Database(url)
    db.upgrade()
    catalog = Catalog(db, client, keys, SEALER)
    for document in JOBS:
        catalog.create(document, "ann")
    back = Database(url)
    with back.engine.connect() as connection:  # as the version before left it
        connection.execute(text("DROP TABLE alerts"))
        connection.execute(text("ALTER TABLE jobs DROP COLUMN search"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
        connection.commit()
    back.close()
    assert db.upgrade() == upgrade.head() != "0001"
    assert [job.name for job in catalog.list(q="SWEEP").items] == ["plain"]
    assert catalog.count(q="报表") == 1 and catalog.count(q="retry") == 1
    with db.engine.connect() as connection:  # killed in the middle of filling in
        connection.execute(text("UPDATE jobs SET search = NULL WHERE name = 'plain'"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
        connection.commit()
    db.upgrade()
    assert catalog.count(q="sweep") == 1
    db.close()


def test_what_is_searched_is_made_of_words() -> None:
    found = searchable(
        {"name": "A", "tags": ["T"], "owner": "", "action": {"kind": "http", "verify_tls": True, "n": None}}
    )
    assert found == "a\nt\nhttp"
    assert searchable({}) == "" and folded("ﬁ É") == folded("ﬁ E\u0301")
