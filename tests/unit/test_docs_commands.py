"""What the documents tell people to type exists: commands and their options, make targets, settings, named tests."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from crony import settings
from crony.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
GENERATED = {"docs/reference/cli.md", "docs/reference/rest.md", "docs/reference/settings.md"}


def typed(page: str) -> list[list[str]]:
    """The commands in a page's code blocks and in its text, as a shell would split them."""
    text = (ROOT / page).read_text()
    blocks = [block for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S) if language != "yaml"]
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`((?:crony|make) [^`…]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    found: list[list[str]] = []
    for line in lines:
        if not re.search(r"\b(crony|make|web-1) [a-z]", line):
            continue
        words = shlex.shlex(line.replace(r"\|", "|"), posix=True, punctuation_chars="|;&<>")
        words.whitespace_split = True
        command: list[str] = []
        for word in [*words, ";"]:
            if set(word) <= set("|;&<>"):
                found.append(command)
                command = []
            else:
                command.append(word)
    found = [command[4:] if command[:2] == ["docker", "compose"] else command for command in found]
    found = [["crony", *command[1:]] if command[:1] == ["web-1"] else command for command in found]
    return [command for command in found if command[:1] in (["crony"], ["make"]) and len(command) > 1]


def check(arguments: list[str]) -> None:
    """Raises UsageError when there is no such command, or no such option of it."""
    command: click.Command = cli
    context = click.Context(cli, info_name="crony", **cli.context_settings)
    while isinstance(command, click.Group) and arguments:
        name, arguments = arguments[0], arguments[1:]
        found = command.get_command(context, name)
        if found is None:
            raise click.UsageError(f"no command {name!r}", context)
        command, context = found, click.Context(found, info_name=name, parent=context, **found.context_settings)
    if not isinstance(command, click.Group):
        command.make_parser(context).parse_args(list(arguments))


@pytest.mark.parametrize("page", [page for page in PAGES if page not in GENERATED])
def test_commands_and_their_options_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for program, *arguments in typed(page):
        if program == "make":
            asked = [word for word in arguments if "=" not in word]
            assert set(asked) <= targets, f"{page}: make {' '.join(arguments)}"
        else:
            try:
                check(arguments)
            except click.BadOptionUsage:  # a sentence names the option without a value
                continue
            except click.UsageError as error:
                pytest.fail(f"{page}: crony {' '.join(arguments)}: {error.format_message()}")


@pytest.mark.parametrize("page", PAGES)
def test_settings_and_tests_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    known = {variable for variable, *_ in settings.variables()} | settings_of_runs()
    for name in re.findall(r"`(CRONY_[A-Z_]*[A-Z])`", text):
        assert name in known or name.removesuffix("_FILE") in known, f"{page} names {name}"
    for file, test in re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", text):
        assert (ROOT / file).exists(), f"{page} names {file}"
        assert f"def {test}" in (ROOT / file).read_text(), f"{page} names {file}::{test}"


def settings_of_runs() -> set[str]:
    """Variables that Crony sets for the commands it runs, and those of tests and of compose."""
    places = ["crony/workers/runners/shell.py", "crony/workers/calling.py", "deploy/env.example", "tests/mysql/run.sh"]
    files = [file for place in places for file in ([ROOT / place] if (ROOT / place).is_file() else [])]
    files += sorted((ROOT / "tests/helpers").glob("*.py"))
    return {name for file in files for name in re.findall(r"CRONY_[A-Z_]*[A-Z]", file.read_text())}


def test_the_promises_each_name_tests() -> None:
    rows = re.findall(r"^\| (P\d) \|(.*)\|(.*)\|(.*)\|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert [name for name, *_ in rows] == [f"P{number}" for number in range(1, 9)]
    assert all("tests/" in tests and result.strip() for _, _, tests, result in rows)
