"""Who may come in: users, sign-in with a throttle, browser sessions, links that work once, API tokens.

Session ids, links and tokens are 256 random bits, of which only the SHA-256 is stored. A refused
sign-in says nothing about whether the name exists, in words or in time. Rights are read anew at
every request, so a change acts at once.
"""

from __future__ import annotations

import hashlib
import secrets
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from crony.clock import SYSTEM
from crony.domain import ids
from crony.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable, Unknown
from crony.store import audit, passwords
from crony.store.account_models import TokenRow, UserRow, WebSessionRow
from crony.store.bulk import first_wins
from crony.store.db import Database
from crony.store.models import NAME
from crony.store.types import clean


class Role(StrEnum):
    """What a user or token may do; each includes the one after it, but NODE only ingests, SERVICE only registers."""

    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"
    NODE = "node"
    SERVICE = "service"


_RANK = {Role.ADMIN: 3, Role.OPERATOR: 2, Role.VIEWER: 1, Role.NODE: 0, Role.SERVICE: 0}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a request comes from: a user with a session, or a token."""

    kind: str
    """user or token"""
    id: str
    name: str
    role: Role

    def may(self, role: Role | str) -> bool:
        """Whether this includes the rights of `role`. A node token is good for ingest only; admins do that too. One
        of a service registers instances only; operators do that too.
        """
        needed = Role(role)
        if needed is Role.SERVICE:
            return self.role in (Role.SERVICE, Role.OPERATOR, Role.ADMIN)
        if needed is Role.NODE:
            return self.role in (Role.NODE, Role.ADMIN)
        return self.role not in (Role.NODE, Role.SERVICE) and _RANK[self.role] >= _RANK[needed]

    @property
    def actor(self) -> str:
        """The name for audit entries."""
        return self.name if self.kind == "user" else f"token:{self.name}"


@dataclass(frozen=True, slots=True)
class UserView:
    """A user, without secrets."""

    id: str
    name: str
    role: Role
    disabled: bool
    has_password: bool
    created_at: float
    seen_at: float | None


@dataclass(frozen=True, slots=True)
class TokenView:
    """A token, without its secret; `hint` is how it begins."""

    id: str
    name: str
    scope: Role
    hint: str
    created_at: float
    ends_at: float | None
    used_at: float | None
    revoked_at: float | None


def digest(secret: str) -> str:
    """What is stored of a secret: its SHA-256, in hex. The secrets are random, so no salt is needed."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def refused() -> Forbidden:
    """The one answer to every failed sign-in."""
    error = Forbidden("Not signed in", why="the credentials were not accepted", hint="check them, or sign in again")
    error.status = 401
    return error


# -- users -------------------------------------------------------------------------------------


def create_user(db: Database, name: str, role: Role | str, password: str | None = None, *, actor: str) -> UserView:
    """A new user; without a password they can only come in by a link. Raises `Invalid`, `Conflict`."""
    row = new_user(name, role, password)
    entry = audit.entry_id()

    def put(session: Session) -> UserView:
        insert_user(session, row, actor, entry)
        return _user(session.get_one(UserRow, row["id"]))

    return db.transaction(put)


def new_user(name: str, role: Role | str, password: str | None) -> dict[str, object]:
    """The row of a new user, checked; the slow hash is made here, outside any transaction."""
    name = _name(name)
    hashed = None if password is None else passwords.hash_of(passwords.check(password, name))
    now = SYSTEM.wall()
    return {
        "id": ids.fresh("u"),
        "name": name,
        "name_key": name.casefold(),
        "role": _role(role, node=False).value,
        "password": hashed,
        "disabled": False,
        "created_at": now,
        "password_at": now if hashed else None,
        "seen_at": None,
    }


def insert_user(session: Session, row: dict[str, object], actor: str, entry: str) -> None:
    """Insert inside a transaction. Raises `Conflict` when the name is taken."""
    taken = session.scalar(select(UserRow.id).where(UserRow.key == row["name_key"]))
    if taken is not None and taken != row["id"]:
        raise Conflict(f"There is a user {row['name']} already")
    first_wins(session, UserRow, [row])
    if session.scalar(select(UserRow.id).where(UserRow.key == row["name_key"])) != row["id"]:
        raise Conflict(f"There is a user {row['name']} already")
    audit.add(session, entry, actor, "user.create", "user", str(row["name"]), {"role": row["role"]})


def users(db: Database) -> list[UserView]:
    """Every user, by name."""
    return db.read(lambda session: [_user(row) for row in session.scalars(select(UserRow).order_by(UserRow.name))])


def has_users(db: Database) -> bool:
    """Whether anybody can sign in yet."""
    return db.read(lambda session: session.scalar(select(func.count()).select_from(UserRow)) or 0) > 0


def get_user(db: Database, name: str) -> UserView:
    """A user by id or name. Raises `NotFound`."""
    return db.read(lambda session: _user(find_user(session, name)))


def set_password(db: Database, user: str, password: str, *, actor: str) -> None:
    """Set the password of a user (id or name) and end all their sessions."""
    name = get_user(db, user).name
    hashed, entry = passwords.hash_of(passwords.check(password, name)), audit.entry_id()

    def put(session: Session) -> None:
        row = find_user(session, user)
        row.password, row.password_at = hashed, SYSTEM.wall()
        session.execute(delete(WebSessionRow).where(WebSessionRow.user_id == row.id))
        audit.add(session, entry, actor, "user.password", "user", row.name)

    db.transaction(put)


