"""The catalogue: database first, then etcd; what dies in between is made good, and nothing is ever lowered."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text, update

from crony.catalog.jobs import Catalog
from crony.catalog.views import SavedNotLive, preview
from crony.clock import rfc3339
from crony.domain.livejob import LiveJob
from crony.domain.run import Done
from crony.domain.signing import Sealer, new_key, peek
from crony.errors import Conflict, Invalid, NotFound, Unavailable
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.store import audit
from crony.store.db import Database
from crony.store.models import JobRow, JobVersionRow
from tests.helpers.databases import shared_maria
from tests.helpers.etcd import EtcdServer
from tests.helpers.proxy import Proxy
from tests.helpers.wait import until

pytest_plugins = ["tests.helpers.database_fixtures"]

SEALER = Sealer(new_key()[0])
AWAY = "http://127.0.0.1:1"


def _document(name: str = "a", **facts: Any) -> dict[str, Any]:
    return {"name": name, "schedule": {"every": "1m"}, "action": {"kind": "shell", "command": ["true"]}, **facts}


@pytest.fixture
def catalog(db: Database, client: Client, keys: Keys) -> Catalog:
    return Catalog(db, client, keys, SEALER)


def _cut_off(catalog: Catalog) -> Catalog:
    """The same catalogue in a web that cannot reach etcd."""
    return Catalog(catalog.db, Client([AWAY], timeout=0.3), catalog.keys, catalog.sealer)


def _live(catalog: Catalog, ident: str) -> LiveJob | None:
    kv = catalog.client.get(catalog.keys.job(ident))
    return LiveJob.read(peek(kv.value)) if kv else None


def test_a_job_from_creation_to_deletion(catalog: Catalog) -> None:
    made = catalog.create(_document("billing/close-day", tags=["money"]), "ann", address="::1")
    assert (made.revision, made.generation, made.live_revision, made.enabled, made.live) == (1, 1, 1, True, True)
    assert made.document["timeout"] and made.document["retry"]["max"] == 0  # defaults are written out
    assert made.standing is not None and made.standing.taken_in is False, "nobody leads"
    found = replace(made, standing=replace(made.standing, taken_in=None))  # only a save asks for it
    assert catalog.get(made.id) == catalog.get("billing/close-day") == found
    assert made.next_fire_at(1_790_000_000.0) == 1_790_000_040

    edited = catalog.update(made.id, _document("billing/close-day", schedule={"cron": "0 3 * * *"}), 1, "bob")
    assert (edited.revision, edited.live_revision, edited.updated_by) == (2, 2, "bob")
    paused = catalog.set_enabled("billing/close-day", False, "bob")
    assert (paused.revision, paused.enabled, paused.live_revision, paused.next_fire_at()) == (3, False, 3, None)
    resumed = catalog.set_enabled(made.id, True, "bob", revision=3)
    renamed = catalog.update(made.id, {**resumed.document, "name": "billing/open-day"}, 4, "ann")
    assert (renamed.name, renamed.revision) == ("billing/open-day", 5)
    with pytest.raises(NotFound):
        catalog.get("billing/close-day")
    back = catalog.rollback(made.id, 1, "ann")
    assert (back.revision, back.name, back.document) == (6, "billing/close-day", made.document)
    gone = catalog.delete(made.id, "ann", revision=6)
    assert (gone.revision, gone.live_revision) == (7, 7)
    live = _live(catalog, made.id)
    assert live is not None and live.deleted and live.revision == 7
    assert catalog.client.count(catalog.keys.name("")) == 0
    for call in (lambda: catalog.get("billing/close-day"), lambda: catalog.delete(made.id, "ann")):
        with pytest.raises(NotFound):
            call()
    assert catalog.get(made.id).deleted_at is not None

    versions = catalog.versions(made.id).items
    actions = ["delete", "rollback", "update", "resume", "pause", "update", "create"]
    assert [(version.revision, version.action) for version in versions] == list(
        zip(range(7, 0, -1), actions, strict=True)
    )
    entries = audit.list_entries(catalog.db, kind="job", target=made.id).items
    assert [entry.action for entry in entries] == [f"job.{action}" for action in actions]
    assert entries[-1].address == "::1" and entries[-1].actor == "ann"


def test_a_resume_ends_a_pause_that_the_leader_made(catalog: Catalog) -> None:
    made = catalog.create(_document("a", pause_after=2), "ann")
    assert catalog.set_enabled("a", True, "ann").revision == 1, "nothing to do"
    assert catalog.set_enabled("a", False, "ann").revision == 2
    assert catalog.set_enabled("a", True, "ann").revision == 3
    held = Done(int(made.created_at), held="2 failures in a row", held_for="failures", held_revision=3, held_at=7.0)
    catalog.client.put(catalog.keys.done(made.id), held.encode())
    view = catalog.get("a")
    assert (view.enabled, view.on, view.held, view.next_fire_at()) == (True, False, "2 failures in a row", None)
    resumed = catalog.set_enabled("a", True, "bob")
    assert (resumed.revision, resumed.held, resumed.on) == (4, "", True) and resumed.next_fire_at() is not None
    assert [v.action for v in catalog.versions("a").items] == ["resume", "resume", "pause", "create"]
    assert resumed.standing is not None
    assert catalog.list().items[0].standing == replace(resumed.standing, taken_in=None)


def test_a_name_is_free_again_and_its_generation_rises(catalog: Catalog) -> None:
    first = catalog.create(_document("n"), "ann")
    with pytest.raises(Conflict, match="already"):
        catalog.create(_document("n"), "bob")
    catalog.delete("n", "ann")
    second = catalog.create(_document("n"), "ann")
    assert second.id != first.id and (first.generation, second.generation) == (1, 2)
    other = catalog.create(_document("N"), "ann")
    assert other.generation == 1  # names differ by case
    with pytest.raises(Conflict):
        catalog.update(other.id, _document("n"), None, "ann")
    assert catalog.get("N").revision == 1


def test_saving_needs_the_revision_that_was_read(catalog: Catalog) -> None:
    made = catalog.create(_document(), "ann")
    catalog.update(made.id, _document(description="one"), 1, "ann")
    with pytest.raises(Conflict, match="changed by ann"):
        catalog.update(made.id, _document(description="two"), 1, "bob")
    with pytest.raises(Conflict):
        catalog.set_enabled(made.id, False, "bob", revision=1)
    with pytest.raises(Conflict):
        catalog.delete(made.id, "bob", revision=1)
    assert catalog.update(made.id, _document(description="two"), None, "bob").revision == 3
    assert catalog.update(made.id, _document(description="two"), 3, "bob").revision == 3  # nothing new: no revision
    assert catalog.set_enabled(made.id, True, "bob").revision == 3


def test_many_webs_save_one_job(catalog: Catalog, etcd: EtcdServer) -> None:
    """Of those that read the same revision one wins; what is live in the end is what was saved last."""
    made = catalog.create(_document(), "ann")

    def save(number: int) -> bool:
        with Client([etcd.endpoint]) as client:
            mine = Catalog(catalog.db, client, catalog.keys, SEALER)
            saved = 0
            for turn in range(4):
                revision = mine.get(made.id).revision
                try:
                    mine.update(made.id, _document(description=f"{number}/{turn}"), revision, f"web{number}")
                    saved += 1
                except Conflict:
                    continue
            return saved > 0

    with ThreadPoolExecutor(4) as pool:
        assert any(pool.map(save, range(4)))
    view = catalog.get(made.id)
    live = _live(catalog, made.id)
    assert live is not None and view.live_revision == view.revision == live.revision
    assert live.document == view.document
    revisions = [version.revision for version in catalog.versions(made.id, limit=200).items]
    assert revisions == list(range(view.revision, 0, -1))


def test_two_create_one_name(catalog: Catalog, etcd: EtcdServer) -> None:
    def create(number: int) -> str:
        with Client([etcd.endpoint]) as client:
            try:
                return Catalog(catalog.db, client, catalog.keys, SEALER).create(_document("same"), str(number)).id
            except Conflict:
                return ""

    with ThreadPoolExecutor(6) as pool:
        made = [ident for ident in pool.map(create, range(6)) if ident]
    assert len(made) == 1 and catalog.get("same").id == made[0]


def test_saved_while_etcd_is_away(catalog: Catalog) -> None:
    cut = _cut_off(catalog)
    with pytest.raises(SavedNotLive) as saved:
        cut.create(_document(), "ann")
    view = saved.value.view
    assert (view.revision, view.live_revision) == (1, None) and "not live yet" in str(saved.value)
    assert isinstance(saved.value, Unavailable)
    assert cut.get("a").live_revision is None and cut.list().items[0].live_revision is None
    assert _live(catalog, view.id) is None

    result = catalog.reconcile()
    assert (result.published, result.deleted, result.clean) == ([view.id], [], True)
    assert catalog.get("a").live
    assert catalog.reconcile().published == []

    with pytest.raises(SavedNotLive):
        cut.set_enabled("a", False, "ann")
    assert (catalog.get("a").revision, catalog.get("a").live_revision) == (2, 1)
    with pytest.raises(SavedNotLive):
        cut.delete("a", "ann")
    assert catalog.reconcile().deleted == [view.id]
    live = _live(catalog, view.id)
    assert live is not None and live.deleted


def test_a_name_changes_hands_while_etcd_is_away(catalog: Catalog) -> None:
    """The old holder's tombstone was never published: creating the new one publishes that first."""
    old = catalog.create(_document("n"), "ann")
    with pytest.raises(SavedNotLive):
        _cut_off(catalog).delete("n", "ann")
    new = catalog.create(_document("n"), "ann")
    assert new.live
    live = _live(catalog, old.id)
    assert live is not None and live.deleted
    kv = catalog.client.get(catalog.keys.name("n"))
    assert kv is not None and kv.value.decode() == new.id


