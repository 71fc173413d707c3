"""Which addresses a job of this node may call: public ones, and those inside that `CRONY_HTTP_ALLOW` names.

The node decides, by the number it is about to connect to; no centre and no job can widen it.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Self

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

WORDS = {
    "loopback": ("127.0.0.0/8", "::1/128"),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"),
}
"""Words that stand for networks; `private` has carrier-grade NAT and IPv6 unique local addresses in it."""
_NEVER = {
    "metadata of clouds": ("100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32", "fd00:ec2::254/128"),
    "link-local": ("169.254.0.0/16", "fe80::/10"),
    "multicast": ("224.0.0.0/4", "ff00::/8"),
    "no address of a host": ("0.0.0.0/8", "240.0.0.0/4", "::/128"),
    "a tunnel that hides another address": ("2002::/16", "2001::/32"),
}
_NEVER_NETWORKS = [(ip_network(text), name) for name, texts in _NEVER.items() for text in texts]
_INSIDE = tuple(ip_network(text) for text in ("fec0::/10", "64:ff9b:1::/48", "192.0.0.0/24", "192.88.99.0/24"))
"""Not for everybody, whatever the standard library of the day says."""
_MAPPED = (ip_network("::ffff:0:0/96"), ip_network("64:ff9b::/96"), ip_network("::/96"))


class Targets:
    """What is allowed beyond public addresses."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._networks = tuple(networks)

    @classmethod
    def of(cls, items: Iterable[str]) -> Self:
        """From words and networks such as `10.1.0.0/16`. Raises ValueError saying which item is wrong."""
        found: list[Network] = []
        for item in items:
            try:
                found += [ip_network(text) for text in WORDS.get(item, (item,))]
            except ValueError:
                hint = f"{item!r} is none of {', '.join(WORDS)} and no network such as 10.1.0.0/16"
                raise ValueError(hint) from None
        return cls(found)

    def refusal(self, address: Address | str) -> str:
        """Why no job may call this address here, as the end of a sentence; empty: it may."""
        asked = ip_address(address.partition("%")[0]) if isinstance(address, str) else address
        number = _plain(asked)
        shown = str(asked) if number == asked else f"{asked} ({number})"
        for network, name in _NEVER_NETWORKS:
            if number in network:
                return f"{shown} is {name}, which no job may call"
        outside = number.is_global and not any(number in network for network in _INSIDE)
        if outside or any(number in network for network in self._networks):
            return ""
        return f"{shown} is an address inside, which CRONY_HTTP_ALLOW of this node does not name"


def _plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for (mapped, NAT64), else itself."""
    if isinstance(address, IPv6Address) and int(address) > 1 and any(address in network for network in _MAPPED):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address
