"""The job form: between the fields people fill in and the document. What a form cannot say is edited as a document."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from crony.domain.check import load_json
from crony.domain.job import parse
from crony.errors import Invalid

KINDS = ("shell", "http", "grpc", "python")
DEFAULTS: dict[str, str] = {
    "name": "", "description": "", "enabled": "1", "paused_until": "", "tags": "", "owner": "",
    "schedule_kind": "cron", "cron": "0 2 * * *", "dialect": "cron", "every": "5m", "after": "", "at": "",
    "timezone": "UTC", "dst": "", "start": "", "end": "", "count": "", "jitter": "",
    "action_kind": "shell", "shell_mode": "command", "command": "", "script": "", "interpreter": "/bin/sh",
    "env": "", "cwd": "", "stdin": "",
    "method": "GET", "url": "", "headers": "", "body_kind": "none", "body": "", "expect_status": "", "verify_tls": "1",
    "rpc_address": "", "rpc_kind": "method", "rpc_method": "", "rpc_handler": "", "rpc_request": "", "rpc_metadata": "",
    "rpc_tls": "", "rpc_ca": "", "rpc_client_cert": "", "rpc_server_name": "", "rpc_async": "",
    "task": "", "args": "", "kwargs": "",
    "params": "", "timeout": "1h",
    "retry_max": "0", "retry_backoff": "exponential", "retry_delay": "10s", "retry_max_delay": "10m",
    "retry_jitter": "1", "retry_elsewhere": "1",
    "misfire_after": "1m", "misfire_policy": "fire_once", "misfire_within": "7d", "pause_after": "",
    "overlap": "skip", "overlap_limit": "100", "strategy": "weighted", "labels": "", "node": "", "queue": "",
    "parts": "", "priority": "0", "delivery": "at_least_once", "on_node_loss": "", "on_cut": "continue", "limits": "",
    "async_deadline": "", "async_heartbeat": "", "secrets": "",
}  # fmt: skip
"""Every field with its value in an empty form."""

FLAGS = ("enabled", "verify_tls", "rpc_tls", "rpc_async", "retry_jitter", "retry_elsewhere")
"""Check boxes: absent from a form that was sent means off."""

_PATHS = (
    (r"schedule\.(cron|dialect|every|after|at|timezone|dst|start|end|count|jitter)", r"\1"),
    (r"schedule.*", "cron"),
    (r"action\.command.*", "command"),
    (r"action\.(script|interpreter|cwd|stdin|method|url|body|expect_status|verify_tls|task)\b.*", r"\1"),
    (r"action\.json.*", "body"),
    (r"action\.(env|headers|args|kwargs)\b.*", r"\1"),
    (r"action\.tls\.(ca|client_cert|server_name)", r"rpc_\1"),
    (r"action\.(address|service|handler|request|metadata|tls|async)\b.*", r"rpc_\1"),
    (r"retry\.(\w+)", r"retry_\1"),
    (r"async\.(\w+)", r"async_\1"),
    (r"misfire\.(\w+)", r"misfire_\1"),
    (r"routing\.(strategy|labels|node|queue|parts)\b.*", r"\1"),
    (
        r"(tags|params|name|description|owner|timeout|overlap|overlap_limit|priority|enabled|paused_until|pause_after|delivery|on_node_loss|on_cut|limits|secrets)\b.*",
        r"\1",
    ),
)


def field_of(error: Invalid, values: Mapping[str, str]) -> str:
    """The form field an error of the document belongs to; empty: none, it is said above the form."""
    for pattern, field in _PATHS:
        match = re.fullmatch(pattern, error.field)
        if match:
            name = match.expand(field)
            if name == "cron" and values.get("schedule_kind") in ("every", "at"):
                return values["schedule_kind"]
            if name == "rpc_service":
                return "rpc_address"
            if name == "method" and values.get("action_kind") == "grpc":
                return "rpc_method"
            if name == "command" and values.get("shell_mode") == "script":
                return "script"
            return name if name in DEFAULTS else ""
    return error.field if error.field in DEFAULTS else ""


def document(values: Mapping[str, str]) -> dict[str, Any]:
    """The document a filled-in form means. Raises `Invalid` naming the form's field."""
    made: dict[str, Any] = {"name": values["name"], "enabled": values["enabled"] == "1"}
    for key in ("description", "owner"):
        if values[key].strip():
            made[key] = values[key]
    if values["tags"].strip():
        made["tags"] = [tag.strip() for tag in re.split("[,，]", values["tags"]) if tag.strip()]
    if values["paused_until"].strip():
        made["paused_until"] = values["paused_until"].strip()
    when = schedule(values)
    if when is not None:
        made["schedule"] = when
    made["action"] = _ACTIONS.get(values["action_kind"], _shell)(values)
    if values["params"].strip():
        made["params"] = _json(values, "params", dict)
    made["timeout"] = values["timeout"].strip()
    made["retry"] = {
        "max": _whole(values, "retry_max"),
        "backoff": values["retry_backoff"],
        "delay": values["retry_delay"].strip(),
        "max_delay": values["retry_max_delay"].strip(),
        "jitter": values["retry_jitter"] == "1",
        "elsewhere": values["retry_elsewhere"] == "1",
    }
    made["misfire"] = {
        "after": values["misfire_after"].strip(),
        "policy": values["misfire_policy"],
        "within": values["misfire_within"].strip(),
    }
    if values["pause_after"].strip():
        made["pause_after"] = _whole(values, "pause_after")
    made["overlap"], made["overlap_limit"] = values["overlap"], _whole(values, "overlap_limit")
    routing: dict[str, Any] = {"strategy": values["strategy"]}
    if values["labels"].strip():
        routing["labels"] = _pairs(values, "labels", "=", "[,，\n]")
    if values["node"].strip():
        routing["node"] = values["node"].strip()
    if values["queue"].strip():
        routing["queue"] = values["queue"].strip()
    if values["parts"].strip():
        routing["parts"] = _whole(values, "parts")
    made["routing"] = routing
    made["priority"] = _whole(values, "priority")
    made["delivery"], made["on_cut"] = values["delivery"], values["on_cut"]
    if values["limits"].strip():
        names = [name.strip() for name in re.split("[,，\\s]+", values["limits"]) if name.strip()]
        made["limits"] = [name if name.startswith("pool:") else f"pool:{name}" for name in names]
    if values["secrets"].strip():
        made["secrets"] = _pairs(values, "secrets", "=", "\n")
    if values["on_node_loss"]:
        made["on_node_loss"] = values["on_node_loss"]
    if values["async_deadline"].strip() or values["async_heartbeat"].strip():
        made["async"] = {name: values[f"async_{name}"].strip() or None for name in ("deadline", "heartbeat")}
    return made


