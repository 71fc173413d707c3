"""One line for Flask: `crony_sdk.flask.mount(app, service)`."""

from __future__ import annotations

import flask

from crony_sdk.service import Service
from crony_sdk.wsgi import respond


def mount(application: flask.Flask, service: Service, prefix: str = "/crony") -> None:
    """Serve the handlers under `prefix`."""

    def crony(name: str) -> flask.Response:
        response = respond(service, flask.request.environ, name)
        return flask.Response(response.body, response.status, dict(response.headers))

    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    application.add_url_rule(f"{prefix}/<path:name>", "crony_sdk", crony, methods=methods)
