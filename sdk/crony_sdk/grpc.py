"""One line for a gRPC server: `crony_sdk.grpc.mount(server, service)`; or `crony_sdk.grpc.serve(service)`.

Needs the extra `grpc`. A process that forks starts its server afterwards: gRPC does not survive a fork.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from crony_sdk import callback_pb2 as pb
from crony_sdk.contract import Call
from crony_sdk.errors import Failed, NotACall
from crony_sdk.service import Request, Response, Service

SERVICE = "crony.v1.JobService"
"""The contract: `proto/crony/v1/callback.proto`."""
_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ABORTED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.RESOURCE_EXHAUSTED,  # not UNAVAILABLE, which leaves open whether the work was begun
}


def mount(server: Any, service: Service) -> None:
    """Serve the handlers by `crony.v1.JobService` of a `grpc.Server`, before it is started."""
    methods: dict[str, Any] = {
        # Bytes as they were sent: that is what is signed.
        "Run": grpc.unary_unary_rpc_method_handler(lambda request, context: _run(service, request, context)),
        "Cancel": grpc.unary_unary_rpc_method_handler(lambda request, context: _cancel(service, request, context)),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))


def serve(
    service: Service,
    address: str = "127.0.0.1:50051",
    *,
    credentials: Any = None,
    threads: int = 16,
    ready: Callable[[int], None] | None = None,
    grace: float = 10.0,
) -> None:
    """Serve until SIGTERM or SIGINT, then take nothing more and close the service within `grace` seconds.

    `credentials`: `grpc.ssl_server_credentials(…)` for TLS. `ready` is told the port. With a health check, where
    `grpcio-health-checking` is installed.
    """
    server = grpc.server(futures.ThreadPoolExecutor(threads, thread_name_prefix="crony-grpc"))
    mount(server, service)
    health = _health(server)
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    stop = threading.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
    server.start()
    if ready is not None:
        ready(port)
    while not stop.wait(0.2):
        pass
    if health is not None:
        health.enter_graceful_shutdown()
    service.close(grace)
    server.stop(grace).wait()


def _run(service: Service, data: bytes, context: Any) -> bytes:
    try:
        request = pb.RunRequest.FromString(data)
    except DecodeError:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is no crony.v1.RunRequest")
        raise
    answered = threading.Event()
    asked = _request("Run", data, context, name=request.handler, content=request.params_json.encode())

    def over() -> None:
        if not answered.is_set():
            try:
                service.hang_up(Call.from_headers(asked.headers))
            except NotACall:
                return

    context.add_callback(over)
    response = service.answer(asked)
    answered.set()
    return _response(response, context).SerializeToString()


def _cancel(service: Service, data: bytes, context: Any) -> bytes:
    response = service.cancel(_request("Cancel", data, context))
    if response.status != 200:
        _abort(response, context)
    return pb.CancelResponse().SerializeToString()


def _request(method: str, data: bytes, context: Any, *, name: str = "", content: bytes = b"") -> Request:
    pairs = context.invocation_metadata() or ()
    headers = {str(key): value for key, value in pairs if isinstance(value, str)}
    headers["content-type"] = "application/json"  # of the content
    return Request("POST", f"/{SERVICE}/{method}", name, headers, data, content)


def _response(response: Response, context: Any) -> pb.RunResponse:
    if response.status == 202:
        return pb.RunResponse(accepted=pb.Accepted())
    if response.status == 200:
        return pb.RunResponse(done=pb.Done(result_json=response.body.decode()))
    if response.status == 500:
        found = response.failure or Failed(_detail(response))
        return pb.RunResponse(failed=pb.Failed(reason=found.reason, code=found.code, final=found.final))
    _abort(response, context)
    raise AssertionError("abort raises")


def _abort(response: Response, context: Any) -> None:
    code = _STATUS.get(response.status, grpc.StatusCode.INTERNAL)
    context.abort(code, _detail(response))


def _detail(response: Response) -> str:
    return str(json.loads(response.body).get("detail", ""))[:500]


def _health(server: Any) -> Any:
    try:
        from grpc_health.v1 import health, health_pb2_grpc
    except ImportError:
        return None
    servicer = health.HealthServicer()
    servicer.set(SERVICE, "SERVING")
    servicer.set("", "SERVING")
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    return servicer
