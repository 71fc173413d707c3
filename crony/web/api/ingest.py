"""`POST /ingest/output`: nodes bring what their runs printed, in compressed, ordered, repeatable chunks.

Of the type `application/vnd.crony.output` a chunk begins with its stamps; nodes of a version before send bytes alone.
"""

from __future__ import annotations

import zlib
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request

from crony.domain import stamps
from crony.errors import Invalid
from crony.store import output
from crony.web.api.jobs import TheWeb
from crony.web.api.runs import check_run
from crony.web.auth import NODE
from crony.web.forms import media_type
from crony.web.problems import TooLarge, WrongType

STAMPED = "application/vnd.crony.output"
PLAIN = ("application/zlib", "application/octet-stream")
router = APIRouter(tags=["nodes"])

UNPACKED = 8 << 20
"""Most bytes of one chunk after decompression."""


def unpack(data: bytes) -> bytes:
    """The bytes behind a zlib stream, never more than `UNPACKED`. Raises `Invalid`, `TooLarge`."""
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(data, UNPACKED + 1)
    except zlib.error:
        raise Invalid("", "the body is not a zlib stream") from None
    if len(plain) > UNPACKED:
        raise TooLarge(f"The chunk is larger than {UNPACKED} bytes when decompressed", hint="send smaller chunks")
    if not stream.eof or stream.unused_data:
        raise Invalid("", "the body is not one whole zlib stream")
    return plain


async def _chunk(request: Request) -> bytes:
    if media_type(request) not in (STAMPED, *PLAIN):
        raise WrongType("This address takes a zlib stream", hint="content-type: application/zlib")
    return await request.body()


def _flag(value: str, name: str) -> bool:
    if value not in ("0", "1", "false", "true"):
        raise Invalid(name, "must be 0 or 1")
    return value in ("1", "true")


@router.post("/ingest/output", dependencies=[Depends(NODE)])
def ingest(
    web: TheWeb,
    packed: Annotated[bytes, Depends(_chunk)],
    x_crony_run: Annotated[str, Header(max_length=128)],
    x_crony_attempt: Annotated[int, Header(ge=1, le=2**31 - 1)],
    x_crony_offset: Annotated[int, Header(ge=0, lt=2**53)],
    x_crony_final: Annotated[str, Header(max_length=5)] = "0",
    x_crony_truncated: Annotated[str, Header(max_length=5)] = "0",
    x_crony_stamps: Annotated[int, Header(ge=0, le=UNPACKED)] = 0,
) -> dict[str, Any]:
    """Store a chunk; the answer says from which offset to go on. `X-Crony-Stamps` of its bytes are stamps."""
    check_run(x_crony_run)
    data = unpack(packed) if packed else b""
    final, truncated = _flag(x_crony_final, "X-Crony-Final"), _flag(x_crony_truncated, "X-Crony-Truncated")
    if x_crony_stamps > len(data):
        raise Invalid("X-Crony-Stamps", "says more bytes than the chunk has")
    told, data = stamps.parse(data[:x_crony_stamps]), data[x_crony_stamps:]
    have = output.append(web.db, x_crony_run, x_crony_attempt, x_crony_offset, data, final, truncated, told)
    return {"have": have}
