"""Channels and alert rules: where alerts can be sent, and which go where. Secrets are taken in and never shown."""

from __future__ import annotations

import re
from typing import Any, Literal

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from crony.catalog.channels import ChannelView
from crony.catalog.objects import ObjectView
from crony.domain.channel import SECRETS
from crony.errors import Conflict, CronyError, Invalid, Unavailable
from crony.web import alerting, documents
from crony.web.auth import ADMIN, VIEWER, Identity, address_of
from crony.web.forms import only
from crony.web.pages.common import Form, TheWeb, Who, go
from crony.web.wiring import Web

router = APIRouter()

EXAMPLES = {
    "email": """name: mail
kind: email
host: smtp.example.org
port: 587
security: starttls                  # starttls | tls | none
user: crony@example.org
from: crony@example.org
to: [ops@example.org]
""",
    "feishu": """name: feishu-ops
kind: feishu
language: zh                        # en | zh
""",
}
RULE = """name: everything
on: [failed, recovered, node_lost, leader_changed]
jobs: []                            # patterns of job names; empty: all jobs
to: [feishu-ops]
"""
_SECRET = re.compile(r"(?im)^[ \t]*[\"']?(?:password|url|secret)[\"']?[ \t]*:.*$")


@router.get("/channels", dependencies=[Depends(VIEWER)])
def page(web: TheWeb, request: Request) -> Response:
    """All channels and rules."""
    away: list[Unavailable] = []
    channels: list[ChannelView] = []
    rules: list[ObjectView] = []
    try:
        channels, rules = web.catalog.channels.every(), web.catalog.alert_rules.every()
    except Unavailable as error:
        away.append(error)
    return web.render.page(
        request, "channels.html", away=away, section="alerts", channels=channels, rules=rules,
        doing=alerting.doing(web), keyed=bool(web.catalog.cipher),
    )  # fmt: skip


@router.get("/channels/new", dependencies=[Depends(ADMIN)])
def new(web: TheWeb, request: Request, kind: Literal["email", "feishu"] = "feishu") -> Response:
    """An empty channel."""
    return _page(web, request, None, EXAMPLES[kind], kind)


@router.post("/channels/new", dependencies=[Depends(ADMIN)])
def create(web: TheWeb, who: Who, request: Request, form: Form) -> Response:
    """Save a new channel; a name that is taken is refused."""
    return _save(web, who, request, form, None)


@router.get("/channels/{name}", dependencies=[Depends(VIEWER)])
def one(web: TheWeb, request: Request, name: str) -> Response:
    """One channel, the jobs that name it, and its document without its secrets."""
    view = web.catalog.channels.get(name)
    return _page(web, request, view, _text(web, view), view.channel_kind)


@router.post("/channels/{name}", dependencies=[Depends(ADMIN)])
def update(web: TheWeb, who: Who, request: Request, name: str, form: Form) -> Response:
    """Save a changed channel; secrets that are left empty stay."""
    return _save(web, who, request, form, web.catalog.channels.get(name))


@router.post("/channels/{name}/test", dependencies=[Depends(ADMIN)])
def test(web: TheWeb, who: Who, request: Request, name: str, form: Form) -> Response:
    """Send a test alert at once; what the provider said stands on the page."""
    only(form)
    view = web.catalog.channels.get(name)
    try:
        answer = web.catalog.channels.test(name, who.actor, address_of=address_of(request))
    except CronyError as error:
        return _page(web, request, view, _text(web, view), view.channel_kind, error=error)
    return _page(web, request, view, _text(web, view), view.channel_kind, answer=answer)


@router.post("/channels/{name}/delete", dependencies=[Depends(ADMIN)])
def delete(web: TheWeb, who: Who, request: Request, name: str, form: Form) -> Response:
    """Delete a channel that neither a job nor a rule names."""
    only(form)
    web.catalog.channels.delete(name, who.actor, address=address_of(request))
    return go("/channels", "channel-deleted")


@router.get("/alert-rules/new", dependencies=[Depends(ADMIN)])
def new_rule(web: TheWeb, request: Request) -> Response:
    """An empty rule."""
    return _rule_page(web, request, None, RULE)


