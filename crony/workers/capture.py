"""What a Python function prints or logs becomes its attempt's output, also with several functions in one process."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from crony.domain.stamps import Source
from crony.workers.output import Output

_output: ContextVar[Output | None] = ContextVar("crony_output", default=None)


class _Stream:
    """Stands in for `sys.stdout` or `sys.stderr`: goes to the attempt of the calling context, else where it went."""

    def __init__(self, behind: Any, source: Source) -> None:
        self._behind, self._source = behind, source

    def write(self, text: str) -> int:
        """As of a text stream."""
        output = _output.get()
        if output is None:
            self._behind.write(text)
        else:
            output.write(text.encode(errors="backslashreplace"), self._source)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """As of a text stream."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """As of a text stream."""
        if _output.get() is None:
            self._behind.flush()

    def isatty(self) -> bool:
        """Never: it is a file."""
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behind, name)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Add the record to the output of the attempt it was logged in."""
        output = _output.get()
        if output is not None:
            try:
                output.text(self.format(record), Source.LOG)
            except Exception:
                self.handleError(record)


_handler = _Handler()
_handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))


@contextmanager
def captured(output: Output) -> Iterator[None]:
    """Prints and log records of this context (not of threads it starts) go to `output`."""
    for name, source in (("stdout", Source.STDOUT), ("stderr", Source.STDERR)):
        stream = getattr(sys, name)
        if not isinstance(stream, _Stream):
            setattr(sys, name, _Stream(stream, source))
    root = logging.getLogger()
    if _handler not in root.handlers:
        root.addHandler(_handler)
    token = _output.set(output)
    try:
        yield
    finally:
        _output.reset(token)
