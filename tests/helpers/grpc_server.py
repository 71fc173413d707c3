"""gRPC servers for tests, each a process of its own: a foreign service with reflection, one with the contract."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.server import die_with_parent
from tests.helpers.wait import until

ROOT = Path(__file__).parents[2]
LEDGER = "ledger.v1.Ledger"


@dataclass
class GrpcServer:
    """A running server. `asked()`: the calls it has had, in order."""

    popen: subprocess.Popen[bytes]
    address: str
    journal: Path

    def asked(self) -> list[dict[str, Any]]:
        """Each call: method, request, metadata, what became of it."""
        return [json.loads(line) for line in self.journal.read_text().splitlines()] if self.journal.exists() else []

    def runs(self) -> list[str]:
        """The runs that were asked for, in order."""
        return [one["metadata"].get("x-crony-run", "") for one in self.asked() if one["event"] == "called"]

    def signal(self, number: int) -> None:
        """Kill, stop or continue it."""
        os.kill(self.popen.pid, number)
        if number == signal.SIGKILL:
            self.popen.wait()


@contextmanager
def grpc_server(folder: Path, **options: Any) -> Iterator[GrpcServer]:
    """Serve until the end. Options: port, reflection (v1, v1alpha, ""), health (status name or ""), cert, key, ca."""
    folder.mkdir(parents=True, exist_ok=True)
    ready, journal = folder / f"ready-{time.monotonic_ns()}", folder / "journal"
    told = json.dumps({**options, "ready": str(ready), "journal": str(journal)})
    with (folder / "log").open("ab") as log:
        popen = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.grpc_server", told], cwd=ROOT, stdout=log, stderr=log,
            preexec_fn=die_with_parent, env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'sdk'}"},
        )  # fmt: skip
    try:
        until(lambda: ready.exists() or popen.poll() is not None, 20, "the gRPC server is ready")
        assert popen.poll() is None, (folder / "log").read_text()
        yield GrpcServer(popen, f"127.0.0.1:{ready.read_text()}", journal)
    finally:
        popen.kill()
        popen.wait()


@contextmanager
def sdk_server(folder: Path, secret: str, port: int = 0) -> Iterator[GrpcServer]:
    """A service with the SDK (tests/helpers/sdk_grpc_service.py); its marks are in `folder / "marks"`."""
    folder.mkdir(parents=True, exist_ok=True)
    ready = folder / "ready"
    ready.unlink(missing_ok=True)
    with (folder / "log").open("ab") as log:
        popen = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.sdk_grpc_service", str(folder), secret, str(port)], cwd=ROOT,
            stdout=log, stderr=log, preexec_fn=die_with_parent,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'sdk'}"},
        )  # fmt: skip
    try:
        until(lambda: _complete(ready) or popen.poll() is not None, 20, "the service is ready")
        assert popen.poll() is None, (folder / "log").read_text()
        yield GrpcServer(popen, f"127.0.0.1:{ready.read_text().strip()}", folder / "marks")
    finally:
        popen.kill()
        popen.wait()


def _complete(file: Path) -> bool:
    return file.exists() and file.read_text().endswith("\n")


def _schema() -> Any:
    """`ledger.v1.Ledger`, in two files of which one needs a type of Google's, in a pool that nobody else knows."""
    from google.protobuf import descriptor_pb2, descriptor_pool, timestamp_pb2

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    field = descriptor_pb2.FieldDescriptorProto
    types = descriptor_pb2.FileDescriptorProto(
        name="ledger/v1/types.proto", package="ledger.v1", syntax="proto3",
        dependency=["google/protobuf/timestamp.proto"],
    )  # fmt: skip
    day = types.message_type.add(name="Day")
    day.field.add(name="name", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    day.field.add(
        name="at", number=2, type=field.TYPE_MESSAGE, label=field.LABEL_OPTIONAL,
        type_name=".google.protobuf.Timestamp",
    )  # fmt: skip
    day.field.add(name="row_count", number=3, type=field.TYPE_INT64, label=field.LABEL_OPTIONAL)
    pool.AddSerializedFile(types.SerializeToString())
    service = descriptor_pb2.FileDescriptorProto(
        name="ledger/v1/ledger.proto", package="ledger.v1", syntax="proto3", dependency=["ledger/v1/types.proto"]
    )
    made = service.service.add(name="Ledger")
    made.method.add(name="Close", input_type=".ledger.v1.Day", output_type=".ledger.v1.Day")
    made.method.add(name="Watch", input_type=".ledger.v1.Day", output_type=".ledger.v1.Day", server_streaming=True)
    pool.AddSerializedFile(service.SerializeToString())
    return pool


def _serve(told: dict[str, Any]) -> None:
    import grpc
    from google.protobuf import json_format, message_factory
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

    pool = _schema()
    day = message_factory.GetMessageClass(pool.FindMessageTypeByName("ledger.v1.Day"))
    journal = open(told["journal"], "a", buffering=1)  # noqa: SIM115

    def close(request: Any, context: Any) -> Any:
        """Whatever the name of the day says."""
        metadata = dict(context.invocation_metadata())

        def note(event: str) -> None:
            found = json_format.MessageToDict(request, preserving_proto_field_name=True, descriptor_pool=pool)
            journal.write(json.dumps({"event": event, "request": found, "metadata": metadata}) + "\n")

        note("called")
        word, _, rest = request.name.partition(":")
        if word == "abort":
            context.abort(grpc.StatusCode[rest], "on purpose")
        elif word == "die":
            os._exit(1)
        elif word == "raise":
            raise ValueError("no luck")
        elif word == "sleep":
            until_ = time.monotonic() + float(rest)
            while time.monotonic() < until_:
                if not context.is_active():
                    note("cancelled")
                    return day()
                time.sleep(0.01)
        elif word == "big":
            return day(name="x" * int(rest))
        return day(name=f"closed {request.name}", at=request.at, row_count=3)

    server = grpc.server(futures.ThreadPoolExecutor(16))
    handler = grpc.unary_unary_rpc_method_handler(
        close, request_deserializer=day.FromString, response_serializer=day.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(LEDGER, {"Close": handler}),))
    version = told.get("reflection", "v1alpha")
    if version == "v1alpha":
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
            reflection.ReflectionServicer([LEDGER], pool=pool), server
        )
    elif version == "v1":
        there = reflection.ReflectionServicer([LEDGER], pool=pool)
        info = grpc.stream_stream_rpc_method_handler(
            there.ServerReflectionInfo,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        name = "grpc.reflection.v1.ServerReflection"
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": info}),))
    if told.get("health"):
        servicer = health.HealthServicer()
        servicer.set("", health_pb2.HealthCheckResponse.ServingStatus.Value(told["health"]))
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    bind = f"127.0.0.1:{told.get('port', 0)}"
    if told.get("cert"):
        pair = (Path(told["key"]).read_bytes(), Path(told["cert"]).read_bytes())
        root = Path(told["ca"]).read_bytes() if told.get("ca") else None
        port = server.add_secure_port(bind, grpc.ssl_server_credentials([pair], root, root is not None))
    else:
        port = server.add_insecure_port(bind)
    server.start()
    ready = Path(told["ready"])
    ready.with_suffix(".new").write_text(str(port))
    ready.with_suffix(".new").rename(ready)
    server.wait_for_termination()


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
