"""HTTP as the SDK speaks it: a deadline for the whole answer, no redirects, no credentials from elsewhere.

Connections are kept per thread; a forked child opens its own.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests

from crony_sdk import forks
from crony_sdk.errors import Conflict, CronyError, Invalid, NotFound, Refused, TooLarge, Unauthorized, Unavailable

_REFUSALS: dict[int, type[Refused]] = {401: Unauthorized, 403: Unauthorized, 404: NotFound, 413: TooLarge}
_AGAIN = frozenset({408, 425, 429})


@dataclass(frozen=True)
class Answer:
    """An answer that was read whole."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> dict[str, Any]:
        """The JSON object in it. Raises `Unavailable` when there is none: something between us and Crony answered."""
        try:
            found = json.loads(self.content)
        except ValueError:
            found = None
        if not isinstance(found, dict) or "json" not in self.headers.get("Content-Type", ""):
            kind = self.headers.get("Content-Type", "no content type")
            raise Unavailable(f"what answers there is not Crony: {self.status} with {kind}", sent=True)
        return found


class Wire:
    """How to reach the platform. Proxies and certificates are only those given here, never the environment's."""

    def __init__(
        self,
        *,
        connect_timeout: float = 5.0,
        timeout: float = 20.0,
        verify: bool | str = True,
        cert: str | tuple[str, str] | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> None:
        self.connect_timeout, self.timeout = connect_timeout, timeout
        self._verify, self._cert, self._proxies = verify, cert, dict(proxies or {})
        self._local = threading.local()
        forks.renew_after_fork(self)

    def after_fork(self) -> None:
        """A child must not talk on its parent's connections."""
        self._local = threading.local()

    def request(
        self,
        method: str,
        url: str,
        *,
        token: str = "",
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        limit: int = 1024 * 1024,
        timeout: float | None = None,
    ) -> Answer:
        """One call with a JSON body. Raises `Unavailable`, or a `Refused` by its status."""
        timeout = self.timeout if timeout is None else timeout
        sent = {"Accept": "application/json", **(headers or {})}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        content = None
        if body is not None:
            content = body if isinstance(body, bytes) else encode(body)
            sent["Content-Type"] = "application/json"
        began = time.monotonic()
        try:
            with self._session().request(
                method,
                url,
                data=content,
                params=None if params is None else {k: v for k, v in params.items() if v is not None},
                headers=sent,
                timeout=(min(self.connect_timeout, timeout), timeout),
                allow_redirects=False,
                stream=True,
            ) as response:
                read = _read(response, limit, began + timeout)
                answer = Answer(response.status_code, response.headers, read)
        except (requests.ConnectTimeout, requests.exceptions.SSLError) as error:
            raise Unavailable(f"Crony cannot be reached at {_place(url)}: {_cause(error)}") from None
        except requests.ConnectionError as error:
            never = "NewConnectionError" in repr(error) or "NameResolutionError" in repr(error)
            raise Unavailable(f"Crony cannot be reached at {_place(url)}: {_cause(error)}", sent=not never) from None
        except requests.Timeout:
            raise Unavailable(f"Crony did not answer within {timeout:g} s", sent=True) from None
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader) as error:
            raise Invalid("url", f"cannot be called: {_cause(error)}") from None
        except requests.RequestException as error:
            raise Unavailable(f"the answer of Crony broke off: {_cause(error)}", sent=True) from None
        if 200 <= answer.status < 300:
            return answer
        raise problem(answer)

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            session.trust_env = False  # no token into a proxy or from a .netrc that nobody thought of
            session.verify, session.cert = self._verify, self._cert
            session.proxies.update(self._proxies)
            session.headers["User-Agent"] = "crony-sdk"
        return session


def encode(body: Any, name: str = "body") -> bytes:
    """JSON as it is sent. Raises `Invalid` for what JSON cannot hold, NaN and infinity among it."""
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid(name, f"cannot be written as JSON: {error}") from None


def problem(answer: Answer) -> CronyError:
    """What an answer other than 2xx means."""
    try:
        found = answer.json()
    except Unavailable as error:
        return error  # an error page of a proxy, a redirect: nothing of this was said by Crony
    detail = str(found.get("detail") or found.get("title") or "")
    said = f"Crony answered {answer.status}: {detail}" if detail else f"Crony answered {answer.status}"
    if answer.status in _AGAIN or answer.status >= 500 or answer.status < 400:
        after = answer.headers.get("Retry-After", "")
        return Unavailable(said, sent=True, status=answer.status, retry_after=float(after) if after.isdigit() else None)
    field = str(found.get("field") or "")
    if answer.status == 409:
        outcome, attempt = found.get("outcome"), found.get("attempt")
        return Conflict(
            said,
            detail=detail,
            field=field,
            outcome=outcome if isinstance(outcome, str) else None,
            attempt=attempt if isinstance(attempt, int) else None,
        )
    return _REFUSALS.get(answer.status, Refused)(said, status=answer.status, detail=detail, field=field)


def _read(response: requests.Response, limit: int, until: float) -> bytes:
    content = bytearray()
    for piece in response.iter_content(65536):
        content += piece
        if len(content) > limit or time.monotonic() > until:
            raise requests.exceptions.ContentDecodingError("it is too long, or takes too long")
    return bytes(content)


def _place(url: str) -> str:
    """Which server that is, without path, account or query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _cause(error: BaseException) -> str:
    """The innermost cause in a few words. Never the request: its headers hold a token."""
    seen: BaseException = error
    for _ in range(6):
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        inner = getattr(seen, "reason", None) or next(
            (arg for arg in getattr(seen, "args", ()) if isinstance(arg, BaseException)), None
        )
        if not isinstance(inner, BaseException):
            break
        seen = inner
    return f"{type(seen).__name__}: {str(seen).rpartition('object at 0x')[2].partition(': ')[2] or seen}"[:300]
