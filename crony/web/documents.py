"""Documents as text: read strictly from YAML or JSON, written as YAML the way people write it."""

from __future__ import annotations

from typing import Any

import yaml

from crony.domain.check import load_json
from crony.errors import Invalid


def read(text: str) -> dict[str, Any]:
    """A document written as YAML or JSON; no duplicate keys, no tags. Raises `Invalid` with the line."""
    value = load_json(text) if text.lstrip().startswith("{") else read_yaml(text)
    if not isinstance(value, dict):
        raise Invalid("", "a job must be a mapping of fields", hint="begin with `name: …`")
    return value


def read_yaml(text: str) -> Any:
    """What a text says as YAML, by the same rules. Raises `Invalid` with the line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        where = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise Invalid("", f"the document is not YAML: {error.problem or error.context}{where}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise Invalid("", f"the document is not YAML: {str(error)[:200]}") from None


def write(value: Any) -> str:
    """A document as YAML: its fields in their order, block text for scripts, no anchors."""
    text: str = yaml.dump(value, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=100)
    return text


class _Loader(yaml.SafeLoader):
    """Safe loading that refuses duplicate keys and anchors (which can repeat themselves without end)."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, "a field name must be text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(
                None, None, "aliases are not taken here", parent.start_mark if parent else None
            )
        return super().compose_node(parent, index)


# `on` is the name of a field, not a word for true; as in files that the command line reads.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:bool" or first in "tTfF"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
# Written as it is read: `on` is a field of documents.
_Dumper.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:bool" or first not in "oO"]
    for first, found in yaml.SafeDumper.yaml_implicit_resolvers.items()
}
