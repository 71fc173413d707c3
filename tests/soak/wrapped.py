"""A process of Crony as the soak starts it: `python -m tests.soak.wrapped MODULE ARGUMENTS…`, perhaps a broken build.

Only here is looked at the variables that break or tune a build; nothing in Crony itself knows them. What pool
processes do is broken too: they are forked from this one.

- `CRONY_TEST_BROKEN`: names of `mutants`, with commas.
- `CRONY_TEST_KEEP`: seconds for which archived outcomes stay in etcd (60 in the product, too long for a test).
"""

from __future__ import annotations

import os
import runpy
import select
import sys
import time


def main() -> None:
    """Break or tune what is asked for, then be the module named."""
    if os.environ.get("FAKETIME_TIMESTAMP_FILE"):
        time.sleep = _sleep  # the library's own clock_nanosleep says EINVAL to Python
    if keep := os.environ.get("CRONY_TEST_KEEP"):
        from crony.beat.duties import archiver

        archiver.KEEP = float(keep)
    for name in filter(None, os.environ.get("CRONY_TEST_BROKEN", "").split(",")):
        from tests.soak import mutants

        mutants.MUTANTS[name]()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _sleep(seconds: float) -> None:
    select.select((), (), (), seconds)


if __name__ == "__main__":
    main()
