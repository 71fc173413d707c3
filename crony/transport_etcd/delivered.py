"""A message as Kombu hands it to its consumers, whose JSON body is read sooner."""

from __future__ import annotations

from typing import Any

from kombu.serialization import registry
from kombu.transport import virtual
from kombu.utils import json as kombu_json

from crony.domain.jsontext import loads

_JSON = "application/json"


class Message(virtual.Message):
    """Kombu's message. Celery decodes each body once more just to look what it is: that takes a tenth of its time."""

    def _decode(self) -> Any:
        """As Kombu does it; plain JSON that has no types of Kombu's own in it is read by a faster reader."""
        body = self.body
        if (
            self.content_type == _JSON
            and self.content_encoding == "utf-8"
            and isinstance(body, bytes)
            and b"__type__" not in body
            and (self.accept is None or _JSON in self.accept)
            and registry._decoders.get(_JSON) is kombu_json.loads
            and _JSON not in registry._disabled_content_types
        ):
            try:
                return loads(body)
            except ValueError:
                pass
        return super()._decode()  # type: ignore[no-untyped-call]


__all__ = ["Message"]
