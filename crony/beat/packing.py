"""Sealed job documents, packed: a leader holds those of all jobs, and nearly all of their text is the same.

Deflate with a typical document as its dictionary: some 1,200 bytes become some 260. For memory only, nothing is ever
stored so.
"""

from __future__ import annotations

import zlib
from functools import lru_cache

from crony.domain.livejob import LiveJob
from crony.domain.signing import Sealer, new_key

_WINDOW = -12
"""Raw deflate, 4 KiB: more would only cost."""
_EFFORT, _MEMORY = 1, 4


def pack(sealed: bytes) -> bytes:
    """The text, small."""
    packer = zlib.compressobj(_EFFORT, zlib.DEFLATED, _WINDOW, _MEMORY, zlib.Z_DEFAULT_STRATEGY, _typical())
    return packer.compress(sealed) + packer.flush()


def unpack(packed: bytes) -> bytes:
    """What was packed."""
    return zlib.decompressobj(_WINDOW, _typical()).decompress(packed)


@lru_cache(maxsize=1)
def _typical() -> bytes:
    document = {"name": "-", "schedule": {"cron": "0 0 * * *"}, "action": {"kind": "shell", "command": ["true"]}}
    return Sealer(new_key()[0]).seal(LiveJob.created("j", document, now=0).payload())
