"""One line each: Flask, FastAPI, Django, any WSGI or ASGI server, and the standard library's own, on real sockets.

The signature covers the target as it was sent, which no two servers hand on alike.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
import requests
import uvicorn
from crony_sdk import Context, Handlers, Service, asgi, wsgi
from crony_sdk.testing import SECRET, FakePlatform

from tests.helpers.server import die_with_parent
from tests.helpers.wait import until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def service(handler: Handlers) -> Iterator[Service]:
    @handler("billing/close day 日")
    def plain(context: Context) -> dict[str, Any]:
        return {"params": context.params, "job": context.call.job}

    @handler("long", background=True)
    def long(context: Context) -> str:
        context.log("working")
        return "done"

    made = Service(secrets=[SECRET], handlers=handler)
    yield made
    made.close(5)


@contextmanager
def wsgi_server(application: Any) -> Iterator[str]:
    """A server that tells no raw target."""

    class Quiet(WSGIRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    class Server(WSGIServer):
        def server_bind(self) -> None:
            WSGIServer.server_bind(self)

    with make_server("127.0.0.1", 0, application, Server, Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextmanager
def asgi_server(application: Any) -> Iterator[str]:
    config = uvicorn.Config(application, port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    until(lambda: server.started, 20, "uvicorn")
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@contextmanager
def flask_app(service: Service) -> Iterator[str]:
    import crony_sdk.flask
    import flask

    app = flask.Flask("shop")
    crony_sdk.flask.mount(app, service)
    with wsgi_server(app) as url:
        yield f"{url}/crony"


@contextmanager
def fastapi_app(service: Service) -> Iterator[str]:
    import crony_sdk.fastapi
    import fastapi

    app = fastapi.FastAPI()
    crony_sdk.fastapi.mount(app, service)
    with asgi_server(app) as url:
        yield f"{url}/crony"


@contextmanager
def django_app(service: Service, server: Callable[[Any], Any], kind: str) -> Iterator[str]:
    import crony_sdk.django
    import django
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.core.wsgi import get_wsgi_application
    from django.urls import path

    urls = type(sys)("shop_urls")
    urls.urlpatterns = [path("crony/<path:name>", crony_sdk.django.view(service))]  # type: ignore[attr-defined]
    if not settings.configured:
        middleware = ["django.middleware.csrf.CsrfViewMiddleware"]
        settings.configure(ROOT_URLCONF="shop_urls", ALLOWED_HOSTS=["*"], MIDDLEWARE=middleware, SECRET_KEY="x" * 50)
        django.setup()
    sys.modules["shop_urls"] = urls
    django.urls.clear_url_caches()
    with server(get_wsgi_application() if kind == "wsgi" else get_asgi_application()) as url:
        yield f"{url}/crony"


@contextmanager
def at_root(server: Any, application: Any) -> Iterator[str]:
    with server(application) as url:
        yield url


PLACES: dict[str, Callable[[Service], Any]] = {
    "flask": flask_app,
    "fastapi": fastapi_app,
    "django-wsgi": lambda service: django_app(service, wsgi_server, "wsgi"),
    "django-asgi": lambda service: django_app(service, asgi_server, "asgi"),
    "wsgi": lambda service: at_root(wsgi_server, wsgi.app(service)),
    "asgi": lambda service: at_root(asgi_server, asgi.app(service)),
}


@pytest.mark.parametrize("place", PLACES)
def test_served_in_one_line(crony: FakePlatform, service: Service, place: str) -> None:
    with PLACES[place](service) as url:
        plain = crony.call(url, "billing/close day 日", {"region": "中"}, later=False)
        assert (plain.status, plain.result) == (200, {"params": {"region": "中"}, "job": "billing/close day 日"})
        assert plain.response is not None and plain.response.headers["Content-Type"] == "application/json"
        later = crony.call(url, "long")
        assert later.status == 202 and later.wait().result == "done" and later.output == b"working\n"
        # A query, and characters that could be written in another way.
        attempt, target = crony.attempt(later=False), "/billing/close%20day%20%E6%97%A5?at=1%2B1&day=a+b"
        path = url.partition("//")[2].partition("/")[2]
        full = (f"/{path}" if path else "") + target
        headers = {**attempt.headers, **crony.signature(attempt, "GET", full, b"")}
        answer = requests.get(url + target, headers=headers, timeout=30)
        assert (answer.status_code, answer.json()["params"]) == (200, {"at": "1+1", "day": "a b"})
        # Nothing without a signature, and problems are problems everywhere.
        attempt.headers["X-Crony-Signature"] = "v1=" + "0" * 64
        refused = requests.post(f"{url}/long", headers=attempt.headers, data=b"{}", timeout=30)
        assert refused.status_code == 401
        assert refused.headers["Content-Type"].startswith("application/problem+json")
        assert crony.call(url, "unknown").status == 404


SERVICE = """
import sys, crony_sdk
from crony_sdk import wsgi

@crony_sdk.handler("plain")
def plain(context):
    return context.params

@crony_sdk.handler("long", background=True)
def long(context):
    context.wait_cancelled(60)

service = crony_sdk.Service(spool=sys.argv[1])
wsgi.serve(service, port=0, ready=lambda port: print(port, flush=True), grace=0.5)
print("stopped", flush=True)
"""


def test_the_standard_librarys_server_in_a_process_of_its_own(crony: FakePlatform, tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "sdk"), "CRONY_CALL_SECRETS": SECRET}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVICE, str(tmp_path / "spool")],
        env=environ,
        stdout=subprocess.PIPE,
        preexec_fn=die_with_parent,
    )
    assert process.stdout is not None
    with process.stdout:
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        plain = crony.call(url, "plain", {"n": 1}, later=False)
        assert (plain.status, plain.result) == (200, {"n": 1})
        large = requests.post(f"{url}/plain", headers={"Content-Length": str(10**12)}, timeout=30)
        assert large.status_code == 413
        later = crony.call(url, "long")
        assert later.status == 202
        process.send_signal(signal.SIGTERM)
        assert process.wait(150) == 0
        assert process.stdout.read() == b"stopped\n"
    assert (later.outcome, json.dumps(later.reason)) == ("failed", '"the service was stopped before it was done"')