def change_user(
    db: Database, user: str, *, role: Role | str | None = None, disabled: bool | None = None, actor: str
) -> UserView:
    """Change role or disable; a disabled user's sessions end. Raises `Conflict` for the last active admin."""
    entry = audit.entry_id()

    def put(session: Session) -> UserView:
        # all admins locked in id order: two admins who demote each other at once must not both succeed
        admins = (
            select(UserRow).where(UserRow.role == Role.ADMIN.value, UserRow.disabled.is_(False)).order_by(UserRow.id)
        )
        active = list(session.scalars(admins.with_for_update()))
        row = find_user(session, user)
        loses = (role is not None and Role(role) is not Role.ADMIN) or disabled is True
        if loses and [admin.id for admin in active] == [row.id]:
            raise Conflict("This is the last administrator", hint="make somebody else administrator first")
        if role is not None:
            row.role = _role(role, node=False).value
        if disabled is not None:
            row.disabled = disabled
            if disabled:
                session.execute(delete(WebSessionRow).where(WebSessionRow.user_id == row.id))
        audit.add(session, entry, actor, "user.change", "user", row.name, {"role": row.role, "disabled": row.disabled})
        return _user(row)

    return db.transaction(put)


def find_user(session: Session, name: str) -> UserRow:
    """The row of a user by id or name, inside a transaction. Raises `NotFound`."""
    row = session.get(UserRow, name) or session.scalar(select(UserRow).where(UserRow.key == clean(name).casefold()))
    if row is None:
        raise NotFound(f"There is no user {name}")
    return row


# -- tokens ------------------------------------------------------------------------------------

TOKEN_PREFIX = "crony_"
_COARSE = 300.0


def create_token(
    db: Database, name: str, scope: Role | str, *, actor: str, user: str | None = None, lasts: float | None = None
) -> tuple[str, TokenView]:
    """A new API token: its secret (shown this once) and its view. `lasts` in seconds, None: until revoked.

    With `user` (id or name) it also ends when that user is disabled, and never exceeds their role.
    """
    name, role = _name(name), _role(scope, node=True)
    if lasts is not None and not 60 <= lasts <= 10 * 366 * 86400:
        raise Invalid("lasts", "must be between a minute and ten years")
    secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
    ident, now, entry = ids.fresh("k"), SYSTEM.wall(), audit.entry_id()

    def put(session: Session) -> TokenView:
        owner = None if user is None else find_user(session, user).id
        row = {
            "id": ident,
            "name": name,
            "hash": digest(secret),
            "hint": secret[: len(TOKEN_PREFIX) + 4],
            "scope": role.value,
            "user_id": owner,
            "created_at": now,
            "ends_at": None if lasts is None else now + lasts,
            "used_at": None,
            "revoked_at": None,
        }
        first_wins(session, TokenRow, [row])
        audit.add(session, entry, actor, "token.create", "token", ident, {"name": name, "scope": role.value})
        return _token(session.get_one(TokenRow, ident))

    return secret, db.transaction(put)


def authenticate_token(db: Database, secret: str) -> Principal:
    """Who a bearer token speaks for. Raises `Forbidden` (401) for anything not valid now."""
    if not secret.startswith(TOKEN_PREFIX) or len(secret) > 100:
        raise refused()
    now = SYSTEM.wall()

    def look(session: Session) -> tuple[Principal, bool] | None:
        row = session.scalar(select(TokenRow).where(TokenRow.hash == digest(secret)))
        if row is None or row.revoked_at is not None or (row.ends_at is not None and row.ends_at <= now):
            return None
        role = Role(row.scope)
        if row.user_id is not None:
            owner = session.get(UserRow, row.user_id)
            if owner is None or owner.disabled:
                return None
            role = min(role, Role(owner.role), key=_RANK.__getitem__)
        return Principal("token", row.id, row.name, role), row.used_at is None or row.used_at < now - _COARSE

    found = db.read(look)
    if found is None:
        raise refused()
    principal, stale = found
    if stale:
        mine = update(TokenRow).where(TokenRow.id == principal.id).values(used_at=now)
        with suppress(Unavailable, Unknown):  # a note; not worth refusing a request for
            db.transaction(lambda session: session.execute(mine))
    return principal


def tokens(db: Database) -> list[TokenView]:
    """Every token, newest first."""
    return db.read(
        lambda session: [_token(row) for row in session.scalars(select(TokenRow).order_by(TokenRow.id.desc()))]
    )


def revoke_token(db: Database, ident: str, *, actor: str) -> None:
    """End a token now. Raises `NotFound`."""
    entry = audit.entry_id()

    def put(session: Session) -> None:
        row = session.get(TokenRow, ident)
        if row is None:
            raise NotFound(f"There is no token {ident}")
        row.revoked_at = row.revoked_at or SYSTEM.wall()
        audit.add(session, entry, actor, "token.revoke", "token", ident, {"name": row.name})

    db.transaction(put)


def _name(name: str) -> str:
    text = clean(name).strip()
    if not text or len(text) > NAME or any(not character.isprintable() for character in text):
        raise Invalid("name", f"must be 1 to {NAME} printable characters")
    return text


def _role(role: Role | str, *, node: bool) -> Role:
    try:
        found = Role(role)
    except ValueError:
        raise Invalid("role", "must be one of " + ", ".join(Role)) from None
    if found in (Role.NODE, Role.SERVICE) and not node:
        raise Invalid("role", f"{found} is for tokens of {found}s, not for people")
    return found


def _user(row: UserRow) -> UserView:
    return UserView(
        row.id, row.name, Role(row.role), row.disabled, row.password is not None, row.created_at, row.seen_at
    )


def _token(row: TokenRow) -> TokenView:
    return TokenView(
        row.id, row.name, Role(row.scope), row.hint, row.created_at, row.ends_at, row.used_at, row.revoked_at
    )  # fmt: skip
