"""Writes the reference pages that follow from the code: settings, command line, REST. `--check` only compares.

A test runs the comparison, so the pages cannot lie for long.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from crony import settings
from crony.cli.main import cli

REFERENCE = Path(__file__).parent / "reference"
NOTE = "<!-- Written by docs/generate.py (`make docs`). Change the code, not this page. -->\n\n"


def settings_page() -> str:
    """Every setting as a table."""
    rows = ["| variable | default | about |", "|---|---|---|"]
    for variable, about, default, secret in settings.variables():
        mark = " Secret: also from a file, `" + variable + "_FILE`." if secret else ""
        rows.append(f"| `{variable}` | {_default(default)} | {_cell(about)}.{mark} |")
    about = (
        "Every process reads its settings from environment variables, once, at its start. A `CRONY_` variable that\n"
        "nobody knows is refused with a suggestion. `crony config` shows what a process would see.\n\n"
    )
    return "# Settings\n\n" + NOTE + about + "\n".join(rows) + "\n"


def cli_page() -> str:
    """Every command with its options."""
    parts = ["# The `crony` command\n\n" + NOTE + "Data goes to standard output, hints and errors to standard error.\n"]
    context = click.Context(cli, info_name="crony", **cli.context_settings)
    for path, command, under in _commands(context):
        usage = " ".join(["crony", *path, *command.collect_usage_pieces(under)])
        parts.append(f"## crony {' '.join(path)}\n\n{_about(command)}\n\n```\n{usage}\n```\n")
        records = [
            record
            for parameter in command.get_params(under)
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(under))
        ]
        rows = [f"| `{_cell(name)}` | {_cell(text)} |" for name, text in records if not name.startswith("-h")]
        if rows:
            parts.append("| option | meaning |\n|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


REST_ABOUT = """Everything the console and the `crony` command do goes through these calls. Requests and answers are
JSON; times are
RFC 3339 with offset; unknown fields and parameters are refused. The machine-readable description is at
`/api/v1/openapi.json`.

- **Who you are**: `Authorization: Bearer TOKEN` (`crony token create`), or a signed-in session with its CSRF token.
  Scopes: `viewer` reads, `operator` also runs, pauses and cancels, `admin` also defines jobs, `node` only sends output,
  `service` only registers instances of the service whose name its token bears.
- **Errors** are problem documents (RFC 9457): `type`, `title`, `status`, `detail`, and where
  it helps `field` and `hint`. 401 who are you, 403 you may not, 404 not there, 409 somebody was first, 412 changed
  since you read it, 422 wrong input, 503 a dependency is away and nothing was done.
- **Lists** answer `{"items": […], "next_cursor": …}`; give `cursor` back for the next page.
- **Names in paths** are percent-encoded: `billing/close-day` is `billing%2Fclose-day`. An id does as well.
"""


def rest_page() -> str:
    """Every route of the web's API."""
    from crony.domain.signing import new_key
    from crony.web.app import create_app

    private, public = new_key()
    with tempfile.TemporaryDirectory() as folder:
        given = settings.Settings(database_url=f"sqlite:///{folder}/x.db", signing_key=private, web_keys=(public,))
        paths = create_app(given).openapi()["paths"]
    rows = ["| call | parameters | does |", "|---|---|---|"]
    for path, calls in paths.items():
        for method, call in calls.items():
            names = [f"`{each['name']}`" for each in call.get("parameters", []) if each["in"] != "path"]
            rows.append(f"| `{method.upper()} {path}` | {', '.join(names)} | {_cell(call.get('description', ''))} |")
    return "# The REST API\n\n" + NOTE + REST_ABOUT + "\n" + "\n".join(rows) + "\n"


def _commands(context: click.Context) -> list[tuple[list[str], click.Command, click.Context]]:
    found: list[tuple[list[str], click.Command, click.Context]] = []
    group = context.command
    assert isinstance(group, click.Group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        under = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            if command.invoke_without_command:
                found.append(([name], command, under))
            found += [([name, *path], inner, inner_context) for path, inner, inner_context in _commands(under)]
        else:
            found.append(([name], command, under))
    return found


def _about(command: click.Command) -> str:
    return " ".join((command.help or "").split())


def _default(value: object) -> str:
    if value in ("", (), None):
        return "-"
    if isinstance(value, tuple):
        return f"`{','.join(map(str, value))}`"
    if isinstance(value, bool):
        return "`on`" if value else "`off`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


PAGES = {"settings.md": settings_page, "cli.md": cli_page, "rest.md": rest_page}


def main() -> int:
    """Write the pages, or with `--check` name those that are out of date (exit code 1)."""
    stale = []
    for name, page in PAGES.items():
        path, text = REFERENCE / name, page()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
    print(f"out of date: {', '.join(stale)}" if stale else "up to date")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
