"""Which addresses jobs may call: what is inside is closed unless named, in whatever form it is written."""

from __future__ import annotations

import pytest

from crony.domain.targets import Targets
from crony.errors import Invalid
from crony.settings import load

INSIDE = [
    "127.0.0.1",
    "127.8.8.8",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "198.18.0.1",
    "192.0.2.1",
    "192.0.0.8",
    "::1",
    "fc00::1",
    "fd12::1",
    "fec0::1",
    "64:ff9b:1::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "::7f00:1",
]
NEVER = [
    "169.254.169.254",
    "169.254.0.1",
    "fe80::1",
    "fe80::1%eth0",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "0.0.0.0",
    "0.1.2.3",
    "::",
    "255.255.255.255",
    "240.0.0.1",
    "224.0.0.1",
    "ff02::1",
    "2002:7f00:1::",
    "2001:0:1::1",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
]
OUTSIDE = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


def test_by_default_only_public_addresses() -> None:
    closed = Targets()
    assert [address for address in INSIDE if "CRONY_HTTP_ALLOW" not in closed.refusal(address)] == []
    assert [address for address in NEVER if "no job may call" not in closed.refusal(address)] == []
    assert [address for address in OUTSIDE if closed.refusal(address)] == []


def test_some_are_never_allowed() -> None:
    wide = Targets.of(["0.0.0.0/0", "::/0", "private", "loopback"])
    assert [address for address in NEVER if not wide.refusal(address)] == []
    assert [address for address in INSIDE if wide.refusal(address)] == []


@pytest.mark.parametrize(
    ("items", "open_now"),
    [
        (["loopback"], {"127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "::7f00:1"}),
        (
            ["private"],
            {"10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fc00::1", "fd12::1", "::ffff:10.0.0.1"},
        ),
        (["10.0.0.0/31", "192.168.1.2"], {"10.0.0.1", "::ffff:10.0.0.1"}),
    ],
)
def test_what_is_named_is_open_and_nothing_else(items: list[str], open_now: set[str]) -> None:
    targets = Targets.of(items)
    assert {address for address in INSIDE if not targets.refusal(address)} == open_now


@pytest.mark.parametrize("text", ["privat", "10.0.0.1/8", "10.0.0.0/33", "*", "localhost"])
def test_the_setting_refuses_what_is_no_network(text: str) -> None:
    with pytest.raises(ValueError, match="is none of"):
        Targets.of([text])
    with pytest.raises(Invalid, match=r"CRONY_HTTP_ALLOW.*is neither"):
        load({"CRONY_HTTP_ALLOW": text})
