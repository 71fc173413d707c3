"""Signatures of calls: HMAC-SHA256 over what is called, which attempt, when, and the body.

`vectors.json` beside the package holds examples that every client must agree on.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import time
from collections.abc import Iterable, Mapping

from crony_sdk import contract
from crony_sdk.errors import BadSignature, Invalid

WINDOW = 300.0
"""Seconds by which the platform's clock may differ from ours, and for which a copied call could be sent again."""
SHORTEST = 32
"""Fewest characters of a secret."""


def sign(
    secret: str,
    *,
    method: str,
    target: str,
    run: str,
    attempt: int,
    fence: int,
    body: bytes,
    timestamp: int,
    callback: str = "",
) -> str:
    """The value of `X-Crony-Signature`. `target`: path and query exactly as sent; `callback`: empty without one."""
    digest = hashlib.sha256(body).hexdigest()
    lines = ("v1", str(timestamp), method.upper(), target, run, str(attempt), str(fence), callback, digest)
    # A target that is no UTF-8 comes as surrogates: sign the bytes as they were.
    message = "\n".join(lines).encode("utf-8", "surrogateescape")
    return "v1=" + hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


def verify(
    headers: Mapping[str, str],
    body: bytes,
    *,
    method: str,
    target: str,
    secrets: Iterable[str],
    window: float = WINDOW,
    now: float | None = None,
) -> None:
    """Raises `BadSignature` unless one of `secrets` signed exactly this call within `window` seconds of now.

    Several secrets allow changing them without a gap. A copy of the call sent again within the window passes: refuse
    a run and attempt that you have had (a `Service` does).
    """
    known = checked(secrets)
    given = {str(name).lower(): str(value).strip() for name, value in headers.items()}
    stamp, signature = given.get(contract.TIMESTAMP.lower(), ""), given.get(contract.SIGNATURE.lower(), "")
    if not stamp or not signature:
        raise BadSignature("missing", "the call is not signed: does the node know CRONY_CALL_SECRETS?")
    attempt, fence = given.get(contract.ATTEMPT.lower(), ""), given.get(contract.FENCE.lower(), "")
    whole = all(re.fullmatch(r"[0-9]{1,19}", text) for text in (stamp, attempt, fence))
    if not whole or not re.fullmatch(r"v1=[0-9a-f]{64}", signature):
        raise BadSignature("malformed", "the signature, its time, the attempt or the fence is malformed")
    run = given.get(contract.RUN.lower(), "")
    genuine = False
    for secret in known:  # each is tried, so that the time taken says nothing
        made = sign(
            secret,
            method=method,
            target=target,
            run=run,
            attempt=int(attempt),
            fence=int(fence),
            callback=given.get(contract.CALLBACK.lower(), ""),
            body=body,
            timestamp=int(stamp),
        )
        genuine |= hmac.compare_digest(made, signature)
    if not genuine:
        raise BadSignature(
            "mismatch", "the signature fits none of our secrets: another secret, or something changed the call"
        )
    off = int(stamp) - (time.time() if now is None else now)
    if abs(off) > window:
        way = "ahead of" if off > 0 else "behind"
        raise BadSignature("expired", f"the call was signed {abs(off):.0f} s {way} our clock, {window:g} s are allowed")


def checked(secrets: Iterable[str]) -> tuple[str, ...]:
    """The secrets. Raises `Invalid` for none at all, and for one that is too short to be one."""
    known = (secrets,) if isinstance(secrets, str) else tuple(secrets)
    if not known:
        raise Invalid("secrets", "are missing: give those of CRONY_CALL_SECRETS")
    if any(not isinstance(secret, str) or len(secret) < SHORTEST for secret in known):
        raise Invalid("secrets", f"has one shorter than {SHORTEST} characters; make one with: openssl rand -hex 32")
    return known


def secrets_from_environ(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The secrets in `CRONY_CALL_SECRETS`, or in the file that `CRONY_CALL_SECRETS_FILE` names; with commas."""
    given = os.environ if environ is None else environ
    text, path = given.get("CRONY_CALL_SECRETS", ""), given.get("CRONY_CALL_SECRETS_FILE", "")
    if path:
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except OSError as error:
            raise Invalid("CRONY_CALL_SECRETS_FILE", f"cannot be read: {error.strerror}") from None
    return tuple(secret.strip() for secret in text.split(",") if secret.strip())
