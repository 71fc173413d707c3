"""Accounts: nobody comes in who should not, links work once, rights change at once."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text, update

from crony.errors import Conflict, Forbidden, Invalid, NotFound
from crony.store import accounts, audit, passwords, signin
from crony.store.account_models import LoginTryRow, TokenRow, UserRow, WebSessionRow
from crony.store.accounts import Role
from crony.store.db import Database

pytest_plugins = ["tests.helpers.database_fixtures"]

GOOD = "pine kettle orbit"


def _secret(link: str) -> str:
    return link.rsplit("/", 1)[1]


def _first(db: Database) -> str:
    session_id, _ = signin.use_link(db, _secret(signin.one_time_link(db, "http://x")), name="root", password=GOOD)
    return session_id


def _dump(db: Database) -> str:
    """Everything stored, as text."""
    tables = ("users", "web_sessions", "login_links", "login_tries", "tokens", "audit")
    return db.read(lambda session: repr([session.execute(text(f"SELECT * FROM {table}")).all() for table in tables]))


def test_the_first_user_comes_by_a_link_once(db: Database) -> None:
    assert not accounts.has_users(db)
    link = signin.one_time_link(db, "http://127.0.0.1:8400/")
    assert link.startswith("http://127.0.0.1:8400/signin/link/")
    assert signin.look_at_link(db, _secret(link)).purpose == "setup"
    for bad_name, bad_password in (("", GOOD), ("root", "short"), ("root", "password123"), ("root", None)):
        with pytest.raises(Invalid):
            signin.use_link(db, _secret(link), name=bad_name, password=bad_password)
    session_id, view = signin.use_link(db, _secret(link), name="Root", password=GOOD, address="::1", agent="x" * 999)
    assert (view.principal.name, view.principal.role) == ("Root", Role.ADMIN)
    assert signin.session_of(db, session_id).principal == view.principal
    for _ in range(2):
        with pytest.raises(Forbidden) as refused:
            signin.use_link(db, _secret(link), name="other", password=GOOD)
        assert refused.value.status == 401
    with pytest.raises(Conflict):
        signin.one_time_link(db, "http://x")
    dump = _dump(db)
    for secret in (_secret(link), session_id, GOOD, view.csrf):
        assert secret not in dump


def test_a_newer_setup_link_replaces_the_older(db: Database) -> None:
    old, new = (_secret(signin.one_time_link(db, "http://x")) for _ in range(2))
    with pytest.raises(Forbidden):
        signin.look_at_link(db, old)
    signin.use_link(db, new, name="root", password=GOOD)


def test_of_many_that_use_a_link_one_wins(db: Database) -> None:
    link = _secret(signin.one_time_link(db, "http://x"))

    def use(number: int) -> str:
        try:
            return signin.use_link(db, link, name=f"user{number}", password=GOOD)[1].principal.name
        except (Forbidden, Conflict):
            return ""

    with ThreadPoolExecutor(6) as pool:
        names = [name for name in pool.map(use, range(6)) if name]
    assert len(names) == 1
    assert [user.name for user in accounts.users(db)] == names


def test_signing_in_and_out(db: Database) -> None:
    _first(db)
    session_id, view = signin.sign_in(db, " rOOt ".strip(), GOOD, address="10.0.0.1")
    assert view.principal.may("admin") and view.csrf == signin.csrf_of(session_id) != session_id
    signin.sign_out(db, session_id)
    with pytest.raises(Forbidden):
        signin.session_of(db, session_id)
    for nonsense in ("", "x", "x" * 43, "é" * 43, "x" * 5000):
        with pytest.raises(Forbidden):
            signin.session_of(db, nonsense)


def test_a_refusal_says_nothing_about_the_name(lite: Database) -> None:
    db = lite
    _first(db)
    accounts.create_user(db, "linked", "viewer", actor="root")
    accounts.create_user(db, "gone", "viewer", GOOD, actor="root")
    accounts.change_user(db, "gone", disabled=True, actor="root")
    answers: dict[str, list[Any]] = {}
    times: dict[str, list[float]] = {}
    for turn in range(4):
        for name in ("root", "nobody", "linked", "gone", "x" * 5000, "\0"):
            begun = time.process_time()  # the work, not the waiting for a turn on a busy machine
            with pytest.raises(Forbidden) as refused:
                signin.sign_in(db, name, GOOD if name == "gone" else "not the password", address=f"10.0.0.{turn}")
            times.setdefault(name[:6], []).append(time.process_time() - begun)
            answers.setdefault(name[:6], []).append((str(refused.value), refused.value.status))
    assert len({answer for given in answers.values() for answer in given}) == 1
    middle = {name: statistics.median(taken) for name, taken in times.items()}
    assert max(middle.values()) < 4 * min(middle.values()), middle  # an unhashed answer would be 20 times faster


def test_the_throttle_stops_one_place_not_everybody(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signin, "PAIR_LIMIT", 3)
    _first(db)
    for _ in range(signin.PAIR_LIMIT):
        with pytest.raises(Forbidden):
            signin.sign_in(db, "root", "wrong wrong wrong", address="10.6.6.6")
    with pytest.raises(signin.Throttled) as throttled:
        signin.sign_in(db, "root", GOOD, address="10.6.6.6")
    assert 0 < throttled.value.retry_after <= signin.WINDOW
    assert throttled.value.status == 429
    signin.sign_in(db, "root", GOOD, address="10.0.0.7")  # somebody else's failures lock nobody out
    past = db.read(lambda session: session.query(LoginTryRow.last_at).first()[0]) - signin.WINDOW - 1  # type: ignore[index]
    db.transaction(lambda session: session.execute(update(LoginTryRow).values(last_at=past)))
    signin.sign_in(db, "root", GOOD, address="10.6.6.6")


def test_sessions_end(db: Database) -> None:
    session_id = _first(db)

    def shift(**columns: Any) -> None:
        db.transaction(lambda session: session.execute(update(WebSessionRow).values(**columns)))

    now = time.time()
    shift(seen_at=now - signin.IDLE + 60)
    view = signin.session_of(db, session_id)  # used again in time: seen now
    assert signin.session_of(db, session_id).seen_at > view.seen_at
    shift(seen_at=now - signin.IDLE - 1)
    with pytest.raises(Forbidden):
        signin.session_of(db, session_id)
    shift(seen_at=now, ends_at=now - 1)
    with pytest.raises(Forbidden):
        signin.session_of(db, session_id)
    signin.forget_expired(db)
    assert db.read(lambda session: session.query(WebSessionRow).count()) == 0


def test_changes_act_at_once(db: Database) -> None:
    admin = _first(db)
    accounts.create_user(db, "Ann", "operator", GOOD, actor="root")
    ann, _ = signin.sign_in(db, "ann", GOOD, address="10.0.0.1")
    accounts.change_user(db, "ANN", role="viewer", actor="root")
    assert not signin.session_of(db, ann).principal.may("operator")
    accounts.set_password(db, "ann", "another fine phrase", actor="root")
    with pytest.raises(Forbidden):
        signin.session_of(db, ann)
    ann, _ = signin.sign_in(db, "ann", "another fine phrase", address="10.0.0.1")
    accounts.change_user(db, "ann", disabled=True, actor="root")
    with pytest.raises(Forbidden):
        signin.session_of(db, ann)
    with pytest.raises(Conflict, match="last administrator"):
        accounts.change_user(db, "root", role="viewer", actor="root")
    with pytest.raises(Conflict, match="last administrator"):
        accounts.change_user(db, "root", disabled=True, actor="root")
    assert signin.session_of(db, admin).principal.may("admin")


def test_two_admins_cannot_demote_each_other(db: Database) -> None:
    _first(db)
    accounts.create_user(db, "ann", "admin", GOOD, actor="root")

    def demote(name: str) -> bool:
        try:
            accounts.change_user(db, name, role="viewer", actor="x")
            return True
        except Conflict:
            return False

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(demote, ["root", "ann"])) == [False, True]


def test_names_of_users_are_taken_whatever_their_case(db: Database) -> None:
    accounts.create_user(db, "Ann", "viewer", actor="x")
    for name in ("Ann", "ann", "ANN", " ann "):
        with pytest.raises(Conflict):
            accounts.create_user(db, name, "viewer", actor="x")
    for bad in ("", "  ", "a\nb", "x" * 256, "a\u202eb"):
        with pytest.raises(Invalid):
            accounts.create_user(db, bad, "viewer", actor="x")
    with pytest.raises(Invalid):
        accounts.create_user(db, "bob", "node", actor="x")
    with pytest.raises(NotFound):
        accounts.get_user(db, "bob")


def test_tokens(db: Database) -> None:
    _first(db)
    secret, view = accounts.create_token(db, "ci", "operator", actor="root")
    assert secret.startswith("crony_") and len(secret) == 49 and secret.startswith(view.hint)
    principal = accounts.authenticate_token(db, secret)
    assert (principal.kind, principal.id, principal.role, principal.actor) == (
        "token",
        view.id,
        Role.OPERATOR,
        "token:ci",
    )
    assert accounts.tokens(db)[0].used_at is not None
    assert secret not in _dump(db)
    for wrong in ("", "crony_", secret[:-1], secret + "x", secret.upper(), "Bearer " + secret, "crony_" + "\0" * 43):
        with pytest.raises(Forbidden) as refused:
            accounts.authenticate_token(db, wrong)
        assert refused.value.status == 401
    accounts.revoke_token(db, view.id, actor="root")
    with pytest.raises(Forbidden):
        accounts.authenticate_token(db, secret)
    with pytest.raises(NotFound):
        accounts.revoke_token(db, "k0", actor="root")


def test_tokens_end_and_follow_their_owner(db: Database) -> None:
    _first(db)
    accounts.create_user(db, "ann", "admin", actor="root")
    secret, view = accounts.create_token(db, "mine", "admin", actor="ann", user="ann", lasts=3600)
    assert accounts.authenticate_token(db, secret).role is Role.ADMIN
    accounts.change_user(db, "ann", role="viewer", actor="root")
    assert accounts.authenticate_token(db, secret).role is Role.VIEWER
    db.transaction(lambda session: session.execute(update(UserRow).where(UserRow.name == "ann").values(disabled=True)))
    with pytest.raises(Forbidden):
        accounts.authenticate_token(db, secret)
    db.transaction(lambda session: session.execute(update(UserRow).values(disabled=False)))
    accounts.authenticate_token(db, secret)
    db.transaction(lambda session: session.execute(update(TokenRow).where(TokenRow.id == view.id).values(ends_at=1.0)))
    with pytest.raises(Forbidden):
        accounts.authenticate_token(db, secret)
    with pytest.raises(Invalid):
        accounts.create_token(db, "x", "admin", actor="root", lasts=1)


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("admin", {"admin", "operator", "viewer", "node", "service"}),
        ("operator", {"operator", "viewer", "service"}),
        ("viewer", {"viewer"}),
        ("node", {"node"}),
        ("service", {"service"}),
    ],
)
def test_what_roles_may(role: str, may: set[str]) -> None:
    principal = accounts.Principal("token", "k", "n", Role(role))
    assert {str(wanted) for wanted in Role if principal.may(wanted)} == may


@pytest.mark.parametrize(
    "bad",
    ["", "short", "1234567890", "qwertyuiop", "aaaaaaaaaaaa", "ababababab", "bartholomew1!", "x" * 1025, "\ud800" * 12],
)
def test_passwords_that_are_tried_first_are_refused(bad: str) -> None:
    with pytest.raises(Invalid) as refused:
        passwords.check(bad, "Bartholomew")
    assert refused.value.field == "password"
    assert not bad or bad not in str(refused.value)


def test_long_and_foreign_passwords_work() -> None:
    for good in ("纸船灯塔木马云梯糖果铜锣", "x1z" + "y" * 1021, "p\u00e4ssen wir auf", " leading and trailing "):
        assert passwords.matches(passwords.hash_of(passwords.check(good)), good)
    assert passwords.matches(passwords.hash_of("pa\u0308ssen wir auf"), "p\u00e4ssen wir auf")
    assert not passwords.matches(passwords.hash_of(GOOD), "x" * 100_000)


def test_audit_pages(lite: Database) -> None:
    for number in range(25):
        audit.record(lite, "root", "test", "job", f"j{number % 2}", {"n": number})
    found: list[int] = []
    cursor = None
    while True:
        page = audit.list_entries(lite, limit=7, cursor=cursor)
        found += [entry.detail["n"] for entry in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert sorted(found) == list(range(25))
    assert len(audit.list_entries(lite, kind="job", target="j1", limit=200).items) == 12
