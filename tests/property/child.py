"""A consumer as a process of its own, to be stopped, killed or ended: `python -m tests.property.child JOURNAL JSON`."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path

from crony.transport_etcd import link
from tests.property.actors import Consumer, share_pool
from tests.property.history import FileJournal
from tests.property.plan import Plan


def main() -> int:
    """Consume until SIGTERM, then close as a worker would."""
    journal, told = FileJournal(Path(sys.argv[1])), json.loads(sys.argv[2])
    plan = Plan(tuple(told["plan"]["queues"]), tuple(tuple(each) for each in told["plan"]["bindings"]))
    logging.disable(logging.ERROR)
    share_pool()
    actor = Consumer(told["name"], told["url"], plan, journal, told["seed"], told["ttl"])
    actor.hesitate = 0.1
    signal.signal(signal.SIGTERM, lambda *_: actor.stopping.set())
    journal.note("started", actor.name)
    actor.start()
    parent = os.getppid()
    while not actor.stopping.wait(1.0) and os.getppid() == parent:
        pass
    actor.stopping.set()
    actor.join(15)
    actor.finish(5)
    link.shut()
    return 0


if __name__ == "__main__":
    sys.exit(main())
