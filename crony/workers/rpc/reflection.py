"""Methods that a service tells of by server reflection, like grpcurl: requests and answers as JSON, no stubs needed."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha import reflection_pb2

from crony.workers.rpc.library import grpc
from crony.workers.rpc.lines import PATIENCE, Call, Line, NotSent, told

VERSIONS = ("v1", "v1alpha")
"""The same messages under two names; servers have one of them or both."""
MOST_FILES = 500
MOST_BYTES = 8 * 1024 * 1024
BELIEVED = 60.0
"""For so many seconds a schema is not asked for again."""


@dataclass(frozen=True, slots=True)
class Method:
    """A unary method with the messages it takes and gives."""

    path: str
    pool: Any
    request: Any
    answer: Any

    def encode(self, document: dict[str, Any]) -> bytes:
        """The request behind a JSON object. Raises `NotSent` naming what does not fit."""
        message = message_factory.GetMessageClass(self.request)()
        try:
            json_format.ParseDict(document, message, descriptor_pool=self.pool)
            return message.SerializeToString()
        except (json_format.ParseError, ValueError, TypeError) as error:
            raise NotSent(f"the request is no {self.request.full_name}: {error}"[:300]) from None

    def decode(self, data: bytes) -> str:
        """The answer as JSON text, field names as the service wrote them. Raises `ValueError`."""
        message = message_factory.GetMessageClass(self.answer)()
        try:
            message.ParseFromString(data)
            found = json_format.MessageToDict(message, preserving_proto_field_name=True, descriptor_pool=self.pool)
        except Exception as error:  # of several kinds, the C implementation's own among them
            raise ValueError(f"the answer is no {self.answer.full_name}: {error}"[:300]) from None
        return json.dumps(found, ensure_ascii=False)


def find(line: Line, call: Call, name: str, *, left: float, metadata: Sequence[tuple[str, str]]) -> Method:
    """The method `package.Service/Method` of the service behind `line`. Raises `NotSent` with the reason."""
    service, _, method = name.partition("/")
    known = line.schemas.get(service)
    if known is None or time.monotonic() - known[1] > BELIEVED:
        pool = _schema(line, call, service, min(PATIENCE, left), metadata)
        known = line.schemas[service] = (pool, time.monotonic())
    pool = known[0]
    try:
        there = pool.FindServiceByName(service)
    except KeyError:
        raise NotSent(f"{service} is no service") from None
    found = there.methods_by_name.get(method)
    if found is None:
        raise NotSent(f"{service} has no method {method}; it has {', '.join(sorted(there.methods_by_name))}"[:300])
    if found.client_streaming or found.server_streaming:
        raise NotSent(f"{name} is a stream; only methods of one request and one answer can be called")
    return Method(f"/{name}", pool, found.input_type, found.output_type)


def _schema(line: Line, call: Call, service: str, timeout: float, metadata: Sequence[tuple[str, str]]) -> Any:
    for version in VERSIONS:
        try:
            return _Asking(line, call, version, timeout, metadata).pool_of(service)
        except grpc.RpcError as error:
            if call.broken:
                raise NotSent("it was broken off") from None
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise NotSent(f"its schema could not be asked for: {error.code().name}: {told(error)}") from None
    raise NotSent("the service has no server reflection: switch it on there, or give it the SDK and name a `handler`")


class _Asking:
    """One conversation with the reflection service."""

    def __init__(
        self, line: Line, call: Call, version: str, timeout: float, metadata: Sequence[tuple[str, str]]
    ) -> None:
        self._line, self._call, self._metadata = line, call, tuple(metadata)
        self._until = time.monotonic() + timeout
        self._path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        self._files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
        self._bytes = 0

    def pool_of(self, service: str) -> Any:
        self._ask([reflection_pb2.ServerReflectionRequest(file_containing_symbol=service)])
        while missing := self._missing():
            self._ask([reflection_pb2.ServerReflectionRequest(file_by_filename=name) for name in missing])
        pool = descriptor_pool.DescriptorPool()
        done: set[str] = set()
        for name in sorted(self._files):
            self._add(pool, name, done, 0)
        return pool

    def _missing(self) -> list[str]:
        wanted = {name for file in self._files.values() for name in file.dependency}
        return sorted(wanted - self._files.keys())

    def _ask(self, requests: list[Any]) -> None:
        stream = self._line.channel.stream_stream(
            self._path,
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        left = max(0.1, self._until - time.monotonic())
        answers = self._call.hold(stream(iter(requests), timeout=left, metadata=self._metadata))
        for request, answer in zip(requests, answers, strict=False):
            if answer.HasField("error_response"):
                self._bundled(request, answer.error_response.error_message)
                continue
            for data in answer.file_descriptor_response.file_descriptor_proto:
                self._take(data)
        asked = {request.file_by_filename for request in requests if request.file_by_filename}
        if asked - self._files.keys():
            raise NotSent(f"its schema is incomplete: {', '.join(sorted(asked - self._files.keys()))} is missing"[:300])

    def _bundled(self, request: Any, why: str) -> None:
        """Google's own types are known to us, should a server not tell of them."""
        name = request.file_by_filename
        if not name:
            raise NotSent(f"the service does not know {request.file_containing_symbol}: {why}"[:300])
        if name.startswith("google/protobuf/"):
            try:
                self._take(descriptor_pool.Default().FindFileByName(name).serialized_pb)
            except KeyError:
                return

    def _take(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes > MOST_BYTES or len(self._files) >= MOST_FILES:
            raise NotSent("its schema is too large")
        try:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
        except Exception:
            raise NotSent("its schema cannot be read") from None
        self._files[file.name] = file

    def _add(self, pool: Any, name: str, done: set[str], depth: int) -> None:
        if name in done:
            return
        done.add(name)
        if depth > 100:
            raise NotSent("its schema is nested too deeply")
        for other in self._files[name].dependency:
            self._add(pool, other, done, depth + 1)
        try:
            pool.Add(self._files[name])
        except Exception as error:
            raise NotSent(f"its schema cannot be read: {error}"[:300]) from None
