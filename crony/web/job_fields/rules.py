"""The rules of a job's runs: how long, how often, what when one is late or alive, when its node is lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crony.domain.job import Job
from crony.web.job_fields.reading import flag, given, lines, names, pairs, parsed, whole, written

DEFAULTS = {
    "params": "", "secrets": "", "timeout": "1h", "priority": "0", "limits": "",
    "retry_max": "0", "retry_backoff": "exponential", "retry_delay": "10s", "retry_max_delay": "10m",
    "retry_jitter": "1", "retry_elsewhere": "1",
    "misfire_after": "1m", "misfire_policy": "fire_once", "misfire_within": "7d", "pause_after": "",
    "overlap": "skip", "overlap_limit": "100", "delivery": "at_least_once", "on_node_loss": "", "on_cut": "continue",
    "async_deadline": "", "async_heartbeat": "", "output_limit": "", "output_keep": "",
}  # fmt: skip
FLAGS = ("retry_jitter", "retry_elsewhere")
PATHS = (
    (r"(retry|async|misfire|output)\.(\w+)", r"\1_\2"),
    (r"(params|secrets|timeout|priority|limits|pause_after|overlap|overlap_limit|delivery|on_node_loss|on_cut)\b.*",
     r"\1"),
)  # fmt: skip


def document(values: Mapping[str, str]) -> dict[str, Any]:
    """These sections of the document. Raises `Invalid`."""
    made: dict[str, Any] = {name: values[name].strip() for name in ("timeout", "overlap", "delivery", "on_cut")}
    made |= given(values, ("on_node_loss",))
    made |= {name: whole(values, name) for name in ("overlap_limit", "priority")}
    if values["params"].strip():
        made["params"] = parsed(values, "params", dict)
    if values["secrets"].strip():
        made["secrets"] = pairs(values, "secrets", "=", "\n")
    if values["pause_after"].strip():
        made["pause_after"] = whole(values, "pause_after")
    pools = names(values, "limits", "[,，\\s]+")
    if pools:
        made["limits"] = [name if name.startswith("pool:") else f"pool:{name}" for name in pools]
    made["retry"] = {
        "max": whole(values, "retry_max"),
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
    later = ("deadline", "heartbeat")
    if given(values, later, "async_"):
        made["async"] = {name: values[f"async_{name}"].strip() or None for name in later}
    kept = given(values, ("limit", "keep"), "output_")
    if kept:
        limit = kept.get("limit", "")
        size = whole(values, "output_limit") if limit.isdigit() else limit or None
        made["output"] = {"limit": size, "keep": whole(values, "output_keep") if "keep" in kept else None}
    return made


def fields(job: Job, full: Mapping[str, Any]) -> dict[str, str]:
    """The fields of these sections; `full` is the job's document in normal form."""
    texts = ("timeout", "priority", "overlap", "overlap_limit", "delivery", "on_node_loss", "on_cut")
    found = {name: str(full[name]) for name in texts}
    for section in ("retry", "misfire", "async", "output"):
        for key, value in (full[section] or {}).items():
            found[f"{section}_{key}"] = flag(value) if isinstance(value, bool) else "" if value is None else str(value)
    if full["on_node_loss"] == ("fail" if full["delivery"] == "at_most_once" else "rerun"):
        found["on_node_loss"] = ""
    return found | {
        "params": written(full["params"], empty=""),
        "secrets": lines(dict(job.secrets), "="),
        "limits": ", ".join(job.limits),
        "pause_after": str(full["pause_after"] or ""),
    }
