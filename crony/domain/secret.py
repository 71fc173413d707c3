"""Secrets: values that jobs name and nobody sees again. A job says `secrets: {DB_PASSWORD: reports-db}`.

At rest a secret is a ciphertext. A command has it in its environment, headers, bodies, metadata and keyword arguments
as `{{secret.DB_PASSWORD}}`; nowhere else may one be written, because it would be seen there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from crony.domain.check import fields, join, raw_text, texts
from crony.domain.record import Record
from crony.errors import Invalid

SHORTEST, LONGEST = 4, 16 * 1024
"""Bytes of a secret. A shorter one would be masked in every other word of an output."""
MOST_OF_A_JOB = 20
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_USE = re.compile(r"\{\{\s*secret\.([^{}]*?)\s*\}\}")
_WHERE = {
    "http": ("headers", "body", "json"),
    "grpc": ("metadata", "request"),
    "python": ("kwargs",),
}
"""Fields of an action that secrets may be written into, by its kind."""


@dataclass(frozen=True, slots=True)
class Secret(Record):
    """`obj/secret/<name>`, sealed by a web; `deleted` is a tombstone and has no ciphertext."""

    name: str
    ciphertext: str = ""
    description: str = ""
    revision: int = 0
    deleted: bool = False

    def document(self) -> dict[str, Any]:
        """What is stored."""
        return {"name": self.name, "description": self.description, "ciphertext": self.ciphertext}


def place_of(name: str) -> str:
    """Where the ciphertext of a secret rests: it opens nowhere else."""
    return f"secret/{name}"


def parse_secret(document: Any) -> tuple[str, str | None, str | None]:
    """Name, value and description of a document; None is what it leaves out. Raises `Invalid`, never with the value."""
    given = fields(document, "", ("name", "value", "description"))
    name, value, about = secret_name(given.get("name")), given.get("value"), given.get("description")
    if value is not None:
        value = raw_text(value, "value", most=LONGEST)
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise Invalid("value", "has half of a surrogate pair", hint="write valid Unicode") from None
        if size < SHORTEST:
            raise Invalid("value", f"is shorter than {SHORTEST} bytes", hint="so short a text cannot be masked")
    if about is not None:
        about = texts(about, "description", least=0, most=2000, lines=True)
    return name, value, about


def secret_name(value: Any, field: str = "name") -> str:
    """A secret's name. Raises `Invalid`."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise Invalid(field, "is not the name of a secret", hint="use a-z, 0-9 and . _ -, at most 63 characters")
    return value


def parse_secrets(value: Any, field: str = "secrets") -> tuple[tuple[str, str], ...]:
    """The field `secrets` of a job: what each is called in it, and its name. Raises `Invalid`."""
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        raise Invalid(field, "must be a mapping", hint="write {DB_PASSWORD: reports-db}")
    if len(value) > MOST_OF_A_JOB:
        raise Invalid(field, f"has {len(value)} secrets; at most {MOST_OF_A_JOB}", hint="shorten it")
    found = []
    for variable, name in value.items():
        path = join(field, str(variable))
        if not isinstance(variable, str) or not _VARIABLE.fullmatch(variable):
            raise Invalid(path, "is not a variable name", hint="use letters, digits and _")
        found.append((variable, secret_name(name, path)))
    return tuple(found)


def check_uses(action: Mapping[str, Any], secrets: Collection[str], field: str = "action") -> None:
    """Secrets stand only where nobody sees them, and are among the job's own. Raises `Invalid` naming the field."""
    where = _WHERE.get(str(action.get("kind")), ())
    for name, value in action.items():
        for path, used in _uses(value, f"{field}.{name}"):
            if name not in where:
                into = " or ".join(where)
                hint = f"write it into {into}" if into else "it is a variable of the environment"
                raise Invalid(path, f"has the secret {used}, which would be seen there", hint=hint)
            if used not in secrets:
                raise Invalid(path, f"has the secret {used}, which this job does not name", hint="add it to `secrets`")


def _uses(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield from ((path, match[1][:60]) for match in _USE.finditer(value))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _uses(str(key), path)
            yield from _uses(item, join(path, str(key)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _uses(item, f"{path}[{index}]")


def fill(value: Any, secrets: Mapping[str, str]) -> Any:
    """A value with the secrets in its texts (not in keys) filled in; what is not among them stays as it is written."""
    if isinstance(value, str):
        return _USE.sub(lambda match: secrets.get(match[1], match[0]), value)
    if isinstance(value, Mapping):
        return {key: fill(item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [fill(item, secrets) for item in value]
    return value


def filled(action: Mapping[str, Any], secrets: Mapping[str, str]) -> dict[str, Any]:
    """An action with its secrets filled in, where the runner has no templates of its own."""
    where = _WHERE["python"] if action.get("kind") == "python" else ()
    return {name: fill(value, secrets) if name in where else value for name, value in action.items()}
