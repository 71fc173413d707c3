"""A service and its instances: where a job that names the service may call, and in which share."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, replace
from typing import Any, Self

from crony.domain.check import choice, fields, flag, integer, texts
from crony.domain.durations import format_duration, parse_duration
from crony.domain.http_action import check_address, service_name
from crony.domain.record import Record
from crony.errors import Invalid

PROTOCOLS = ("grpc", "http", "https")
TTL = 60.0
"""Seconds of silence after which an instance is forgotten, unless it asks for another time."""
MOST = 200
"""Most instances of one service."""
_INSTANCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
_SECRET = re.compile(r"s1\.[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Instance(Record):
    """`svc/<service>/<instance>`, leased: there as long as it is heard of."""

    service: str
    instance: str
    address: str
    """host:port"""
    protocol: str
    weight: int = 100
    """Its share of the calls; 0: none."""
    version: str = ""
    healthy: bool = True
    """What it says of itself; one that is not gets no calls."""
    ttl: float = TTL
    by: str = ""
    """Who registered it."""
    at: float = 0.0
    """Since when, epoch seconds."""
    secret: str = ""
    """Hash of what it shows to be heard; empty: it writes to etcd itself."""

    @property
    def usable(self) -> bool:
        """Whether it wants calls."""
        return self.healthy and self.weight > 0

    def document(self) -> dict[str, Any]:
        """For people and programs, without the secret."""
        return {
            "service": self.service,
            "instance": self.instance,
            "address": self.address,
            "protocol": self.protocol,
            "weight": self.weight,
            "version": self.version,
            "healthy": self.healthy,
            "ttl": format_duration(self.ttl),
            "by": self.by,
        }

    def sealed(self) -> tuple[Self, str]:
        """With the hash of a new secret, and that secret."""
        text = f"s1.{secrets.token_urlsafe(32)}"
        return replace(self, secret=_digest(text)), text

    def is_shown(self, text: str) -> bool:
        """Whether this is its secret; takes the same time for every other one."""
        return bool(self.secret) and hmac.compare_digest(self.secret, _digest(text))


def parse_instance(service: str, document: Any) -> Instance:
    """The instance behind a registration; its name is its address unless given. Raises `Invalid` naming the field."""
    given = fields(document, "", ("instance", "address", "protocol", "weight", "version", "healthy", "ttl"))
    if given.get("address") is None:
        raise Invalid("address", "is missing", hint="write host:port, as the nodes reach it")
    address = check_address(given["address"], "address")
    name = given.get("instance", re.sub(r"[\[\]]", "", address).lstrip(":"))
    if not isinstance(name, str) or not _INSTANCE.fullmatch(name):
        raise Invalid("instance", "is not a name", hint="use letters, digits and . _ : -, at most 100")
    ttl = parse_duration(given.get("ttl", format_duration(TTL)), "ttl", least=5, most=600)
    return Instance(
        service=service_name(service),
        instance=name,
        address=address,
        protocol=choice(given.get("protocol", "grpc"), "protocol", PROTOCOLS),
        weight=integer(given.get("weight", 100), "weight", 0, 1000),
        version=texts(given.get("version", ""), "version", least=0, most=100),
        healthy=flag(given.get("healthy", True), "healthy"),
        ttl=ttl,
    )


def is_secret(text: str) -> bool:
    """Whether it looks like an instance's secret."""
    return _SECRET.fullmatch(text) is not None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
