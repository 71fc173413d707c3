"""The header block that opens a call: the same bytes each time, so that they are put together once."""

from __future__ import annotations

from crony.etcd.address import Address


def request_head(method: str, to: Address, token: str) -> bytes:
    """The header block of a call. `hasleader`: a member cut off from the others shall say so, not wait."""
    parts = [
        b"\x83\x87" if to.tls is not None else b"\x83\x86",
        b"\x04" + _text(method),
        b"\x01" + _text(to.authority),
        b"\x0f\x10" + _text("application/grpc"),
        b"\x00" + _text("te") + _text("trailers"),
        b"\x00" + _text("hasleader") + _text("true"),
    ]
    if token:
        parts.append(b"\x10" + _text("token") + _text(token))
    return b"".join(parts)


def _text(text: str) -> bytes:
    data = text.encode("ascii")
    size = len(data)
    if size < 127:
        return bytes([size]) + data
    size, head = size - 127, bytearray([127])
    while size > 127:
        head.append(size & 127 | 128)
        size >>= 7
    head.append(size)
    return bytes(head) + data
