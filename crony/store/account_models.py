"""The tables of people and machines that sign in, and of what was done: users, sessions, links, tokens, audit."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from crony.store.models import ID, MYSQL, NAME, Base
from crony.store.types import Json, Words


class UserRow(Base):
    """A person who signs in. `key` is the name folded for comparing; no password hash: sign-in by link only."""

    __tablename__ = "users"
    id: Mapped[str] = mapped_column(String(ID), primary_key=True)
    name: Mapped[str]
    key: Mapped[str] = mapped_column("name_key", String(NAME))
    role: Mapped[str] = mapped_column(String(20))
    password: Mapped[str | None]
    disabled: Mapped[bool]
    created_at: Mapped[float]
    password_at: Mapped[float | None]
    seen_at: Mapped[float | None]
    __table_args__ = (UniqueConstraint("name_key", name="uq_users_key"), MYSQL)


class WebSessionRow(Base):
    """A signed-in browser. Only the SHA-256 of the session id is stored."""

    __tablename__ = "web_sessions"
    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(ID))
    created_at: Mapped[float]
    seen_at: Mapped[float]
    ends_at: Mapped[float]
    address: Mapped[str] = mapped_column(Words(64))
    agent: Mapped[str] = mapped_column(Words(NAME))
    __table_args__ = (Index("ix_web_sessions_user", "user_id"), Index("ix_web_sessions_ends", "ends_at"), MYSQL)


class LoginLinkRow(Base):
    """A sign-in link that works once. Only its SHA-256 is stored; `used_by` names the request that used it."""

    __tablename__ = "login_links"
    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    purpose: Mapped[str] = mapped_column(String(20))
    user_id: Mapped[str | None] = mapped_column(String(ID))
    role: Mapped[str] = mapped_column(String(20))
    created_at: Mapped[float]
    ends_at: Mapped[float]
    used_by: Mapped[str | None] = mapped_column(String(ID))
    used_at: Mapped[float | None]
    __table_args__ = (Index("ix_login_links_ends", "ends_at"), MYSQL)


class LoginTryRow(Base):
    """Failed sign-ins under one key (account and address, or address), for the throttle."""

    __tablename__ = "login_tries"
    key: Mapped[str] = mapped_column("try_key", String(64), primary_key=True)
    failures: Mapped[int]
    last_at: Mapped[float]
    __table_args__ = (Index("ix_login_tries_last", "last_at"), MYSQL)


class TokenRow(Base):
    """An API token. Only its SHA-256 is stored; `hint` is its beginning, for recognising it."""

    __tablename__ = "tokens"
    id: Mapped[str] = mapped_column(String(ID), primary_key=True)
    name: Mapped[str] = mapped_column(Words(NAME))
    hash: Mapped[str] = mapped_column(String(64))
    hint: Mapped[str] = mapped_column(String(20))
    scope: Mapped[str] = mapped_column(String(20))
    user_id: Mapped[str | None] = mapped_column(String(ID))
    created_at: Mapped[float]
    ends_at: Mapped[float | None]
    used_at: Mapped[float | None]
    revoked_at: Mapped[float | None]
    __table_args__ = (UniqueConstraint("hash", name="uq_tokens_hash"), MYSQL)


class AuditRow(Base):
    """Who did what when; rows are only ever added."""

    __tablename__ = "audit"
    id: Mapped[str] = mapped_column(String(ID), primary_key=True)
    at: Mapped[float]
    actor: Mapped[str] = mapped_column(Words(NAME))
    action: Mapped[str] = mapped_column(String(40))
    kind: Mapped[str] = mapped_column("target_kind", String(20))
    target: Mapped[str] = mapped_column("target_id", Words(NAME))
    detail: Mapped[Any] = mapped_column(Json, nullable=True)
    address: Mapped[str] = mapped_column(Words(64))
    __table_args__ = (
        Index("ix_audit_at", "at", "id"),
        Index("ix_audit_target", "target_kind", "target_id", "at"),
        MYSQL,
    )
