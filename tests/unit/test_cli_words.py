"""What the command line prints and logs: nothing that a job's name or output could do to a terminal or a log."""

from __future__ import annotations

import io
import json
import logging
import re
import sys

import click
import pytest

from crony import logs
from crony.cli import show
from crony.cli.main import COMMANDS, cli
from crony.errors import Invalid

NASTY = ["\x1b[2J", "a\nb", "a\rb", "\x07", "\x9b31m", "abc\u202egnp", "zero\u200bwidth", "\u2028", "\ud800", "\x00"]


@pytest.mark.parametrize("text", NASTY)
def test_a_cell_obeys_nothing(text: str) -> None:
    shown = show.plain(text)
    assert shown.isprintable() and "\\" in shown


def test_ordinary_text_of_any_language_stays() -> None:
    for text in ("", "plain", "日报/关闭", "Zürich", "🙂", "a  b"):
        assert show.plain(text) == text


def test_output_keeps_lines_and_colours_and_shows_the_rest() -> None:
    text = "ok\n\x1b[31mred\x1b[0m\tx\x1b]0;title\x07\x1b[2J\r\n"
    assert show.harmless(text) == "ok\n\x1b[31mred\x1b[0m\tx\\x1b]0;title\\x07\\x1b[2J\\x0d\n"


def test_tables_line_up_in_chinese_too(capsys: pytest.CaptureFixture[str]) -> None:
    show.table(("NAME", "N"), [("日报", 1), ("ab", None)])
    assert capsys.readouterr().out == "NAME  N\n日报  1\nab    -\n"


def test_an_empty_table_says_so_beside_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    show.table(("NAME",), [], empty="no jobs")
    assert capsys.readouterr() == ("", "no jobs\n")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "-"),
        (0, "0.00s"),
        (9.994, "9.99s"),
        (59.9, "59s"),
        (60, "1m 0s"),
        (3599, "59m 59s"),
        (7260, "2h 1m"),
        (90000, "1d 1h"),
    ],
)
def test_spans_for_people(seconds: float | None, words: str) -> None:
    assert show.span(seconds) == words


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_nobody_gets_colours_who_does_not_want_them(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert show.coloured()
    monkeypatch.setenv(variable, value)
    assert not show.coloured()


def _log(form: str, message: str, *arguments: object, error: bool = False) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.formatter("beat", form, stream))
    logger = logging.Logger("crony.beat")
    logger.addHandler(handler)
    if error:
        try:
            raise ValueError("bad\nvalue")
        except ValueError:
            logger.exception(message, *arguments)
    else:
        logger.info(message, *arguments)
    return stream.getvalue()


def test_a_message_cannot_fake_a_line() -> None:
    text = _log("text", "job %s", "x\n2026-01-01 00:00:00 ERROR beat  all is lost\x1b[2J")
    assert text.count("\n") == 1 and "\x1b" not in text and "\\n2026" in text
    fact = json.loads(_log("json", "job %s", "x\ny"))
    assert (fact["event"], fact["role"], fact["level"]) == ("job x\ny", "beat", "info")


def test_a_traceback_is_indented_in_text_and_a_field_in_json() -> None:
    text = _log("text", "failed", error=True)
    assert all(line.startswith("    ") for line in text.splitlines()[1:])
    assert "ValueError" in json.loads(_log("json", "failed", error=True))["traceback"]


def test_unknown_levels_and_formats_are_refused() -> None:
    with pytest.raises(Invalid, match="CRONY_LOG_LEVEL"):
        logs.setup("beat", level="loud")
    with pytest.raises(Invalid, match="CRONY_LOG_FORMAT"):
        logs.formatter("beat", "xml", io.StringIO())


def _groups() -> list[str]:
    context = click.Context(cli)
    return [name for name in COMMANDS if isinstance(cli.get_command(context, name), click.Group)]


@pytest.mark.parametrize("name", _groups())
def test_the_help_of_all_names_what_each_noun_can_do(name: str) -> None:
    group = cli.get_command(click.Context(cli), name)
    assert isinstance(group, click.Group)
    told = set(re.findall(r"[a-z-]+", COMMANDS[name][1].partition(":")[2] or COMMANDS[name][1]))
    assert set(group.commands) - told == set()


def _options() -> list[tuple[str, click.Option]]:
    found = list[tuple[str, click.Option]]()
    todo = [("crony", cli.get_command(click.Context(cli), name)) for name in COMMANDS]
    while todo:
        path, command = todo.pop()
        assert command is not None
        found += [(f"{path} {command.name}", each) for each in command.params if isinstance(each, click.Option)]
        todo += [(f"{path} {command.name}", each) for each in getattr(command, "commands", {}).values()]
    return found


def test_every_option_says_what_it_is_for() -> None:
    bare = [f"{path} {each.opts[0]}" for path, each in _options() if not each.hidden and not each.help]
    assert bare == []
