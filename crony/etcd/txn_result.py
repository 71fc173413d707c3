"""What etcd answered to a transaction, by the gateway or by itself."""

from __future__ import annotations

from typing import Any, NamedTuple

from crony.etcd import proto
from crony.etcd.wire import Json, kv


class TxnResult(NamedTuple):
    """Whether the compares held, the store's revision, and one response for each operation of the branch that ran.

    A response is None for a put, the number deleted for a delete, list[KV] for a get, TxnResult for a nested one.
    """

    succeeded: bool
    revision: int
    responses: list[Any]


def result(raw: Json) -> TxnResult:
    """The gateway's answer to a transaction."""
    revision = int(raw.get("header", {}).get("revision", 0))
    return _result(raw, revision)


def _result(raw: Json, revision: int) -> TxnResult:
    responses: list[Any] = []
    for response in raw.get("responses", ()):
        if "response_put" in response:
            responses.append(None)
        elif "response_delete_range" in response:
            responses.append(int((response["response_delete_range"] or {}).get("deleted", 0)))
        elif "response_range" in response:
            responses.append([kv(item) for item in (response["response_range"] or {}).get("kvs", ())])
        else:
            responses.append(_result(response.get("response_txn") or {}, revision))
    return TxnResult(bool(raw.get("succeeded", False)), revision, responses)


def message_result(data: bytes) -> tuple[proto.Header, TxnResult]:
    """etcd's own answer to a transaction."""
    head = proto.Header("0", 0)
    if data[:1] == b"\x0a":  # the header comes first, and nested results are of its revision
        size, at = proto.number_at(data, 1)
        head = proto.header(data[at : at + size])
    return head, _message_result(data, head.revision, {})


def _message_result(data: bytes, revision: int, known: dict[bytes, Any]) -> TxnResult:
    """`known`: what equal bytes meant before; a batch of claims is answered with the same few again and again."""
    succeeded, at, end = 0, 0, len(data)
    responses: list[Any] = []
    while at < end:
        tag = data[at]
        at += 1
        if tag == 0x1A or tag == 0x0A:
            size, at = proto.number_at(data, at)
            if tag == 0x1A:
                part = data[at : at + size]
                if part in known:
                    responses.append(known[part])
                else:
                    responses.append(_message_response(part, revision, known))
                    if size < 64:
                        known[part] = responses[-1]
            at += size
        elif tag == 0x10:
            succeeded, at = proto.number_at(data, at)
        else:
            at = proto.skip(data, at, tag & 7)
    if at != end:
        raise ValueError("an answer is cut off")
    return TxnResult(bool(succeeded), revision, responses)


def _message_response(data: bytes, revision: int, known: dict[bytes, Any]) -> Any:
    kind = data[0]
    size, at = proto.number_at(data, 1)
    inner = data[at : at + size]
    if kind == 0x12:
        return None
    if kind == 0x1A:
        return proto.write_response(inner)[1]
    if kind == 0x0A:
        return proto.range_response(inner)[1].kvs
    return _message_result(inner, revision, known)


__all__ = ["TxnResult", "message_result", "result"]
