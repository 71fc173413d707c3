"""The REST API as the command line sees it: one small client, its answers as data, its problems as `CronyError`s.

Where the server is: `--api`, else `CRONY_API`, else the file that a running `crony dev` left in `.crony/`
of the working directory. Address and token are taken from the same place, so that a token meant for one
server never reaches another.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote, urlsplit

import click
import requests

from crony import settings
from crony.cli import show
from crony.errors import Conflict, CronyError, Forbidden, Invalid, NotFound, TimedOut, Unavailable, Unknown

CONTEXT = Path(".crony/cli.env")
Function = TypeVar("Function", bound=Callable[..., Any])
_BY_STATUS: dict[int, type[CronyError]] = {
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: Conflict,
    428: Conflict,
    429: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: TimedOut,
}


@dataclass(frozen=True, slots=True)
class Target:
    """A server and how to be let in; `source` says where both were found."""

    base: str
    token: str
    source: str


def find(api: str | None = None, *, environ: Mapping[str, str] | None = None, context: Path = CONTEXT) -> Target:
    """The server to talk to. Raises `Invalid` for an address that is none."""
    environ = os.environ if environ is None else environ
    given = settings.load(environ)
    if api:
        return Target(_address(api, "--api"), given.token, "--api")
    if given.api:
        return Target(_address(given.api, "CRONY_API"), given.token, "CRONY_API")
    if not given.token and (found := read_context(context)):
        return Target(_address(found.get("CRONY_API", ""), str(context)), found.get("CRONY_TOKEN", ""), str(context))
    return Target("http://127.0.0.1:8400", given.token, "the default")


def read_context(path: Path) -> dict[str, str]:
    """`NAME=value` lines of the file `crony dev` writes; empty unless it is ours, and ours alone to read and write."""
    try:
        with open(path, encoding="utf-8") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
                return {}
            pairs = (line.strip().partition("=") for line in file if not line.startswith("#"))
            return {name: "".join(shlex.split(value)) for name, _, value in pairs if name}
    except (OSError, ValueError):  # not ours to read, or no such lines
        return {}


def spoken(environ: Mapping[str, str]) -> str:
    """The language of the terminal (LC_ALL, LC_MESSAGES, LANG) for sentences that the server writes: zh or en."""
    locale = next((environ[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if environ.get(name)), "")
    return "zh" if locale.lower().startswith("zh") else "en"


class Api:
    """Calls of `/api/v1`. Every method raises a `CronyError` that says what was tried."""

    def __init__(self, target: Target, *, timeout: float = 15.0) -> None:
        self.target, self.timeout = target, timeout
        self._session = requests.Session()
        self._session.trust_env = False  # no token into a proxy or from a .netrc that nobody thought of
        self._session.headers["Accept"] = "application/json"
        self._session.headers["User-Agent"] = "crony-cli"
        self._session.headers["Accept-Language"] = spoken(os.environ)
        if target.token:
            self._session.headers["Authorization"] = f"Bearer {target.token}"

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        revision: int | None = None,
    ) -> Any:
        """The JSON answer of one call (None for an empty one). `revision`: only if that is the present one still."""
        answer = self._send(method, path, body=body, query=query, revision=revision)
        if not answer.content:
            return None
        if "json" not in answer.headers.get("Content-Type", ""):
            raise self._not_ours(answer)
        try:
            return answer.json()
        except ValueError:
            raise self._not_ours(answer) from None

    def get(self, path: str, **query: Any) -> Any:
        """The JSON answer of a GET; query values that are None are left out."""
        return self.call("GET", path, query=query)

    def pages(self, path: str, *, limit: int, **query: Any) -> Iterator[dict[str, Any]]:
        """The items of a list, page after page, at most `limit`."""
        cursor: str | None = None
        while limit > 0:
            page = self.get(path, limit=min(limit, 200), cursor=cursor, **query)
            yield from page["items"][:limit]
            limit -= len(page["items"])
            cursor = page.get("next_cursor")
            if not cursor or not page["items"]:
                return

    def text(self, path: str, **query: Any) -> tuple[bytes, Mapping[str, str]]:
        """Body and headers of an answer of text, or of lines of JSON."""
        answer = self._send("GET", path, query=query, accept="text/plain, application/x-ndjson")
        if not answer.headers.get("Content-Type", "").startswith(("text/plain", "application/x-ndjson")):
            raise self._not_ours(answer)
        return answer.content, answer.headers

    def events(self, path: str, *, last: str = "", **query: Any) -> Iterator[tuple[str, str, str]]:
        """(event, data, id) of a stream of server-sent events, until it ends. `last`: the id to go on from. Raises
        `Unavailable` when the line breaks."""
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
        url = f"{self.target.base}/api/v1/{path}"
        params = {key: value for key, value in query.items() if value is not None}
        try:
            with self._session.get(
                url, params=params, headers=headers, timeout=(self.timeout, 60), stream=True, allow_redirects=False
            ) as answer:
                if not answer.ok:
                    raise self._problem(answer)
                if not answer.headers.get("Content-Type", "").startswith("text/event-stream"):
                    raise self._not_ours(answer)
                told: dict[str, str] = {}
                for line in answer.iter_lines(chunk_size=1):
                    name, _, value = line.decode("utf-8", "replace").partition(": ")
                    if name:
                        told[name] = value
                    else:
                        if "data" in told:
                            yield told.get("event", ""), told["data"], told.get("id", "")
                        told = {}
        except requests.RequestException as error:
            raise self._away(error) from None

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        accept: str | None = None,
        revision: int | None = None,
    ) -> requests.Response:
        url = f"{self.target.base}/api/v1/{path}"
        params = {key: value for key, value in (query or {}).items() if value is not None}
        headers = {"Accept": accept} if accept else {}
        if revision is not None:
            headers["If-Match"] = f'"{revision}"'
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        if content is not None:
            headers["Content-Type"] = "application/json"
        try:
            answer = self._session.request(
                method, url, data=content, params=params, headers=headers, timeout=self.timeout, allow_redirects=False
            )
        except (requests.ConnectTimeout, requests.exceptions.SSLError) as error:
            raise self._away(error) from None
        except requests.ConnectionError as error:
            # A refused connection never carried the request; a broken one may have.
            if method == "GET" or "NewConnectionError" in repr(error) or "NameResolutionError" in repr(error):
                raise self._away(error) from None
            raise self._lost(method, path, error) from None
        except requests.Timeout as error:
            if method == "GET":
                raise self._away(error) from None
            raise self._lost(method, path, error) from None
        except requests.RequestException as error:
            raise Invalid("", f"the request to {url} could not be made: {error}") from None
        if answer.ok and not answer.is_redirect:
            return answer
        raise self._problem(answer)

    def _problem(self, answer: requests.Response) -> CronyError:
        try:
            problem = answer.json()
            title = str(problem.get("title") or "")
            detail, hint = str(problem.get("detail") or ""), str(problem.get("hint") or "")
        except (ValueError, AttributeError):
            return self._not_ours(answer)
        if answer.status_code == 401:
            return Forbidden(
                "not signed in" if not self.target.token else "the token is not accepted",
                why=f"{self.target.base} ({self.target.source}) answered: {detail or title}",
                hint="set CRONY_TOKEN or CRONY_TOKEN_FILE, or work in the directory of a running `crony dev`",
            )
        kind = _BY_STATUS.get(answer.status_code)
        if kind is not None:
            return kind(detail or title, hint=hint)
        if answer.status_code < 500:
            return Invalid(str(problem.get("field") or ""), _without(problem.get("field"), detail or title), hint=hint)
        return CronyError(f"the server failed with {answer.status_code}", why=detail or title, hint=hint)

    def _not_ours(self, answer: requests.Response) -> CronyError:
        kind = answer.headers.get("Content-Type", "no content type")
        return Unavailable(
            f"{self.target.base} does not answer like Crony's API",
            why=f"it said {answer.status_code} with {kind}",
            hint=f"the address comes from {self.target.source}; is there a proxy or another service?",
        )

    def _away(self, error: Exception) -> CronyError:
        return Unavailable(
            f"no server answers at {self.target.base} (from {self.target.source})",
            why=_cause(error),
            hint="start one with `crony dev` or `crony web`, or name another one with CRONY_API or --api",
        )

    def _lost(self, method: str, path: str, error: Exception) -> CronyError:
        return Unknown(
            f"{method} {path} was sent to {self.target.base}, and the answer was lost",
            why=_cause(error),
            hint="it may have been carried out: look before you repeat it",
        )


def api_option(function: Function) -> Function:
    """`--api URL`; the command gets an `Api` named `api`."""

    def build(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> Api:
        return Api(find(value))

    return click.option(
        "--api",
        callback=build,
        metavar="URL",
        help="Address of the server (default: CRONY_API, else a `crony dev` of this directory).",
    )(function)


def segment(text: str) -> str:
    """A name or id as one segment of a path."""
    if not text or text in (".", ".."):
        raise Invalid("name", "is empty" if not text else f"cannot be {text!r}")
    return quote(text, safe="")


def items(api: Api, path: str, *, limit: int, form: str, **query: Any) -> list[dict[str, Any]] | None:
    """The items of a list; with form `json` they are printed and None is returned."""
    found = list(api.pages(path, limit=limit, **query))
    if form == "json":
        show.data(found)
        return None
    return found


def _address(text: str, source: str) -> str:
    try:
        parts = urlsplit(text.strip().rstrip("/"))
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or parts.query or parts.fragment or parts.username:
        shown = re.sub(r"//[^/]*@", "//…@", text)  # a password may stand there
        raise Invalid(source, f"{shown!r} is not the address of a server", hint="write http://host:port")
    return parts.geturl()


def _without(field: object, detail: str) -> str:
    return detail.removeprefix(f"{field}: ") if field else detail


def _cause(error: Exception) -> str:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        seen = seen.__cause__ or seen.__context__
    reason = getattr(cast(Any, error).args[0] if error.args else None, "reason", error)
    return str(reason).split(": ", 1)[-1]
