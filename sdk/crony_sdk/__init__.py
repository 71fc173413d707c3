"""The SDK for services that Crony calls. `README.md` is a tutorial, `docs/reference/callbacks.md` the contract.

A call comes in: `Service` answers it by a `handler`, or your own code takes the `Call` apart, checks it with
`verify` and reports by a `Completion`. `CronyClient` asks for runs. `crony_sdk.testing` is a Crony for your tests.
"""

from crony_sdk.client import CronyClient, Run
from crony_sdk.completion import Completion
from crony_sdk.contract import Call, Standing
from crony_sdk.errors import (
    BadSignature,
    Cancelled,
    Conflict,
    CronyError,
    Failed,
    GaveUp,
    Invalid,
    NotACall,
    NotFound,
    Refused,
    TimedOut,
    TooLarge,
    Unauthorized,
    Unavailable,
    Undelivered,
)
from crony_sdk.handlers import Context, Handlers, handler
from crony_sdk.outbox import Outbox, open_outbox
from crony_sdk.registration import Registration
from crony_sdk.retry import Retry
from crony_sdk.service import Service
from crony_sdk.signing import sign, verify
from crony_sdk.wire import Wire

__version__ = "0.1.0"

__all__ = [
    "BadSignature",
    "Call",
    "Cancelled",
    "Completion",
    "Conflict",
    "Context",
    "CronyClient",
    "CronyError",
    "Failed",
    "GaveUp",
    "Handlers",
    "Invalid",
    "NotACall",
    "NotFound",
    "Outbox",
    "Refused",
    "Registration",
    "Retry",
    "Run",
    "Service",
    "Standing",
    "TimedOut",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "Undelivered",
    "Wire",
    "handler",
    "open_outbox",
    "sign",
    "verify",
]
