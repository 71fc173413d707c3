"""Log lines of every role: text for people at a terminal, one JSON object a line for machines.

Control characters in a message are escaped, so that what a job printed cannot fake a log line.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TextIO

from crony.errors import Invalid

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
FORMATS = ("auto", "text", "json")

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {9: "\t", 10: "\\n", 13: "\\r"}


def clean(text: str) -> str:
    """`text` with control characters made visible (tab stays)."""
    return text.translate(_CONTROL)


class TextFormatter(logging.Formatter):
    """`2026-11-22 14:03:07.120+0100 INFO    beat  message`, tracebacks indented below it."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line, or more when it carries a traceback."""
        moment = time.localtime(record.created)
        stamp = f"{time.strftime('%Y-%m-%d %H:%M:%S', moment)}.{int(record.msecs):03d}{time.strftime('%z', moment)}"
        line = f"{stamp} {record.levelname:<7} {_area(record)}  {clean(record.getMessage())}"
        if record.exc_info:
            line += "".join(f"\n    {clean(row)}" for row in self.formatException(record.exc_info).splitlines())
        return line


class JsonFormatter(logging.Formatter):
    """`{"ts": …, "level": …, "role": …, "logger": …, "event": …}`, one object a line."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role

    def format(self, record: logging.LogRecord) -> str:
        """One record as one JSON object."""
        fact = {
            "ts": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "role": self.role,
            "logger": record.name,
            "event": record.getMessage(),
        }
        if record.exc_info:
            fact["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fact, ensure_ascii=False)


def formatter(role: str, form: str, stream: TextIO) -> logging.Formatter:
    """The formatter for `form`: text, json, or auto (text at a terminal, else json)."""
    if form not in FORMATS:
        raise Invalid("CRONY_LOG_FORMAT", f"{form!r} is none of {', '.join(FORMATS)}")
    text = form == "text" or (form == "auto" and stream.isatty())
    return TextFormatter() if text else JsonFormatter(role)


def setup(role: str, *, level: str = "info", form: str = "auto", stream: TextIO | None = None) -> None:
    """Send the process's log lines to `stream` (default: standard error). Raises `Invalid` for a level nobody knows."""
    if level not in LEVELS:
        raise Invalid("CRONY_LOG_LEVEL", f"{level!r} is none of {', '.join(LEVELS)}")
    stream = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter(role, form, stream))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    for chatty in ("urllib3", "alembic", "sqlalchemy.engine"):
        logging.getLogger(chatty).setLevel(max(LEVELS[level], logging.WARNING))


def _area(record: logging.LogRecord) -> str:
    return record.name.removeprefix("crony.")
