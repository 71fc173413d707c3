"""A web process for tests: the real application over a real etcd and SQLite, through Starlette's client."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from crony.domain.signing import new_key
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.settings import Settings
from crony.store import accounts, signin
from crony.store.db import Database
from crony.web.app import create_app
from crony.web.wiring import Web
from tests.helpers.etcd import EtcdServer

BASE = "http://crony.test"
NOBODY: Any = object()
PASSWORD = "three quiet green lamps"


def web_settings(endpoint: str, namespace: str, folder: Path, **changes: Any) -> Settings:
    """Settings of a web over this etcd, with its own SQLite file and signing key."""
    values: dict[str, Any] = {
        "namespace": namespace,
        "etcd_endpoints": (endpoint,),
        "etcd_timeout": 2.0,
        "database_url": f"sqlite:///{folder}/crony.db",
        "signing_key": new_key()[0],
        "imports": ("shop.tasks",),
    }
    return Settings(**(values | changes))


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database with one administrator, copied for each test: migrations and Argon2 run once."""
    file = tmp_path_factory.mktemp("db") / "crony.db"
    db = Database(f"sqlite:///{file}")
    db.upgrade()
    for role in ("admin", "operator", "viewer"):
        accounts.create_user(db, role, role, PASSWORD, actor="test")
    db.close()
    return file


@pytest.fixture
def web(etcd: EtcdServer, keys: Keys, tmp_path: Path, template: Path) -> Iterator[Web]:
    """The parts of a web process in a namespace of its own."""
    (tmp_path / "crony.db").write_bytes(template.read_bytes())
    parts = Web(web_settings(etcd.endpoint, keys.namespace, tmp_path))
    yield parts
    parts.close()


@pytest.fixture(scope="session")
def _app() -> FastAPI:
    """The application, wired once; each test puts its own parts into it."""
    stand_in = Web(Settings(database_url="sqlite:////nonexistent/crony.db", signing_key=new_key()[0]), db=NOBODY)
    return create_app(stand_in.settings, web=stand_in)


@pytest.fixture
def app(_app: FastAPI, web: Web) -> FastAPI:
    """The application over this test's parts."""
    _app.state.web = web
    return _app


@pytest.fixture
def anonymous(app: Any) -> TestClient:
    """A client that says nothing about itself; errors of the server are answers, not exceptions."""
    return TestClient(app, base_url=BASE, raise_server_exceptions=False, follow_redirects=False)


class Api:
    """A client with a bearer token; paths are those under `/api/v1/`."""

    def __init__(self, client: TestClient, token: str) -> None:
        self.client, self.headers = client, {"authorization": f"Bearer {token}"}

    def __call__(self, method: str, path: str, *, headers: dict[str, str] | None = None, **options: Any) -> Any:
        """One call."""
        return self.client.request(method, f"/api/v1/{path}", headers=self.headers | (headers or {}), **options)


@pytest.fixture
def api_as(web: Web, anonymous: TestClient) -> Callable[[str], Api]:
    """A client of the API with a token of this scope."""
    return lambda scope: Api(anonymous, accounts.create_token(web.db, scope, scope, actor="test")[0])


@pytest.fixture
def api(api_as: Callable[[str], Api]) -> Api:
    """A client of the API that may do everything."""
    return api_as("admin")


class Browser:
    """A signed-in browser without script: a cookie, the headers browsers send, and the token of its forms."""

    def __init__(self, app: Any, web: Web, user: str = "admin") -> None:
        self.client = TestClient(app, base_url=BASE, raise_server_exceptions=False, follow_redirects=False)
        found = accounts.get_user(web.db, user)
        secret, session = signin.open_session(web.db, found.id)
        self.client.cookies.set("crony_session", secret)
        self.secret, self.csrf = secret, session.csrf

    def get(self, path: str, **options: Any) -> Any:
        """A page."""
        return self.client.get(path, **options)

    def post(self, path: str, fields: dict[str, str] | None = None, **options: Any) -> Any:
        """A form, sent from our own page."""
        headers = {"origin": BASE, **options.pop("headers", {})}
        return self.client.post(path, data={"_csrf": self.csrf, **(fields or {})}, headers=headers, **options)


@pytest.fixture
def browser(app: Any, web: Web) -> Browser:
    """A signed-in administrator."""
    return Browser(app, web)


@pytest.fixture
def browser_as(app: Any, web: Web) -> Callable[[str], Browser]:
    """A signed-in browser of this role."""
    return lambda role: Browser(app, web, role)


def document(name: str = "demo", **changes: Any) -> dict[str, Any]:
    """A job document."""
    base = {"name": name, "schedule": {"cron": "30 1 * * *", "timezone": "Asia/Shanghai"},
            "action": {"kind": "shell", "command": ["date", "-u"]}}  # fmt: skip
    return base | changes


def text_of(html: str) -> str:
    """A page's text, for looking for sentences."""
    return re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", html))


@pytest.fixture
def etcd_client(web: Web) -> Client:
    """The web's own etcd client."""
    return web.client
