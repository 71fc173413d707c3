"""An instance of a service, registered for as long as it lives: jobs name the service, Crony calls its instances."""

from __future__ import annotations

import atexit
import logging
import os
import random
import threading
from types import TracebackType
from typing import Any
from urllib.parse import quote

from crony_sdk.contract import base_url
from crony_sdk.errors import CronyError, Invalid, Unauthorized, Unavailable
from crony_sdk.pulse import PULSE
from crony_sdk.wire import Wire

log = logging.getLogger("crony_sdk")

RETRY = 2.0
"""Seconds until it is tried again while Crony is away."""


class Registration:
    """Registers with `start` (or as a context manager), and takes itself off with `close` or at the end of the process.

    It does not wait for Crony and needs no attention: while Crony is away it is tried again, and who was forgotten
    meanwhile is registered anew. In a forked child it does nothing; the parent goes on. Safe to use from many threads.
    """

    def __init__(
        self,
        service: str,
        address: str,
        *,
        url: str | None = None,
        token: str | None = None,
        protocol: str = "grpc",
        weight: int = 100,
        version: str = "",
        healthy: bool = True,
        ttl: float = 60.0,
        instance: str | None = None,
        wire: Wire | None = None,
    ) -> None:
        """`address`: host:port, as the nodes of Crony reach it; `protocol`: grpc, http or https. `url` and `token`
        default to `CRONY_API` and `CRONY_TOKEN`; the token has the scope `service` and the name of the service.
        `ttl`: seconds of silence after which Crony forgets it. Raises `Invalid`.
        """
        if url is None:
            url = os.environ.get("CRONY_API", "")
            token = os.environ.get("CRONY_TOKEN", "") if token is None else token
        if not url:
            raise Invalid("url", "is missing: give the address of Crony's web, or set CRONY_API")
        if not 5 <= ttl <= 600:
            raise Invalid("ttl", "must be 5 to 600 seconds")
        if not service or not address:
            raise Invalid("service" if not service else "address", "is empty")
        self._path = f"{base_url(url, 'url')}/api/v1/services/{quote(service, safe='')}/instances"
        self._token, self._wire, self._ttl = token or "", wire or Wire(timeout=max(4.0, min(10.0, ttl / 3))), ttl
        self._document: dict[str, Any] = {
            "address": address,
            "protocol": protocol,
            "weight": weight,
            "version": version,
            "healthy": healthy,
            "ttl": f"{max(5, round(ttl))}s",
        }
        if instance is not None:
            self._document["instance"] = instance
        self._shown = f"{service} at {address}"
        self._lock, self._pid = threading.Lock(), os.getpid()
        self._instance, self._secret = "", ""
        self._told: dict[str, Any] = {}
        self._closed = self._started = False
        self._trouble = ""

    @property
    def registered(self) -> bool:
        """Whether Crony knew it when it was last asked."""
        return bool(self._secret) and not self._trouble

    @property
    def trouble(self) -> str:
        """Why it is not registered or was not heard of; empty: all is well."""
        return self._trouble

    def start(self) -> Registration:
        """Register now, and go on in the background. Raises a `Refused` when Crony says no, which it would again."""
        with self._lock:
            if self._started:
                return self
            self._started = True
            try:
                self._beat()
                delay = self._ttl / 3
            except Unavailable as error:
                self._trouble, delay = str(error), RETRY
                log.warning("%s is not registered yet: %s", self._shown, error)
            except CronyError:
                self._started = False
                raise
        atexit.register(self.close)
        PULSE.add(self._again, delay)
        return self

    def set(self, *, healthy: bool | None = None, weight: int | None = None) -> None:
        """Say how it is, or how many calls it wants: told at once, and with the next sign of life if that fails."""
        changes = {"healthy": healthy, "weight": weight}
        with self._lock:
            self._document.update({name: value for name, value in changes.items() if value is not None})
            if self._started and not self._closed and os.getpid() == self._pid:
                try:
                    self._beat()
                except CronyError as error:
                    self._trouble = str(error)

    def close(self) -> None:
        """Take it off, if Crony can be asked; else it is forgotten after its `ttl`."""
        atexit.unregister(self.close)
        with self._lock:
            if self._closed or os.getpid() != self._pid:
                return
            self._closed, secret, self._secret = True, self._secret, ""
            if not secret:
                return
            try:
                self._wire.request("POST", self._of("leave"), token=secret, timeout=5.0)
            except CronyError as error:
                log.warning("%s could not be taken off: %s", self._shown, error)

    def __enter__(self) -> Registration:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    # -- in the background -----------------------------------------------------------------------

    def _again(self) -> float | None:
        with self._lock:
            if self._closed:
                return None
            try:
                self._beat()
            except CronyError as error:
                if str(error) != self._trouble:
                    log.warning("%s was not heard of: %s", self._shown, error)
                self._trouble = str(error)
                return min(self._ttl / 3, RETRY if isinstance(error, Unavailable) else 30.0) * random.uniform(0.8, 1.2)
            return self._ttl / 3 * random.uniform(0.8, 1.0)

    def _beat(self) -> None:
        """A sign of life; registers where that is not known (any more)."""
        if self._secret:
            wanted = {name: self._document[name] for name in ("healthy", "weight")}
            body = {} if wanted == self._told else wanted
            try:
                self._wire.request("POST", self._of("heartbeat"), token=self._secret, body=body)
                self._told, self._trouble = wanted, ""
                return
            except Unauthorized:
                self._secret = ""
        told = {name: self._document[name] for name in ("healthy", "weight")}
        found = self._wire.request("POST", self._path, token=self._token, body=self._document).json()
        self._instance, self._secret = str(found["instance"]), str(found["secret"])
        self._told, self._trouble = told, ""

    def _of(self, verb: str) -> str:
        return f"{self._path}/{quote(self._instance, safe='')}:{verb}"
