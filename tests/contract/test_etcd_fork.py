"""After a fork the child opens its own sockets and leaves the parent's alone; and gevent may patch everything."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable

from crony.etcd.batch import Batcher
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.session import Session, process_session
from crony.etcd.txn import Txn, absent
from crony.etcd.watch import Watcher
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until


def in_child(work: Callable[[], None]) -> int:
    """Forks, runs `work` in the child; its pid. The child ends with 0 if nothing was raised."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(pid: int, timeout: float = 15) -> int:
    """Exit code of a child; kills it when it hangs."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return -1


def test_thirty_forks_beside_busy_threads(etcd: EtcdServer, keys: Keys) -> None:
    with Client([etcd.endpoint]) as client:
        session = process_session(client, keys, 10)
        batcher = Batcher(client)
        seen: list[int] = []
        watcher = Watcher(
            client, keys.root, keys.root[:-1] + "0", on_snapshot=None, on_events=lambda _events, r: seen.append(r)
        ).start()
        assert watcher.synced(40)
        stop = threading.Event()
        failed: list[BaseException] = []

        def busy(name: str) -> None:
            try:
                while not stop.is_set():
                    client.put(keys.root + name, b"")
                    batcher.submit(Txn().put(keys.root + name + "b", b"")).result(40)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=busy, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()

        def child(number: int) -> None:
            assert not session.alive and not watcher.healthy
            session.close()
            watcher.stop()
            batcher.close()
            key = f"{keys.root}child/{number}"
            client.put(key, b"")
            assert client.txn(Txn().when(absent(key + "x")).put(key + "x", b"")).succeeded
            assert batcher.submit(Txn().put(key + "y", b"")).result(40).succeeded
            if number % 10 == 0:
                own = process_session(client, keys, 10)
                assert own is not session and own.alive and own.incarnation != session.incarnation
                heard = threading.Event()
                mine = Watcher(client, key + "w", None, on_snapshot=None, on_events=lambda _e, _r: heard.set())
                assert mine.start().synced(10)
                client.put(key + "w", b"")
                assert heard.wait(40)
                own.close()

        children = []
        for number in range(30):
            children.append(in_child(lambda number=number: child(number)))
            if len(children) == 3:
                assert [ended(pid) for pid in children] == [0, 0, 0]
                children = []
        stop.set()
        for thread in threads:
            thread.join()
        assert failed == []
        assert client.count(keys.root + "child/") == 93
        assert session.alive and watcher.healthy
        assert process_session(client, keys, 10) is session
        last = client.put(keys.root + "last", b"")
        until(lambda: seen and seen[-1] == last)
        watcher.stop()
        batcher.close()
        session.close()


def _sockets() -> set[str]:
    """Open sockets of this process, as /proc names them."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return {target for target in found if target.startswith("socket:")}


def test_the_child_holds_no_socket_of_the_parent(etcd: EtcdServer, keys: Keys) -> None:
    gc.collect()
    others = _sockets()  # what earlier tests of this process left is not this client's
    with Client([etcd.endpoint]) as client:
        session = Session(client, keys, ttl=10)
        session.start()
        client.get("k")

        def child() -> None:
            for target in _sockets() - others:
                line = _peer(target)
                assert line is None or line != etcd.port, target

        # A socket that another thread is just closing is in nobody's hands: it may be inherited, but not each time.
        assert any(ended(in_child(child)) == 0 for _ in range(5))
        assert session.alive
        session.close()


def _peer(target: str) -> int | None:
    inode = target.removeprefix("socket:[").removesuffix("]")
    with open("/proc/net/tcp") as table:
        for line in table.readlines()[1:]:
            fields = line.split()
            if fields[9] == inode:
                return int(fields[2].split(":")[1], 16)
    return None


def test_under_gevent(etcd: EtcdServer, keys: Keys) -> None:
    program = """
        from gevent import monkey; monkey.patch_all()
        import sys, threading, time, gevent
        from crony.etcd.client import Client
        from crony.etcd.keys import Keys
        from crony.etcd.session import Session
        from crony.etcd.watch import Watcher
        from crony.etcd.batch import Batcher
        from crony.etcd.txn import Txn
        endpoint, namespace = sys.argv[1:]
        client, keys = Client([endpoint]), Keys(namespace)
        session = Session(client, keys, ttl=5)
        assert session.start()
        seen = []
        end = keys.root[:-1] + "0"
        watcher = Watcher(client, keys.root, end, on_snapshot=None, on_events=lambda e, r: seen.extend(e))
        assert watcher.start().synced(40)
        batcher = Batcher(client)
        def work(n):
            client.put(keys.root + str(n), b"")
            assert batcher.submit(Txn().put(keys.root + str(n) + "b", b"")).result(40).succeeded
        gevent.joinall([gevent.spawn(work, n) for n in range(30)], raise_error=True)
        deadline = time.monotonic() + 5
        while len(seen) < 60 and time.monotonic() < deadline:
            gevent.sleep(0.01)
        assert len(seen) == 60, len(seen)
        watcher.stop(); batcher.close(); session.close(); client.close()
        print("well")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), etcd.endpoint, keys.namespace],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == "well", done.stderr