def fields(stored: Mapping[str, Any]) -> dict[str, str] | None:
    """The form's fields for a stored document; None when the form cannot say all that it says."""
    job = parse(stored)
    full = job.document()
    values = dict(DEFAULTS)
    for key in ("name", "description", "owner", "timeout", "overlap", "delivery", "on_node_loss", "on_cut"):
        values[key] = full[key]
    values["enabled"], values["paused_until"] = _flag(full["enabled"]), full["paused_until"] or ""
    values["tags"], values["priority"] = ", ".join(full["tags"]), str(full["priority"])
    values["overlap_limit"], values["pause_after"] = str(full["overlap_limit"]), str(full["pause_after"] or "")
    when = full["schedule"]
    if isinstance(when, list):
        return None
    values["schedule_kind"] = job.schedules[0].kind if job.schedules else "none"
    if when is not None:
        values[values["schedule_kind"]] = job.schedules[0].text
        values["timezone"], values["dst"] = when["timezone"], when.get("dst", "")
        values |= {name: str(when.get(name, "")) for name in ("start", "end", "count", "jitter")}
        values["dialect"], values["after"] = when.get("dialect", "cron"), when.get("after", "")
    _action_fields(values, full["action"])
    values["params"] = _text(full["params"]) if full["params"] else ""
    for key, value in full["retry"].items():
        values[f"retry_{key}"] = _flag(value) if isinstance(value, bool) else str(value)
    for key, value in full["misfire"].items():
        values[f"misfire_{key}"] = str(value)
    values["limits"] = ", ".join(job.limits)
    values["secrets"] = "\n".join(f"{variable}={name}" for variable, name in job.secrets)
    for key, value in (full["async"] or {}).items():
        values[f"async_{key}"] = value or ""
    values["strategy"] = full["routing"]["strategy"]
    values["labels"] = ", ".join(f"{key}={value}" for key, value in full["routing"]["labels"].items())
    values |= {name: str(full["routing"][name] or "") for name in ("node", "queue", "parts")}
    try:
        same = parse(document(values)).document() == full
    except Invalid:
        return None
    return values if same else None


