"""Job documents out of YAML and JSON files, read strictly: what a person did not write must not be guessed.

Refused with line and column: duplicate keys, tags, anchors and aliases. Not YAML 1.1's surprises either:
`no` and `on` stay text, `12:30` stays text, dates stay text.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from crony.errors import Invalid

LIMIT = 8 * 1024 * 1024
"""Most bytes of one file."""


class _Loader(yaml.SafeLoader):
    """YAML as JSON has it: null, booleans, integers, floats, text; lists and mappings."""

    def __init__(self, stream: str, name: str) -> None:
        super().__init__(stream)
        self.name = name
        self.depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise _at(self.name, self.peek_event().start_mark, "aliases are not taken")  # type: ignore[no-untyped-call]
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "anchor", None):
            raise _at(self.name, event.start_mark, "anchors are not taken")
        if getattr(event, "tag", None):
            raise _at(self.name, event.start_mark, f"the tag {event.tag} is not taken")
        self.depth += 1
        if self.depth > 40:
            raise _at(self.name, event.start_mark, "is nested too deeply")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _at(self.name, key.start_mark, "a key must be text")
            if key.value in seen:
                raise _at(self.name, key.start_mark, f"the key {key.value!r} stands here twice")
            seen.add(key.value)
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}

    def construct_yaml_float(self, node: Any) -> float:
        value = float(node.value)
        if math.isinf(value):
            raise _at(self.name, node.start_mark, f"{node.value} is too large for a number")
        return value


_Loader.yaml_implicit_resolvers = {}
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_mapping)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", list("-+0123456789")),
    ("float", r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789")),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def read_text(name: str) -> str:
    """The text of a file, `-` being standard input. Raises `Invalid` that says why it is none."""
    try:
        if name == "-":
            raw = sys.stdin.buffer.read(LIMIT + 1) if hasattr(sys.stdin, "buffer") else sys.stdin.read().encode()
        else:
            path = Path(name)
            if path.is_dir():
                raise Invalid(name, "is a directory, not a file")
            with open(path, "rb") as file:
                raw = file.read(LIMIT + 1)
    except OSError as error:
        raise Invalid(name, f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise Invalid(name, "is not the name of a file") from None
    shown = "standard input" if name == "-" else name
    if len(raw) > LIMIT:
        raise Invalid(shown, f"is larger than {LIMIT // 1024 // 1024} MiB")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise Invalid(shown, f"is not UTF-8 text (line {line})", hint="is it a binary file?") from None
    if "\0" in text:
        raise Invalid(shown, "holds NUL bytes", hint="is it a binary file?")
    return text


def read_documents(name: str) -> list[dict[str, Any]]:
    """The job documents of a file: one, a list, several YAML documents, or `jobs: […]`. Raises `Invalid`, with line."""
    text = read_text(name)
    shown = "standard input" if name == "-" else name
    if not text.strip():
        raise Invalid(shown, "is empty")
    values = _json(shown, text) if name.endswith(".json") else _yaml(shown, text)
    documents: list[dict[str, Any]] = []
    for value in values:
        if isinstance(value, dict) and set(value) == {"jobs"} and isinstance(value["jobs"], list):
            value = value["jobs"]
        documents.extend(value if isinstance(value, list) else [value])
    for number, document in enumerate(documents, 1):
        if not isinstance(document, dict):
            raise Invalid(shown, f"document {number} is {_kind(document)}, not a job document")
    return documents


def _yaml(name: str, text: str) -> list[Any]:
    loader = _Loader(text, name)
    found: list[Any] = []
    try:
        while loader.check_data():  # type: ignore[no-untyped-call]
            found.append(loader.get_data())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _at(name, mark, f"this is not YAML: {error.problem or error.context}", _yaml_hint(text, mark)) from None
    except yaml.YAMLError as error:
        raise Invalid(name, f"is not YAML: {' '.join(str(error).split())}") from None
    except (ValueError, RecursionError) as error:
        raise Invalid(name, f"is not YAML that can be taken: {error}") from None
    return [value for value in found if value is not None] or [None]


def _json(name: str, text: str) -> list[Any]:
    def strict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for key, item in pairs:
            if key in value:
                raise Invalid(name, f"the key {key!r} stands twice in one object")
            value[key] = item
        return value

    try:
        return [json.loads(text, object_pairs_hook=strict, parse_constant=_no_constant)]
    except json.JSONDecodeError as error:
        raise Invalid(name, f"line {error.lineno}, column {error.colno}: this is not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise Invalid(name, f"is not JSON that can be taken: {error}") from None


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a number of JSON")


def _at(name: str, mark: Any, why: str, hint: str = "") -> Invalid:
    return Invalid(name, f"line {mark.line + 1}, column {mark.column + 1}: {why}" if mark else why, hint=hint)


def _yaml_hint(text: str, mark: Any) -> str:
    lines = text.splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "YAML is indented with spaces, not with tabs"
    if ": *" in line or ": @" in line:
        return 'put the schedule in quotes: cron: "*/5 * * * *"'
    return ""


def _kind(value: Any) -> str:
    return {type(None): "empty", list: "a list", str: "text", bool: "true or false"}.get(type(value), "a number")


def parents_first(documents: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Job documents in an order in which they can be saved: each behind those that it runs after.

    Otherwise as they came; what makes no sense (a circle, say) stays as it is, for the server to refuse.
    """
    todo, made = list(documents), list[dict[str, Any]]()
    if not any(map(_parents, todo)):
        return todo
    while todo:
        names = {str(each.get("name")) for each in todo}
        ready = next((each for each in todo if not _parents(each) & names), todo[0])
        todo.remove(ready)
        made.append(ready)
    return made


def _parents(document: Mapping[str, Any]) -> set[str]:
    after = document.get("after")
    jobs = after.get("jobs") if isinstance(after, Mapping) else None
    return {each for each in jobs if isinstance(each, str)} if isinstance(jobs, list) else set()
