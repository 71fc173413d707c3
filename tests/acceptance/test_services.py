"""Services that register themselves with a real web: by the SDK, by the command, past the web."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from crony_sdk import Registration, Unauthorized

from crony.lifecycle.enlist import instances
from crony.store import accounts
from tests.helpers.etcd import EtcdServer
from tests.helpers.platform import Platform, platform
from tests.helpers.sdk_examples import example
from tests.helpers.server import die_with_parent
from tests.helpers.wait import until


def command(crony: Platform, token: str, *arguments: str) -> subprocess.Popen[bytes]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CRONY_")}
    environ |= {"CRONY_API": crony.api, "CRONY_TOKEN": token, "CRONY_NAMESPACE": crony.namespace}
    environ |= {"CRONY_ETCD_ENDPOINTS": ",".join(crony.endpoints)}
    told = [sys.executable, "-m", "crony", "service", "register", *arguments]
    with (crony.folder / "commands.log").open("a") as log:
        return subprocess.Popen(told, env=environ, stderr=log, preexec_fn=die_with_parent)


def test_they_are_there_while_they_live_whatever_is_away(etcd: EtcdServer, tmp_path: Path) -> None:
    with platform(tmp_path / "crony", [etcd.endpoint], namespace="services") as crony:
        token = accounts.create_token(crony.database, "billing", "service", actor="tests")[0]
        others = accounts.create_token(crony.database, "shop", "service", actor="tests")[0]

        def there() -> list[str]:
            return [each.instance for each in instances(crony.client, crony.keys)]

        def at(host: int, **more: Any) -> Registration:
            return Registration("billing", f"10.0.0.{host}:1", url=crony.api, token=token, **more)

        early = at(1, ttl=5).start()  # before there is a web
        assert not early.registered and "cannot be reached" in early.trouble
        web = crony.web()
        until(lambda: early.registered and there() == ["10.0.0.1:1"], 10, "it registers once it can")
        with pytest.raises(Unauthorized, match="may not register billing"):
            Registration("billing", "10.0.0.9:1", url=crony.api, token=others).start()

        # Signs of life keep it there beyond its ttl; what it says of itself is known at once.
        early.set(healthy=False, weight=7)
        (found,) = instances(crony.client, crony.keys)
        assert (found.healthy, found.weight) == (False, 7)
        early.set(healthy=True)
        first = crony.client.get(crony.keys.svc("billing", "10.0.0.1:1"))
        assert first is not None

        # By the command: as long as what it starts runs, which gets its signals.
        started = command(crony, token, "billing", "--address", "10.0.0.2:1", "--", "sleep", "600")
        direct = command(crony, "", "billing", "--address", "10.0.0.3:1", "--etcd", "--ttl", "10s")
        until(lambda: there() == ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"], 30, "all three are there")
        assert {row["address"] for row in crony.call("GET", "services/billing")["instances"]} == {
            f"10.0.0.{host}:1" for host in (1, 2, 3)
        }
        started.terminate()
        assert started.wait(30) == 128 + signal.SIGTERM, "as a shell tells it"
        until(lambda: there() == ["10.0.0.1:1", "10.0.0.3:1"], 10, "it is taken off")

        # Services in other languages, which need no SDK.
        others_too = ExitStack()
        known = {"CRONY_API": crony.api, "CRONY_TOKEN": token, "CRONY_SERVICE": "billing"}
        for language in ("go", "java"):
            others_too.enter_context(example(language).serving("x" * 32, **known))
        until(lambda: there() == ["10.0.0.1:1", "10.0.0.3:1", "go", "java"], 20, "they are there, too")

        # The web goes for longer than the ttl: forgotten, and back by itself. Who is past the web stays.
        kept = crony.client.get(crony.keys.svc("billing", "10.0.0.1:1"))
        assert kept is not None and kept.lease == first.lease, "one lease for all its life"
        web.kill()
        until(lambda: there() == ["10.0.0.3:1"], 20, "they are forgotten")
        web.start()
        until(lambda: there() == ["10.0.0.1:1", "10.0.0.3:1", "go", "java"], 30, "all register again")
        others_too.close()
        assert there() == ["10.0.0.1:1", "10.0.0.3:1"], "who ends takes himself off"
        early.close()
        direct.terminate()
        direct.wait(30)
        until(lambda: there() == [], 10, "both are taken off")
        refused = command(crony, others, "billing", "--address", "10.0.0.4:1", "--", "sleep", "600")
        assert refused.wait(30) == 4
        assert "may not register billing" in (crony.folder / "commands.log").read_text()
