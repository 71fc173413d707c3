"""`crony keys …`: pairs that sign (a web what people define, a centre what nodes run), and keys of secrets at rest."""

from __future__ import annotations

import os
from pathlib import Path

import click

from crony.cli import show
from crony.cli.show import output_option
from crony.errors import Invalid


@click.group()
def keys() -> None:
    """Keys: new pairs for signing, and keys for secrets."""


@keys.command()
@click.option(
    "--save", "path", metavar="FILE", help="Write the private key into this new file (mode 0600), print the public one."
)
@output_option
def new(path: str | None, form: str) -> None:
    """Make a new pair. Give the private key to one web or centre, the public one to those who must trust it."""
    from crony.domain.signing import new_key

    private, public = new_key()
    if path is not None:
        write_secret(Path(path), private)
    pair = {"public": public} if path is not None else {"private": private, "public": public}
    if form == "json":
        return show.data(pair)
    show.facts(pair.items())
    if path is None:
        show.hint("private: CRONY_SIGNING_KEY (or _FILE) of one web or centre; keep it secret")
    show.hint("public: CRONY_WEB_KEYS or CRONY_CENTRE_KEYS of everybody who must trust it")


@keys.command()
@click.option("--save", "path", metavar="FILE", help="Write the key into this new file (mode 0600), print its id.")
@output_option
def secret(path: str | None, form: str) -> None:
    """Make a key that encrypts secrets and the passwords of channels: CRONY_SECRET_KEY of webs, centres, nodes."""
    from crony.domain.sealing import Cipher, new_secret_key

    key = new_secret_key()
    if path is not None:
        write_secret(Path(path), key)
    made = {"id": Cipher([key]).key_ids[0]} if path is not None else {"key": key, "id": Cipher([key]).key_ids[0]}
    if form == "json":
        return show.data(made)
    show.facts(made.items())
    show.hint("CRONY_SECRET_KEY (or _FILE) of every web and centre, and of the nodes that may use secrets")


def write_secret(path: Path, text: str) -> None:
    """A new file that only its owner can read. Raises `Invalid` when it exists already."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text + "\n")
    except FileExistsError:
        raise Invalid(str(path), "exists already, and a key is never overwritten") from None
    except OSError as error:
        raise Invalid(str(path), f"cannot be written: {error.strerror}") from None