def test_two_names_are_swapped_while_etcd_is_away(catalog: Catalog) -> None:
    a, b = catalog.create(_document("a"), "ann"), catalog.create(_document("b"), "ann")
    cut = _cut_off(catalog)
    for ident, name in ((a.id, "spare"), (b.id, "a"), (a.id, "b")):
        with pytest.raises(SavedNotLive):
            cut.update(ident, _document(name), None, "ann")
    assert catalog.reconcile().clean
    held = {kv.key.rsplit("/", 1)[1]: kv.value.decode() for kv in catalog.client.list(catalog.keys.name("")).kvs}
    assert held == {"a": b.id, "b": a.id}
    assert catalog.get(a.id).live and catalog.get(b.id).live


def test_an_older_database_never_lowers_what_is_live(catalog: Catalog) -> None:
    """M5: restored from a backup, the database knows less than etcd. It is reported, and left."""
    a, b, c = (catalog.create(_document(name), "ann") for name in "abc")
    catalog.update(a.id, _document("a", description="lost by the restore"), 1, "ann")
    catalog.db.transaction(lambda session: session.execute(update(JobRow).where(JobRow.id == a.id).values(revision=1)))
    for table in (JobVersionRow.job_id, JobRow.id):
        model = table.class_
        catalog.db.transaction(
            lambda session, m=model, t=table: session.execute(
                text(f"DELETE FROM {m.__tablename__} WHERE {t.key} = '{b.id}'")
            )
        )
    before = {kv.key: kv.mod for kv in catalog.client.list(catalog.keys.root).kvs}
    result = catalog.reconcile()
    assert (result.ahead, result.strange, result.published, result.clean) == ([a.id], [b.id], [], False)
    assert {kv.key: kv.mod for kv in catalog.client.list(catalog.keys.root).kvs} == before
    assert catalog.get(c.id).live


