"""D1: the spool of a node lies on a volume of 8 MiB, the web is away, and jobs print more than that."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crony.domain.outcome import Outcome
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.workers.uploader import DROPPED
from tests.helpers.etcd import EtcdServer, free_ports
from tests.helpers.ingest import ingest
from tests.helpers.node import JOBS, Leader, running_node
from tests.helpers.wait import until

MIB = 1 << 20
VOLUME = 8 * MIB
RUNS = 14


@contextmanager
def volume(folder: Path) -> Iterator[bool]:
    """A file system of 8 MiB at `folder`; whether it is one. Without the right to mount it is an empty folder."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={VOLUME},mode=700", "crony-test", str(folder)]
    real = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield real
    finally:
        if real:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_spool_that_fills_up_loses_the_oldest_output_and_no_outcome(
    client: Client, keys: Keys, etcd: EtcdServer, tmp_path: Path
) -> None:
    leader = Leader(client, keys)
    (port,) = free_ports(1)
    with volume(tmp_path / "small") as real:
        told = {"api": f"http://127.0.0.1:{port}", "token": "node-token", "spool_dir": tmp_path / "small"}
        if not real:
            told["spool_limit"] = str(VOLUME)
        with running_node(leader, etcd.endpoint, pool="prefork", name="n1", **told) as node:
            facts = leader.node("n1")
            assert facts is not None

            def ended(action: dict[str, object]) -> Outcome:
                return leader.ended(leader.send(facts, action))

            outcomes: list[Outcome] = []
            if real:  # more than there is room for, in one go: it gets what there is
                outcomes.append(ended({"kind": "shell", "script": f"yes big | head -c {VOLUME + MIB}"}))
                assert list((tmp_path / "small").rglob("*.lost"))
            outcomes += [ended({"kind": "shell", "script": f"yes {n:03d} | head -c {MIB}"}) for n in range(RUNS)]
            outcomes.append(ended({"kind": "python", "task": f"{JOBS}.say", "args": ["last"]}))
            assert [outcome.kind for outcome in outcomes] == ["succeeded"] * len(outcomes), "no outcome is lost"
            assert "was dropped, oldest first" in node.text(), "it says so"
            with ingest(port) as web:
                runs = [outcome.run for outcome in outcomes]
                until(lambda: all((run, 1) in web.final for run in runs), 60, "all outputs to have an end")
                assert node.stop() == 0
    dropped = [web.data[run, 1] == DROPPED for run in runs]
    assert dropped == sorted(dropped, reverse=True), "the oldest first"
    assert RUNS + real - 8 <= sum(dropped) <= RUNS + real - 4, "and no more than has to be"
    for run, is_gone in zip(runs, dropped, strict=True):
        assert web.final[run, 1] is is_gone, "what is not whole says so"
        assert not is_gone or web.streams(run) == [("crony", DROPPED)]
    for n, run in enumerate(runs[-RUNS - 1 : -1]):
        assert web.data[run, 1] in (DROPPED, b"%03d\n" % n * (MIB // 4)), "what is there is whole"
    assert web.data[runs[-1], 1].startswith(b"last\nerr last\n")
