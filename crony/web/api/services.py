"""`/api/v1/services`: instances of services register, give signs of life, and are taken off.

Registering asks the database who it is. Signs of life do not: an instance shows the secret it was given, of which its
record in etcd has the hash, so that they go on when the database is away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from crony.clock import rfc3339
from crony.domain.http_action import service_name
from crony.domain.service import Instance, parse_instance
from crony.errors import Forbidden, NotFound
from crony.lifecycle.enlist import changed, delist, enlist, hear, instances
from crony.store.accounts import Role
from crony.web.api.jobs import TheWeb, Who
from crony.web.auth import INSTANCE, OPERATOR, SERVICE, VIEWER, Identity, NotSignedIn, address_of
from crony.web.forms import body_schema, json_model
from crony.web.triggering import note
from crony.web.wiring import Web

router = APIRouter(tags=["services"])


class NewInstance(BaseModel):
    """Where an instance is reached, as `host:port` of the network that the nodes are in."""

    model_config = ConfigDict(extra="forbid")

    address: str
    protocol: str = "grpc"
    """grpc, http or https"""
    weight: int = 100
    version: str = ""
    healthy: bool = True
    ttl: str = "1m"
    """After so long a silence it is forgotten: 5s to 10m."""
    instance: str | None = None
    """Its name; default its address. Who registers under a name again takes the place of the one before."""


class Sign(BaseModel):
    """A sign of life; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    healthy: bool | None = None
    weight: Annotated[int, Field(ge=0, le=1000)] | None = None


class Known(BaseModel):
    """An instance as it stands."""

    service: str
    instance: str
    address: str
    protocol: str
    weight: int
    version: str
    healthy: bool
    ttl: str
    by: str
    since_at: str | None


class Registered(Known):
    """`secret`: the bearer token of its signs of life."""

    secret: str


@router.get("/services", dependencies=[Depends(VIEWER)])
def services(web: TheWeb) -> dict[str, Any]:
    """Every service that has an instance, with its instances."""
    return {"items": list(grouped(instances(web.client, web.keys))), "next_cursor": None}


@router.get("/services/{service}", dependencies=[Depends(VIEWER)])
def one(web: TheWeb, service: str) -> dict[str, Any]:
    """One service with its instances."""
    name = service_name(unquote(service))
    found = list(grouped(instances(web.client, web.keys, name)))
    if not found:
        raise NotFound(f"No instance of {name} is registered")
    return found[0]


@router.post(
    "/services/{service}/instances",
    status_code=201,
    dependencies=[Depends(SERVICE)],
    openapi_extra=body_schema(NewInstance),
    responses={201: {"model": Registered}},
)
def register(
    web: TheWeb,
    who: Who,
    request: Request,
    service: str,
    body: Annotated[NewInstance, Depends(json_model(NewInstance))],
) -> dict[str, Any]:
    """Register an instance; `secret` is in this answer and nowhere else. Give signs of life every third of `ttl`."""
    wanted = parse_instance(unquote(service), body.model_dump(exclude_none=True))
    _check_scope(who, wanted.service)
    wanted, secret = replace(wanted, by=who.actor, at=web.client.now()).sealed()
    enlist(web.client, web.keys, wanted)
    note(web, who, "service.register", "service", wanted.service, wanted.document(), address_of(request))
    return {**shape(wanted), "secret": secret}


@router.post(
    "/services/{service}/instances/{instance}:heartbeat",
    dependencies=[Depends(INSTANCE)],
    openapi_extra=body_schema(Sign),
    responses={200: {"model": Known}},
)
def heartbeat(
    web: TheWeb, request: Request, service: str, instance: str, body: Annotated[Sign, Depends(json_model(Sign))]
) -> dict[str, Any]:
    """It lives. 401: nobody knows it (any more) by this secret; register again."""
    secret = _paced(web, request)

    def accept(there: Instance) -> Instance | None:
        return changed(there, healthy=body.healthy, weight=body.weight) if there.is_shown(secret) else None

    found = hear(web.client, web.keys, unquote(service), unquote(instance), accept)
    if found is None:
        raise NotSignedIn("Not the secret of this instance", hint="register again")
    return shape(found)


@router.post("/services/{service}/instances/{instance}:leave", status_code=204, dependencies=[Depends(INSTANCE)])
def leave(web: TheWeb, request: Request, service: str, instance: str) -> None:
    """It goes, and gets no calls any more."""
    secret = _paced(web, request)
    if not delist(web.client, web.keys, unquote(service), unquote(instance), lambda there: there.is_shown(secret)):
        raise NotSignedIn("Not the secret of this instance", hint="it is registered no longer, or never was")


@router.delete("/services/{service}/instances/{instance}", status_code=204, dependencies=[Depends(OPERATOR)])
def deregister(web: TheWeb, who: Who, request: Request, service: str, instance: str) -> None:
    """Take an instance off. One that lives registers again with its next sign of life."""
    remove(web, who, unquote(service), unquote(instance), address_of(request))


def remove(web: Web, who: Identity, service: str, instance: str, address: str) -> None:
    """Take an instance off. Raises `NotFound`."""
    if not delist(web.client, web.keys, service, instance, lambda there: True):
        raise NotFound(f"There is no instance {instance[:100]} of {service[:100]}")
    note(web, who, "service.deregister", "service", service, {"instance": instance}, address)


def grouped(found: Iterable[Instance]) -> Iterable[dict[str, Any]]:
    """Instances, sorted by service, as services."""
    for name, members in groupby(found, key=lambda each: each.service):
        shapes = [shape(each) for each in members]
        yield {"name": name, "instances": shapes}


def shape(found: Instance) -> dict[str, Any]:
    """An instance as the API shows it."""
    return {**found.document(), "since_at": rfc3339(found.at or None)}


def _check_scope(who: Identity, service: str) -> None:
    """A token of the scope `service` registers the service whose name it has, and no other."""
    if who.role == Role.SERVICE and who.name.partition("/")[0] != service:
        raise Forbidden(
            f"This token may not register {service}",
            why=f"its name is {who.name}",
            hint=f"a token for it has the scope service and the name {service}, or {service}/anything",
        )


def _paced(web: Web, request: Request) -> str:
    secret: str = request.state.secret
    web.callees.check(hashlib.sha256(secret.encode()).hexdigest())
    return secret