def read_text(text: str) -> dict[str, Any]:
    """A document written as YAML or JSON; no duplicate keys, no tags. Raises `Invalid` with the line."""
    if text.lstrip().startswith("{"):
        value = load_json(text)
    else:
        try:
            value = yaml.load(text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            where = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
            raise Invalid("", f"the document is not YAML: {error.problem or error.context}{where}") from None
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise Invalid("", f"the document is not YAML: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise Invalid("", "a job must be a mapping of fields", hint="begin with `name: …`")
    return value


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


def schedule(values: Mapping[str, str]) -> dict[str, Any] | None:
    """The `schedule` section a form means; None: by hand only."""
    kind = values["schedule_kind"]
    if kind == "none":
        return None
    if kind not in ("cron", "every", "at"):
        raise Invalid("schedule_kind", "is not one of the choices")
    made: dict[str, Any] = {kind: values[kind].strip()}
    if values["timezone"].strip():
        made["timezone"] = values["timezone"].strip()
    if kind == "every" and values["after"]:
        made["after"] = values["after"]
    if kind == "cron" and values["dst"]:
        made["dst"] = values["dst"]
    if kind != "at":
        made |= {name: values[name].strip() for name in ("start", "end", "jitter") if values[name].strip()}
        if values["count"].strip():
            made["count"] = _whole(values, "count")
    if kind == "cron" and values["dialect"] not in ("", "cron"):
        made["dialect"] = values["dialect"]
    return made


def _shell(values: Mapping[str, str]) -> dict[str, Any]:
    made: dict[str, Any] = {"kind": "shell"}
    if values["shell_mode"] == "script":
        made |= {"script": values["script"], "interpreter": values["interpreter"].strip()}
    else:
        try:
            made["command"] = shlex.split(values["command"])
        except ValueError:
            raise Invalid("command", "has a quote that is not closed", hint="close it, or escape it with \\") from None
        if not made["command"]:
            raise Invalid("command", "is empty", hint="such as: /usr/bin/backup --full")
    if values["env"].strip():
        made["env"] = _pairs(values, "env", "=", "\n", strip=False)
    if values["cwd"].strip():
        made["cwd"] = values["cwd"].strip()
    if values["stdin"]:
        made["stdin"] = values["stdin"]
    return made


def _http(values: Mapping[str, str]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "kind": "http",
        "method": values["method"],
        "url": values["url"].strip(),
        "verify_tls": values["verify_tls"] == "1",
    }
    if values["headers"].strip():
        made["headers"] = _pairs(values, "headers", ":", "\n")
    if values["body_kind"] == "text":
        made["body"] = values["body"]
    elif values["body_kind"] == "json":
        made["json"] = _json(values, "body", object)
    if values["expect_status"].strip():
        codes = re.split(r"[,，\s]+", values["expect_status"].strip())
        if not all(code.isascii() and code.isdigit() and len(code) == 3 for code in codes):
            raise Invalid("expect_status", "must be status codes with commas", hint="such as 200, 204")
        made["expect_status"] = [int(code) for code in codes]
    return made


def _grpc(values: Mapping[str, str]) -> dict[str, Any]:
    where = values["rpc_address"].strip()
    made: dict[str, Any] = {"kind": "grpc", "address" if ":" in where or not where else "service": where}
    made[values["rpc_kind"]] = values[f"rpc_{values['rpc_kind']}"].strip()
    if values["rpc_request"].strip():
        made["request"] = _json(values, "rpc_request", dict)
    if values["rpc_metadata"].strip():
        made["metadata"] = _pairs(values, "rpc_metadata", ":", "\n")
    if values["rpc_tls"] == "1":
        names = ("ca", "client_cert", "server_name")
        made["tls"] = {name: values[f"rpc_{name}"].strip() for name in names if values[f"rpc_{name}"].strip()}
    made["async"] = values["rpc_async"] == "1"
    return made


def _python(values: Mapping[str, str]) -> dict[str, Any]:
    made: dict[str, Any] = {"kind": "python", "task": values["task"].strip()}
    if values["args"].strip():
        made["args"] = _json(values, "args", list)
    if values["kwargs"].strip():
        made["kwargs"] = _json(values, "kwargs", dict)
    return made


_ACTIONS = {"shell": _shell, "http": _http, "grpc": _grpc, "python": _python}


def _action_fields(values: dict[str, str], action: Mapping[str, Any]) -> None:
    values["action_kind"] = action["kind"]
    if action["kind"] == "shell":
        values["shell_mode"] = "script" if "script" in action else "command"
        values["command"] = shlex.join(action.get("command", ()))
        values["script"], values["interpreter"] = action.get("script", ""), action.get("interpreter", "/bin/sh")
        values["env"] = "\n".join(f"{key}={value}" for key, value in action["env"].items())
        values["cwd"], values["stdin"] = action.get("cwd", ""), action.get("stdin", "")
    elif action["kind"] == "http":
        values["method"], values["url"] = action["method"], action.get("url", "")
        values["headers"] = "\n".join(f"{key}: {value}" for key, value in action["headers"].items())
        values["body_kind"] = "json" if "json" in action else "text" if "body" in action else "none"
        values["body"] = _text(action["json"]) if "json" in action else action.get("body", "")
        values["expect_status"] = ", ".join(str(code) for code in action["expect_status"] or ())
        values["verify_tls"] = _flag(action["verify_tls"])
    elif action["kind"] == "grpc":
        tls = action["tls"] or {}
        values["rpc_address"] = action.get("address") or action["service"]
        values["rpc_kind"] = "handler" if "handler" in action else "method"
        values["rpc_method"], values["rpc_handler"] = action.get("method", ""), action.get("handler", "")
        values["rpc_request"] = _text(action["request"]) if action["request"] else ""
        values["rpc_metadata"] = "\n".join(f"{key}: {value}" for key, value in action["metadata"].items())
        values["rpc_tls"], values["rpc_async"] = _flag(action["tls"] is not None), _flag(action["async"])
        values |= {f"rpc_{name}": text for name, text in tls.items()}
    else:
        values["task"] = action["task"]
        values["args"] = _text(action["args"]) if action["args"] else ""
        values["kwargs"] = _text(action["kwargs"]) if action["kwargs"] else ""


def _pairs(values: Mapping[str, str], field: str, mark: str, between: str, *, strip: bool = True) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in re.split(between, values[field]):
        if not line.strip():
            continue
        key, marked, text = line.partition(mark)
        key = key.strip()
        if not marked or not key:
            raise Invalid(
                field, f"has no `{mark}` in `{line.strip()[:40]}`", hint=f"write name{mark}value, one per line"
            )
        if key in found:
            raise Invalid(field, f"gives {key[:40]} twice")
        found[key] = text.strip() if strip else text
    return found


def _json(values: Mapping[str, str], field: str, kind: type) -> Any:
    try:
        value = load_json(values[field])
    except Invalid as error:
        raise Invalid(field, error.problem.replace("the document ", ""), hint=error.hint) from None
    if not isinstance(value, kind):
        raise Invalid(field, "must be an object: {…}" if kind is dict else "must be a list: […]")
    return value


def _whole(values: Mapping[str, str], field: str) -> int:
    text = values[field].strip()
    if not re.fullmatch("[0-9]{1,6}", text, re.ASCII):
        raise Invalid(field, "must be a whole number")
    return int(text)


def _flag(value: bool) -> str:
    return "1" if value else ""


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)