def test_an_etcd_that_lost_everything_is_filled_again(catalog: Catalog) -> None:
    views = [catalog.create(_document(f"job{n}"), "ann") for n in range(5)]
    catalog.delete("job4", "ann")
    catalog.client.delete_prefix(catalog.keys.root)
    result = catalog.reconcile()
    assert sorted(result.published) == sorted(view.id for view in views[:4])
    assert all(item.live for item in catalog.list().items)
    kv = catalog.client.get(catalog.keys.done(views[0].id))
    assert kv is not None and Done.read(kv.value).upto_at > 1_700_000_000


def test_reconcile_races_with_saves(catalog: Catalog, etcd: EtcdServer) -> None:
    made = catalog.create(_document(), "ann")

    def reconcile(_: int) -> None:
        with Client([etcd.endpoint]) as client:
            for _ in range(5):
                result = Catalog(catalog.db, client, catalog.keys, SEALER).reconcile()
                assert not result.ahead and not result.strange

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(reconcile, number) for number in range(2)]
        for number in range(15):
            catalog.update(made.id, _document(description=str(number)), None, "ann")
        for future in running:
            future.result(60)
    assert catalog.get(made.id).live


def test_an_instant_that_is_over_is_refused_before_it_is_saved(catalog: Catalog) -> None:
    past, soon = rfc3339(int(time.time()) - 5), rfc3339(int(time.time()) + 3600)
    with pytest.raises(Invalid) as refused:
        catalog.create(_document(schedule={"at": past}), "ann")
    assert refused.value.field == "schedule.at"
    assert catalog.count() == 0
    made = catalog.create(_document(schedule={"at": soon}), "ann")
    with pytest.raises(Invalid):
        catalog.update(made.id, _document(schedule={"at": past}), 1, "ann")
    assert catalog.get(made.id).revision == 1
    catalog.create(_document("b", schedule={"at": past}, enabled=False), "ann")


