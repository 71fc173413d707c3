"""Calls that come by gRPC: the same facts, as metadata. `grpcio` itself is not imported here."""

from __future__ import annotations

from typing import Any

from crony_sdk.contract import Call


def call_of(context: Any) -> Call:
    """The facts in the metadata of a servicer context. Raises `NotACall` when they are missing."""
    pairs = context.invocation_metadata() or ()
    return Call.from_headers({str(key): value for key, value in pairs if isinstance(value, str)})