@router.post("/alert-rules/new", dependencies=[Depends(ADMIN)])
def create_rule(web: TheWeb, who: Who, request: Request, form: Form) -> Response:
    """Save a new rule; a name that is taken is refused."""
    return _save_rule(web, who, request, form, None)


@router.get("/alert-rules/{name}", dependencies=[Depends(VIEWER)])
def one_rule(web: TheWeb, request: Request, name: str) -> Response:
    """One rule."""
    view = web.catalog.alert_rules.get(name)
    return _rule_page(web, request, view, documents.write(view.document))


@router.post("/alert-rules/{name}", dependencies=[Depends(ADMIN)])
def update_rule(web: TheWeb, who: Who, request: Request, name: str, form: Form) -> Response:
    """Save a changed rule."""
    return _save_rule(web, who, request, form, web.catalog.alert_rules.get(name))


@router.post("/alert-rules/{name}/delete", dependencies=[Depends(ADMIN)])
def delete_rule(web: TheWeb, who: Who, request: Request, name: str, form: Form) -> Response:
    """Delete a rule."""
    only(form)
    web.catalog.alert_rules.delete(name, who.actor, address=address_of(request))
    return go("/channels", "rule-deleted")


def _text(web: Web, view: ChannelView) -> str:
    """The document without its secrets: they have fields of their own."""
    shown = {name: value for name, value in view.shown.items() if name not in SECRETS[view.channel_kind]}
    return str(documents.write(shown))


def _read(text: str, view: ObjectView | None, revision: str) -> dict[str, Any]:
    document: dict[str, Any] = documents.read(text)
    if view is not None and document.get("name") != view.name:
        raise Invalid("name", "cannot be changed", hint="make a new one, then delete this")
    if not revision.isdigit():
        raise Conflict("The form is out of date", hint="reload the page and try again")
    return document


def _save(web: Web, who: Identity, request: Request, form: dict[str, str], view: ChannelView | None) -> Response:
    values = only(form, "text", "revision", "kind", "password", "url", "secret")
    text, revision = values.get("text", ""), values.get("revision", "0")
    kind = view.channel_kind if view is not None else values.get("kind", "feishu")
    kind = kind if kind in SECRETS else "feishu"
    try:
        if _SECRET.search(text):
            raise Invalid("text", "holds a secret", hint="write it into its own field")
        document = _read(text, view, revision)
        document |= {name: values[name] for name in SECRETS[kind] if values.get(name)}
        seen = 0 if view is None else int(revision)
        saved = web.catalog.channels.save(document, who.actor, revision=seen, address=address_of(request))
    except (Invalid, Conflict) as error:
        return _page(web, request, view, _SECRET.sub("", text), kind, error=error, revision=revision)
    return go(f"/channels/{saved.name}", "channel" if saved.live else "channel-waits")


def _page(
    web: Web,
    request: Request,
    view: ChannelView | None,
    text: str,
    kind: str,
    *,
    error: CronyError | None = None,
    answer: str = "",
    revision: str | None = None,
) -> Response:
    status = 200 if error is None else int(error.status)
    return web.render.page(
        request, "channel.html", status=status, error=error, section="alerts", view=view, text=text, kind=kind,
        answer=answer, secrets=SECRETS[kind], has=view.document["has"] if view else [],
        revision=revision or (str(view.revision) if view else "0"),
    )  # fmt: skip


def _save_rule(web: Web, who: Identity, request: Request, form: dict[str, str], view: ObjectView | None) -> Response:
    values = only(form, "text", "revision")
    text, revision = values.get("text", ""), values.get("revision", "0")
    try:
        document = _read(text, view, revision)
        seen = 0 if view is None else int(revision)
        saved = web.catalog.alert_rules.save(document, who.actor, revision=seen, address=address_of(request))
    except (Invalid, Conflict) as error:
        return _rule_page(web, request, view, text, error=error, revision=revision)
    return go("/channels", "rule" if saved.live else "rule-waits")


def _rule_page(
    web: Web,
    request: Request,
    view: ObjectView | None,
    text: str,
    *,
    error: CronyError | None = None,
    revision: str | None = None,
) -> Response:
    status = 200 if error is None else int(error.status)
    return web.render.page(
        request, "alert_rule.html", status=status, error=error, section="alerts", view=view, text=text,
        revision=revision or (str(view.revision) if view else "0"),
    )  # fmt: skip
