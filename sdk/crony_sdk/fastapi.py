"""One line for FastAPI and Starlette: `crony_sdk.fastapi.mount(app, service)`."""

from __future__ import annotations

from typing import Any

from crony_sdk import asgi
from crony_sdk.service import Service


def mount(application: Any, service: Service, prefix: str = "/crony") -> None:
    """Serve the handlers of a FastAPI or Starlette application under `prefix`."""
    application.mount(prefix, asgi.app(service))
