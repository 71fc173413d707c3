"""What the pages share: their dependencies, and going back to where the reader was."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote, urlsplit

from fastapi import Depends, Request
from starlette.responses import RedirectResponse, Response

from crony.web.auth import Identity
from crony.web.forms import read_form
from crony.web.wiring import Web


async def _web(request: Request) -> Web:
    found: Web = request.app.state.web
    return found


async def _who(request: Request) -> Identity:
    found: Identity = request.state.identity
    return found


TheWeb = Annotated[Web, Depends(_web)]
Who = Annotated[Identity, Depends(_who)]
Form = Annotated[dict[str, str], Depends(read_form)]


def go(target: str, done: str = "") -> Response:
    """Go to a page after a change; `done` names the notice it shows."""
    if done:
        target += ("&" if "?" in target else "?") + f"done={quote(done)}"
    return RedirectResponse(target, 303)


def local_path(target: str, default: str = "/jobs", *, signin: bool = False) -> str:
    """`target` when it is a path of this console, else `default`: a link must not lead elsewhere after sign-in.

    `signin` also allows the sign-in pages themselves.
    """
    parts = urlsplit(target)
    plain = target.isprintable() and "\\" not in target and len(target) < 2000
    if not plain or parts.scheme or parts.netloc or not target.startswith("/") or target.startswith("//"):
        return default
    return default if not signin and target.startswith(("/signin", "/signout")) else target


def without_done(path: str) -> str:
    """The address without an old notice."""
    base, _, query = path.partition("?")
    kept = [part for part in query.split("&") if part and not part.startswith("done=")]
    return f"{base}?{'&'.join(kept)}" if kept else base
