"""The console's own files, kept in memory: a fixed table of names, so no path ever reaches the disk."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib import resources
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response

_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
}


@dataclass
class File:
    """One file, with its hash for the URL and its compressed form."""

    data: bytes
    media_type: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        self.digest = hashlib.sha256(self.data).hexdigest()[:12]

    @cached_property
    def packed(self) -> bytes:
        """The gzip form, made once."""
        return gzip.compress(self.data, 9, mtime=0)


class StaticFiles:
    """All files under `static/` by relative name."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self._read(resources.files("crony.web").joinpath("static"), "")

    def _read(self, folder: Traversable, prefix: str) -> None:
        for entry in folder.iterdir():
            if entry.is_dir():
                self._read(entry, f"{prefix}{entry.name}/")
            elif (kind := entry.name.rsplit(".", 1)[-1]) in _TYPES:
                self.files[prefix + entry.name] = File(entry.read_bytes(), _TYPES[kind])

    def url(self, name: str) -> str:
        """The address of a file; it changes with the content, so browsers may keep it for ever."""
        return f"/static/{name}?v={self.files[name].digest}"

    def response(self, name: str, request: Request) -> Response:
        """The file, compressed when the browser takes that; 304 when it has it; 404 otherwise."""
        file = self.files.get(name)
        if file is None:
            return Response("There is no such file.\n", 404, media_type="text/plain")
        fresh = request.query_params.get("v") == file.digest
        headers = {
            "etag": f'"{file.digest}"',
            "cache-control": "public, max-age=31536000, immutable" if fresh else "public, max-age=300",
            "vary": "accept-encoding",
        }
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(None, 304, headers=headers)
        packed = file.media_type != "image/png" and "gzip" in request.headers.get("accept-encoding", "")
        if packed:
            headers["content-encoding"] = "gzip"
        return Response(file.packed if packed else file.data, headers=headers, media_type=file.media_type)


@lru_cache(1)
def static_files() -> StaticFiles:
    """The files of this installation, read once per process."""
    return StaticFiles()