def test_an_instant_that_passes_while_etcd_is_away_is_recorded(catalog: Catalog) -> None:
    with pytest.raises(SavedNotLive) as saved:
        _cut_off(catalog).create(_document(schedule={"at": rfc3339(int(time.time()) + 2)}), "ann")
    until(lambda: time.time() > saved.value.view.job.schedules[0].anchor, 5)
    assert catalog.reconcile().published == [saved.value.view.id]
    assert catalog.client.count(catalog.keys.outs) == 1


def test_a_bad_document_changes_nothing(catalog: Catalog) -> None:
    for bad in ({}, _document(unknown=1), _document(schedule={"cron": "61 * * * *"}), _document(chain=1)):
        with pytest.raises(Invalid):
            catalog.create(bad, "ann")
    assert catalog.count() == 0 and catalog.client.count(catalog.keys.root) == 0


def test_lists(catalog: Catalog) -> None:
    names = ["billing/a", "billing/b", "Billing/c", "ops/100%_sure", "ops/é", "z"]
    for name in names:
        catalog.create(_document(name, description="needle in z" if name == "z" else ""), "ann")
    catalog.set_enabled("billing/b", False, "ann")

    def listed(**wanted: Any) -> list[str]:
        return [item.name for item in catalog.list(**wanted).items]

    assert listed() == sorted(names)
    assert listed(folder="billing/") == ["billing/a", "billing/b"]
    assert listed(q="BILLING") == ["Billing/c", "billing/a", "billing/b"]
    assert listed(q="%_") == ["ops/100%_sure"]
    assert listed(q="Needle") == ["z"]
    assert listed(enabled=False) == ["billing/b"]
    assert (catalog.count(q="billing"), catalog.count(folder="ops/"), catalog.count(enabled=True)) == (3, 2, 5)
    found: list[str] = []
    cursor = None
    while True:
        page = catalog.list(limit=2, cursor=cursor)
        assert all(item.live for item in page.items)
        found += [item.name for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == sorted(names)
    with pytest.raises(Invalid):
        catalog.list(cursor="nonsense")
    with pytest.raises(Invalid):
        catalog.list(q="x" * 500)


def test_a_lost_commit_answer_makes_one_job(client: Client, keys: Keys) -> None:
    server = shared_maria()
    plain = server.fresh()
    Database(plain).upgrade()
    with Proxy(f"http://127.0.0.1:{server.port}") as proxy:
        port = proxy.endpoint.rsplit(":", 1)[1]
        catalog = Catalog(Database(plain.replace(f":{server.port}/", f":{port}/")), client, keys, SEALER)
        catalog.db.ping()
        proxy.lose_answer(b"COMMIT")
        made = catalog.create(_document(), "ann")
        assert proxy.lost == 1 and (made.revision, made.live) == (1, True)
        proxy.lose_answer(b"COMMIT")
        assert proxy.lost == 1
        catalog.update(made.id, _document(description="x"), 1, "ann")
        for _ in range(3):
            if proxy.lost == 2:
                break
            catalog.db.transaction(lambda session: session.execute(text("SELECT 1")))
        proxy.lose_answer(b"COMMIT")
        catalog.delete(made.id, "ann")
    sure = Catalog(Database(plain), client, keys, SEALER)
    assert [version.action for version in sure.versions(made.id).items] == ["delete", "update", "create"]
    assert len(audit.list_entries(sure.db, kind="job").items) == 3


def test_previews() -> None:
    found = preview({"schedule": {"cron": "30 1 * * *", "timezone": "Asia/Shanghai"}}, 2, after=1_790_000_000.0)
    assert [fire.local for fire in found.fires] == ["2026-09-22T01:30:00+08:00", "2026-09-23T01:30:00+08:00"]
    assert (found.fires[0].weekday, found.fires[0].offset, found.timezone) == (1, "+0800", "Asia/Shanghai")
    assert found.fires[0].relative_seconds == found.fires[0].at - 1_790_000_000
    assert "01:30" in found.words
    assert preview({"schedule": None}).fires == []
    with pytest.raises(Invalid):
        preview({"schedule": {"every": "1m"}}, 0)
