"""Who is who in one data directory: keys of web and centre, tokens of node and command line. Made once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from crony.dev.folder import Folder
from crony.domain.sealing import new_secret_key
from crony.domain.signing import new_key, public_key
from crony.errors import Forbidden
from crony.store import accounts, signin
from crony.store.accounts import Role
from crony.store.db import Database


@dataclass(frozen=True, slots=True)
class Identity:
    """Paths of the secrets, for `CRONY_…_FILE`, the public keys, and what the supervisor itself needs."""

    web_key: str = field(repr=False)
    web_key_file: str
    web_public: str
    centre_key_file: str
    centre_public: str
    secret_key_file: str
    node_token_file: str
    token: str = field(repr=False)
    """The command line's own token (admin)."""


def identify(folder: Folder, database: Database) -> Identity:
    """The identity of this directory; what is missing, or not known to the database, is made."""
    keys = folder.secret("keys", lambda: {"web": new_key()[0], "centre": new_key()[0]})
    sealing = folder.secret("secret-key", lambda: {"key": new_secret_key()})
    tokens = folder.secret("tokens", lambda: _tokens(database), sound=lambda found: _known(database, found.values()))
    return Identity(
        web_key=keys["web"],
        web_key_file=str(folder.secret_file("web.key", keys["web"])),
        web_public=public_key(keys["web"]),
        centre_key_file=str(folder.secret_file("centre.key", keys["centre"])),
        centre_public=public_key(keys["centre"]),
        secret_key_file=str(folder.secret_file("secret.key", sealing["key"])),
        node_token_file=str(folder.secret_file("node.token", tokens["node"])),
        token=tokens["command"],
    )


def sign_in_link(database: Database, base_url: str) -> str:
    """A link that works once: makes the first user, or signs the oldest admin in."""
    for user in sorted(accounts.users(database), key=lambda user: user.created_at):
        if user.role is Role.ADMIN and not user.disabled:
            return signin.one_time_link(database, base_url, user=user.id, actor="crony dev")
    return signin.one_time_link(database, base_url, actor="crony dev")


def _tokens(database: Database) -> dict[str, str]:
    return {
        "node": accounts.create_token(database, "crony dev: node", Role.NODE, actor="crony dev")[0],
        "command": accounts.create_token(database, "crony dev: command line", Role.ADMIN, actor="crony dev")[0],
    }


def _known(database: Database, secrets: Iterable[str]) -> bool:
    try:
        for secret in secrets:
            accounts.authenticate_token(database, secret)
    except Forbidden:
        return False
    return True
