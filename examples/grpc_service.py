"""A service whose handlers Crony calls over gRPC: `pip install 'crony-sdk[grpc]'`, then

    CRONY_CALL_SECRETS=… python examples/grpc_service.py

and a job with `action: {kind: grpc, address: "127.0.0.1:50051", handler: close-day}`. With CRONY_API and a
CRONY_TOKEN of the scope `service` (named `billing`) it registers itself, and the job may say `service: billing`
instead of the address.
"""

import os

import crony_sdk
import crony_sdk.grpc


@crony_sdk.handler("close-day")
def close_day(context):
    """Answered at once. What it returns is the run's result."""
    return {"region": context.params.get("region", "all"), "rows": 3}


@crony_sdk.handler("rebuild-index", background=True)
def rebuild_index(context):
    """Answered later: its job says `async: {deadline: 2h, heartbeat: 5m}`."""
    for part in range(10):
        context.check()  # raises Cancelled when somebody cancels the run
        context.progress(part * 10, f"part {part + 1} of 10")
    return {"parts": 10}


if __name__ == "__main__":
    address = "127.0.0.1:50051"
    if "CRONY_API" in os.environ:
        crony_sdk.Registration("billing", address).start()
    crony_sdk.grpc.serve(crony_sdk.Service(spool="spool"), address)
