"""`grpcio`, loaded so that the process may still start programs.

Its own support for forks makes about one in fifteen of the children that run Python code between fork and exec (another
user, limits) abort there. Programs that are started need none of it.
"""

from __future__ import annotations

import os

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # read when it is loaded

import grpc
from grpc.experimental import ChannelOptions

SINGLE_THREADED: str = ChannelOptions.SingleThreadedUnaryStream
"""Option of a channel: a call that streams its answers is read by its caller, without a thread of its own."""

__all__ = ["SINGLE_THREADED", "grpc"]
