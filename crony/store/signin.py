"""Coming in with a browser: passwords with a throttle, links that work once, sessions that end."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from crony.clock import SYSTEM
from crony.domain import ids
from crony.errors import Conflict, CronyError, Forbidden, Unavailable, Unknown
from crony.store import audit, passwords
from crony.store.account_models import LoginLinkRow, LoginTryRow, UserRow, WebSessionRow
from crony.store.accounts import Principal, Role, digest, find_user, insert_user, new_user, refused
from crony.store.bulk import first_wins
from crony.store.db import Database

IDLE = 12 * 3600.0
"""Seconds without a request after which a session ends."""
ABSOLUTE = 7 * 86400.0
"""Seconds after which a session ends in any case."""
SETUP_LINK, SIGNIN_LINK = 24 * 3600.0, 15 * 60.0
"""Seconds a link works: the first one of an installation, later ones."""
_COARSE = 60.0
PAIR_LIMIT, ADDRESS_LIMIT, WINDOW = 8, 60, 900.0
"""Failed sign-ins allowed per name and address, and per address, within the window (seconds)."""


class Throttled(CronyError):
    """Too many failed sign-ins from one place; `retry_after` seconds. Nobody else is kept out by it."""

    status = 429
    exit_code = 4

    def __init__(self, retry_after: float) -> None:
        super().__init__("Too many failed sign-ins from here", hint=f"wait {round(retry_after)} seconds")
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class SessionView:
    """A live browser session. `csrf` must come back with every change it asks for."""

    principal: Principal
    csrf: str
    created_at: float
    seen_at: float
    ends_at: float


@dataclass(frozen=True, slots=True)
class LinkView:
    """What an unused link is for: `setup` asks for name and password, `signin` is for `user`."""

    purpose: str
    user: str | None
    ends_at: float


def csrf_of(session_id: str) -> str:
    """The CSRF token of a session: derived from its id, useless for finding it."""
    return digest("csrf:" + session_id)


# -- password ----------------------------------------------------------------------------------


def sign_in(db: Database, name: str, password: str, *, address: str, agent: str = "") -> tuple[str, SessionView]:
    """A new session id and its view. Raises `Forbidden` (401) or `Throttled`; both say nothing about the name."""
    now = SYSTEM.wall()
    keys = [(digest(f"pair\0{name.casefold()}\0{address}"), PAIR_LIMIT), (digest(f"address\0{address}"), ADDRESS_LIMIT)]
    _throttle(db, keys, now)
    user = db.read(lambda session: session.scalar(select(UserRow).where(UserRow.key == name.strip().casefold()[:255])))
    right = passwords.matches(user.password if user else None, password)
    if user is None or user.disabled or not right:
        _failed(db, [key for key, _ in keys], now)
        raise refused()
    if user.password and passwords.outdated(user.password):
        _rehash(db, user.id, user.password, passwords.hash_of(password))
    db.transaction(lambda session: session.execute(delete(LoginTryRow).where(LoginTryRow.key == keys[0][0])))
    return open_session(db, user.id, address=address, agent=agent)


def _throttle(db: Database, keys: list[tuple[str, int]], now: float) -> None:
    rows = db.read(
        lambda s: {r.key: r for r in s.scalars(select(LoginTryRow).where(LoginTryRow.key.in_([k for k, _ in keys])))}
    )
    for key, limit in keys:
        row = rows.get(key)
        if row is not None and row.failures >= limit and row.last_at > now - WINDOW:
            raise Throttled(max(1.0, row.last_at + WINDOW - now))


def _failed(db: Database, keys: list[str], now: float) -> None:
    def put(session: Session) -> None:
        for key in sorted(keys):
            first_wins(session, LoginTryRow, [{"try_key": key, "failures": 0, "last_at": now}])
            row = session.scalars(select(LoginTryRow).where(LoginTryRow.key == key).with_for_update()).one()
            row.failures = 1 if row.last_at <= now - WINDOW else row.failures + 1
            row.last_at = now

    db.transaction(put)


def _rehash(db: Database, user: str, old: str, new: str) -> None:
    change = update(UserRow).where(UserRow.id == user, UserRow.password == old).values(password=new)
    db.transaction(lambda session: session.execute(change))


# -- sessions ----------------------------------------------------------------------------------


def open_session(db: Database, user: str, *, address: str = "", agent: str = "") -> tuple[str, SessionView]:
    """A new session of a user (id), whose identity was just proved."""
    secret = secrets.token_urlsafe(32)
    db.transaction(lambda session: _insert_session(session, secret, user, address, agent))
    return secret, session_of(db, secret)


def session_of(db: Database, session_id: str) -> SessionView:
    """The live session behind an id. Raises `Forbidden` (401) for anything else."""
    if not 20 <= len(session_id) <= 100:
        raise refused()
    now = SYSTEM.wall()

    def look(session: Session) -> SessionView | None:
        row = session.get(WebSessionRow, digest(session_id))
        if row is None or row.ends_at <= now or row.seen_at + IDLE <= now:
            return None
        user = session.get(UserRow, row.user_id)
        if user is None or user.disabled:
            return None
        principal = Principal("user", user.id, user.name, Role(user.role))
        return SessionView(principal, csrf_of(session_id), row.created_at, row.seen_at, row.ends_at)

    found = db.read(look)
    if found is None:
        raise refused()
    if found.seen_at < now - _COARSE:
        mine = update(WebSessionRow).where(WebSessionRow.hash == digest(session_id)).values(seen_at=now)
        user = update(UserRow).where(UserRow.id == found.principal.id).values(seen_at=now)
        with suppress(Unavailable, Unknown):  # a note; not worth refusing a request for
            db.transaction(lambda session: (session.execute(mine), session.execute(user)))
    return found


def sign_out(db: Database, session_id: str) -> None:
    """End a session."""
    db.transaction(
        lambda session: session.execute(delete(WebSessionRow).where(WebSessionRow.hash == digest(session_id)))
    )


def end_sessions(db: Database, user: str) -> None:
    """End every session of a user (id)."""
    db.transaction(lambda session: session.execute(delete(WebSessionRow).where(WebSessionRow.user_id == user)))


def _insert_session(session: Session, secret: str, user: str, address: str, agent: str) -> None:
    now = SYSTEM.wall()
    row = {
        "hash": digest(secret),
        "user_id": user,
        "created_at": now,
        "seen_at": now,
        "ends_at": now + ABSOLUTE,
        "address": address,
        "agent": agent,
    }
    first_wins(session, WebSessionRow, [row])
    session.execute(update(UserRow).where(UserRow.id == user).values(seen_at=now))


# -- links -------------------------------------------------------------------------------------


def one_time_link(
    db: Database, base_url: str, *, user: str | None = None, role: Role = Role.ADMIN, actor: str = "system"
) -> str:
    """A link that works once: for `user` (id or name) to sign in, without one to make the first user.

    An unused set-up link made earlier stops working. Raises `Conflict` for a set-up link when users exist.
    """
    secret, now, entry = secrets.token_urlsafe(32), SYSTEM.wall(), audit.entry_id()
    purpose = "setup" if user is None else "signin"

    def put(session: Session) -> None:
        who = None if user is None else find_user(session, user)
        if who is None:
            _nobody_yet(session)
            session.execute(delete(LoginLinkRow).where(LoginLinkRow.purpose == "setup", LoginLinkRow.used_by.is_(None)))
        row = {
            "hash": digest(secret),
            "purpose": purpose,
            "user_id": who.id if who else None,
            "role": role.value,
            "created_at": now,
            "ends_at": now + (SETUP_LINK if who is None else SIGNIN_LINK),
            "used_by": None,
            "used_at": None,
        }
        first_wins(session, LoginLinkRow, [row])
        audit.add(session, entry, actor, "link.create", "user", who.name if who else "", {"purpose": purpose})

    db.transaction(put)
    return f"{base_url.rstrip('/')}/signin/link/{secret}"


def look_at_link(db: Database, secret: str) -> LinkView:
    """What a link is for, without using it. Raises `Forbidden` (401) when it is used, expired or not one."""

    def look(session: Session) -> LinkView:
        row = _live_link(session, secret)
        user = session.get(UserRow, row.user_id) if row.user_id else None
        return LinkView(row.purpose, user.name if user else None, row.ends_at)

    return db.read(look)


def use_link(
    db: Database, secret: str, *, name: str = "", password: str | None = None, address: str = "", agent: str = ""
) -> tuple[str, SessionView]:
    """Use a link up: a set-up link makes the first user from name and password; both kinds open a session.

    Of two that use it at once one wins; the other gets `Forbidden` (401). Bad input uses nothing up.
    """
    link = look_at_link(db, secret)
    user = new_user(name, Role.ADMIN, password or "") if link.purpose == "setup" else None
    mine, session_id, entry = ids.fresh("x"), secrets.token_urlsafe(32), audit.entry_id()

    def put(session: Session) -> None:
        taken = update(LoginLinkRow).where(LoginLinkRow.hash == digest(secret), LoginLinkRow.used_by.is_(None))
        session.execute(taken.values(used_by=mine, used_at=SYSTEM.wall()))
        row = _live_link(session, secret, mine)
        who = row.user_id
        if user is not None:
            user["role"] = row.role
            _nobody_yet(session, str(user["id"]))
            insert_user(session, user, "set-up link", entry)
            who = str(user["id"])
        _insert_session(session, session_id, str(who), address, agent)

    db.transaction(put)
    return session_id, session_of(db, session_id)


def forget_expired(db: Database) -> None:
    """Delete sessions, links and throttle counters that are over."""
    now = SYSTEM.wall()

    def put(session: Session) -> None:
        over = or_(WebSessionRow.ends_at <= now, WebSessionRow.seen_at <= now - IDLE)
        session.execute(delete(WebSessionRow).where(over))
        session.execute(delete(LoginLinkRow).where(LoginLinkRow.ends_at <= now - 86400))
        session.execute(delete(LoginTryRow).where(LoginTryRow.last_at <= now - WINDOW))

    db.transaction(put)


def _live_link(session: Session, secret: str, user_of_it: str | None = None) -> LoginLinkRow:
    row = session.get(LoginLinkRow, digest(secret), populate_existing=True)
    if row is None or row.ends_at <= SYSTEM.wall() or row.used_by != user_of_it:
        error = Forbidden(
            "This link does not work any more", why="it was used, or its time is over", hint="ask for a new one"
        )
        error.status = 401
        raise error
    return row


def _nobody_yet(session: Session, but: str = "") -> None:
    others = select(func.count()).select_from(UserRow).where(UserRow.id != but)
    if session.scalar(others):
        raise Conflict("Crony is set up already", hint="an administrator can make users and sign-in links")
