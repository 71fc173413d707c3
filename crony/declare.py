"""Jobs declared beside the function that performs them: `@crony.job(name=…, schedule=…)`.

A declaration changes nothing by itself: `crony apply --from module` makes the platform's jobs agree with a module's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import iscoroutinefunction
from typing import Any

from celery import shared_task

from crony.errors import Invalid

_declared: dict[str, dict[str, dict[str, Any]]] = {}
"""Module -> job name -> document."""


def job(
    *,
    name: str,
    schedule: Mapping[str, Any] | list[Any] | str | None = None,
    task: Mapping[str, Any] | None = None,
    **document: Any,
) -> Callable[[Callable[..., Any]], Any]:
    """Declare that this function is a job; it becomes a Celery task as well, called directly as before.

    `schedule` as in a job document; text alone is a cron schedule. `document`: further fields of it (`params`, `retry`,
    `timeout`, …; `async` is written `async_`). `task`: options for Celery's `shared_task`. The document is checked
    when it is applied. Raises `Invalid` for a name that its module has declared already.
    """
    if "action" in document:
        raise Invalid("action", "is the function itself", hint="remove it")

    def declare(function: Callable[..., Any]) -> Any:
        if iscoroutinefunction(function):
            hint = "write a plain function; inside, asyncio.run(…)"
            raise Invalid("action", f"{function.__name__} is an async function, which nobody would await", hint=hint)
        made = shared_task(**{"name": f"{function.__module__}.{function.__name__}", **(task or {})})(function)
        whole: dict[str, Any] = {"name": name}
        if schedule is not None:
            whole["schedule"] = {"cron": schedule} if isinstance(schedule, str) else schedule
        whole |= {field.removesuffix("_"): value for field, value in document.items()}
        if "description" not in whole and (about := (function.__doc__ or "").strip().partition("\n")[0]):
            whole["description"] = about
        whole["action"] = {"kind": "python", "task": made.name}
        ours = _declared.setdefault(function.__module__, {})
        if ours.get(name, whole)["action"] != whole["action"]:
            raise Invalid("name", f"{name} is declared twice in {function.__module__}", hint="choose another name")
        ours[name] = whole
        return made

    return declare


def declared(module: str) -> list[dict[str, Any]]:
    """The documents that a module (imported by now) has declared, by name."""
    return [document for _, document in sorted(_declared.get(module, {}).items())]
