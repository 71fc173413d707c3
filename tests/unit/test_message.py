"""The stored form of messages, and the task messages that the leader makes."""

from __future__ import annotations

import json
import random

import pytest

from crony.transport_etcd.message import Undecodable, decode, encode, task_message


def test_round_trip_keeps_everything_and_the_body_as_bytes() -> None:
    message = {
        "body": "ä\n{}",
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": "a.b", "n": None},
        "properties": {"priority": 3, "delivery_info": {"exchange": "", "routing_key": "q"}},
    }
    found = decode(encode(message))
    assert found.pop("v") == 1
    assert found == {**message, "body": "ä\n{}".encode()}


def test_any_bytes_are_a_body() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    body = random.Random(seed).randbytes(2000) + b"\n\x00\n"
    assert decode(encode({"body": body}))["body"] == body
    assert decode(encode({"body": b""}))["body"] == b""


def test_the_body_is_not_wrapped_again() -> None:
    assert len(encode({"body": b'"' * 1000})) < 1200


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\n",
        b"hello",
        b"[]\n",
        b"{}\nbody",
        b'{"v":1,"headers":[],"properties":{}}\n',
        b'{"v":1,"headers":{},"properties":{}}',
        b'{"v":2,"headers":{},"properties":{}}\n',
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
    ],
)
def test_what_is_no_message_is_refused(value: bytes) -> None:
    with pytest.raises(Undecodable):
        decode(value)


def test_a_task_message_is_celerys_protocol_2() -> None:
    message = decode(task_message("crony.run", "r:1", ["x"], {"k": 1}, priority=7, soft_limit=10, hard_limit=20.5))
    assert message["headers"]["task"] == "crony.run"
    assert message["headers"]["id"] == message["headers"]["root_id"] == "r:1"
    assert message["headers"]["timelimit"] == [20.5, 10]
    assert message["properties"]["correlation_id"] == "r:1"
    assert message["properties"]["priority"] == 7
    assert (message["content-type"], message["content-encoding"]) == ("application/json", "utf-8")
    args, kwargs, embed = json.loads(message["body"])
    assert (args, kwargs) == (["x"], {"k": 1})
    assert set(embed) == {"callbacks", "errbacks", "chain", "chord"}


def test_headers_can_be_replaced_and_long_arguments_are_not_repeated() -> None:
    message = decode(task_message("t", "i", ["y" * 5000], {}, headers={"origin": "here", "more": 1}))
    assert message["headers"]["origin"] == "here"
    assert message["headers"]["more"] == 1
    assert len(message["headers"]["argsrepr"]) < 300
