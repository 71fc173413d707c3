"""Served by any WSGI server, or by the standard library alone: `serve(Service(…))`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import quote
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from crony_sdk.service import Request, Response, Service, problem

LARGEST = 64 * 1024 * 1024


def app(service: Service) -> Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]:
    """A WSGI application: the path after its mount point names the handler."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        response = respond(service, environ, _decoded(environ.get("PATH_INFO", "")).strip("/"))
        phrase = HTTPStatus(response.status).phrase
        start_response(
            f"{response.status} {phrase}",
            [*response.headers.items(), ("Content-Length", str(len(response.body)))],
        )
        return [response.body]

    return application


def respond(service: Service, environ: dict[str, Any], name: str) -> Response:
    """The answer to a WSGI request for this handler."""
    try:
        length = int(environ.get("CONTENT_LENGTH") or 0)
    except ValueError:
        return problem(400, "Content-Length is no number")
    if length > LARGEST:
        return problem(413, f"the body is larger than {LARGEST} bytes")
    body = environ["wsgi.input"].read(length) if length > 0 else b""
    method = str(environ.get("REQUEST_METHOD", "GET"))
    return service.answer(Request(method, target_of(environ), name, headers_of(environ), body))


def headers_of(environ: dict[str, Any]) -> dict[str, str]:
    """The request's headers."""
    headers = {name[5:].replace("_", "-"): str(value) for name, value in environ.items() if name.startswith("HTTP_")}
    if environ.get("CONTENT_TYPE"):
        headers["Content-Type"] = str(environ["CONTENT_TYPE"])
    return headers


def target_of(environ: dict[str, Any], path: str | None = None) -> str:
    """Path and query as sent, where the server tells them (most do); else put together again.

    `path` is the whole path, decoded, for those who have changed the environment.
    """
    raw = str(environ.get("RAW_URI") or environ.get("REQUEST_URI") or "")
    if raw:
        return raw if raw.startswith("/") else "/" + raw.partition("://")[2].partition("/")[2]
    if path is None:
        path = _decoded(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))
    return quoted(path, str(environ.get("QUERY_STRING", "")))


def quoted(path: str, query: str) -> str:
    """A target as most clients write it."""
    return quote(path, safe="/~!$&'()*+,;=:@-._") + (f"?{query}" if query else "")


def _decoded(text: str) -> str:
    return text.encode("latin-1").decode("utf-8", "replace")


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128


class _RequestHandler(WSGIRequestHandler):
    timeout = 60
    disable_nagle_algorithm = True  # an answer is written in two pieces

    def get_environ(self) -> dict[str, Any]:
        environ = super().get_environ()
        environ["REQUEST_URI"] = self.path
        return environ

    def log_message(self, *args: Any) -> None:
        pass


def serve(
    service: Service,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    ready: Callable[[int], None] | None = None,
    grace: float = 10.0,
) -> None:
    """Serve until SIGTERM or SIGINT, then close the service within `grace` seconds. `ready` is told the port.

    One thread per connection, HTTP without TLS: for small things, and behind a proxy.
    """
    with _Server((host, port), _RequestHandler) as server:
        server.set_app(app(service))
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: threading.Thread(target=server.shutdown, daemon=True).start())
        if ready is not None:
            ready(server.server_port)
        server.serve_forever(0.1)
    service.close(grace)
