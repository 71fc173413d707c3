"""Shells die with the process that runs them, even when that is killed outright.

A tiny `/bin/sh` sits at the other end of a pipe and is told the process groups that run. When the pipe ends,
because its owner ended it or was killed, it kills every group still known. A shell's command does not start
before its group is known: it waits at a gate (`GATE`), which is opened afterwards.
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading

log = logging.getLogger("crony.worker")

_SCRIPT = r"""
trap '' HUP INT QUIT TERM PIPE
groups=' '
while IFS= read -r line; do
  case $line in
    +[0-9]*) groups="$groups${line#+} " ;;
    -[0-9]*) gone=${line#-}
       case $groups in *" $gone "*) groups="${groups%%" $gone "*} ${groups#*" $gone "}" ;; esac ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group"; done
"""

GATE = 'IFS= read -r _ <&2 || exit 125; exec 2>&1; exec "$@"'
"""A shell's first act: wait for a line on descriptor 2 (then its standard error), then become the command."""


class Guardian:
    """The watcher of this process's shells; started with the first, started again should it die."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: set[int] = set()
        self._child: subprocess.Popen[bytes] | None = None
        os.register_at_fork(after_in_child=self._forked)

    def add(self, group: int) -> None:
        """This process group dies when this process does. Raises OSError when no guardian can be started."""
        with self._lock:
            self._groups.add(group)
            if not self._tell(f"+{group}\n"):
                self._start()

    def remove(self, group: int) -> None:
        """This process group has ended. Call it soon: its number may become another's."""
        with self._lock:
            self._groups.discard(group)
            self._tell(f"-{group}\n")

    def _tell(self, line: str) -> bool:
        if self._child is None or self._child.stdin is None or self._child.poll() is not None:
            return False
        try:
            os.write(self._child.stdin.fileno(), line.encode())
        except OSError:
            return False
        return True

    def _start(self) -> None:
        if self._child is not None:
            log.warning("the guardian of this node's shells ended (%s); starting it again", self._child.poll())
            if self._child.stdin is not None:
                self._child.stdin.close()
        self._child = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "crony-guardian"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            env={},
            start_new_session=True,
        )
        for group in self._groups:
            if not self._tell(f"+{group}\n"):
                raise OSError("the guardian of shells cannot be started")

    def _forked(self) -> None:
        # A fork of ours must not keep the pipe open: its end is the signal.
        child = self._child
        if child is not None and child.stdin is not None:
            child.stdin.close()
            self._child = None
