"""Served by any ASGI server or framework: FastAPI, Starlette, plain uvicorn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from crony_sdk.service import Request, Response, Service, problem
from crony_sdk.wsgi import LARGEST, quoted

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def app(service: Service, *, threads: int = 16) -> Callable[[dict[str, Any], Receive, Send], Awaitable[None]]:
    """An ASGI application: the path after its mount point names the handler. Handlers run in `threads` threads."""
    pool = ThreadPoolExecutor(threads, "crony-call")

    async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = bytearray()
        more = True
        while more and len(body) <= LARGEST:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if more:
            response = problem(413, f"the body is larger than {LARGEST} bytes")
        else:
            request = _request(scope, bytes(body))
            response = await asyncio.get_running_loop().run_in_executor(pool, service.answer, request)
        await _send(send, response)

    return application


def _request(scope: dict[str, Any], body: bytes) -> Request:
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    name = path[len(root) :] if root and path.startswith(root) else path
    headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
    return Request(str(scope["method"]), target_of(scope), name.strip("/"), headers, body)


def target_of(scope: dict[str, Any]) -> str:
    """Path and query as sent."""
    query = scope.get("query_string", b"").decode("latin-1")
    raw = scope.get("raw_path")
    if not raw:
        return quoted(str(scope["path"]), query)
    return str(raw.decode("latin-1").partition("?")[0]) + (f"?{query}" if query else "")


async def _send(send: Send, response: Response) -> None:
    headers = [*response.headers.items(), ("content-length", str(len(response.body)))]
    await send(
        {
            "type": "http.response.start",
            "status": response.status,
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        }
    )
    await send({"type": "http.response.body", "body": response.body})
