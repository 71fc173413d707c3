"""What Kombu finds through the entry-point group `kombu.serializers`, which it loads in every process that messages.

Importing this module registers the scheme `etcd3://`, so that plain producers, `celery -b etcd3://…` and Flower find
the transport without importing Crony themselves. The entry has to carry a serializer: this one is Kombu's JSON again.
"""

from __future__ import annotations

from kombu.utils.json import dumps, loads

from crony.transport_etcd import register

SERIALIZER = (dumps, loads, "application/x-crony-json", "utf-8")
"""(encode, decode, content type, content encoding) of the serializer `crony-json`."""

register()
