"""`Producer.batch` of Kombu: many messages in few transactions, each of which is carried out whole or not at all.

Messages keep their order. Up to 100 operations and 512 KiB travel together; a larger batch is several transactions,
one after the other. Each is carried out once: a lost answer is cleared up, and only when etcd does not tell within its
time-out either, the batch gives up with `BatchPublishError` and refuses to be used again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kombu.exceptions import BatchPublishError

from crony.errors import CronyError, Unknown
from crony.etcd.errors import LeaseGone
from crony.etcd.txn import MAX_BYTES, MAX_OPS
from crony.transport_etcd.errors import Refused, mapped
from crony.transport_etcd.places import STAMP, Stamp
from crony.transport_etcd.publish import Letter, Parcel, Publisher

if TYPE_CHECKING:
    from crony.transport_etcd.channel import Channel

_TABLES = 15
_KEY_BYTES = 200
_TRIES = 20


class PublishBatch:
    """Collects the messages of one producer; made by `Channel.create_publish_batch`. Used by one thread."""

    def __init__(self, channel: Channel, publisher: Publisher, max_size: int) -> None:
        """`max_size`: messages after which it is sent by itself."""
        self.channel = channel
        """The channel it was made for; Kombu compares it."""
        self._publisher = publisher
        self._max_size = max_size
        self._parcels: list[Parcel] = []
        self._failed: BaseException | None = None
        self._aborted = False
        self._closed = False
        self.sent = 0
        """Messages that etcd has."""

    def publish(self, message: dict[str, Any], exchange: str, routing_key: str, **kwargs: Any) -> None:
        """Add a message. Raises `Refused` (the message is not in the batch, the others stay), `BatchPublishError`."""
        self._check_usable()
        properties = message["properties"]
        properties["delivery_info"] = {
            **(properties.get("delivery_info") or {}),
            "exchange": exchange or "",
            "routing_key": routing_key,
        }
        with mapped():
            letter = self._publisher.letter(message, exchange or "", routing_key or "")
            parcel = self._publisher.address(letter)
        properties.pop(STAMP, None)
        if parcel.copies:
            self._parcels.append(parcel)
            if len(self._parcels) >= self._max_size:
                self.flush()

    def flush(self) -> None:
        """Send what was added. Raises `BatchPublishError`, which tells how many messages arrived (the first ones),
        whether that is certain of the others, and why; the batch cannot be used any more then.
        """
        self._check_usable()
        parcels, self._parcels = self._parcels, []
        try:
            while parcels:
                several = _several(parcels)
                parcels = parcels[len(several) :]
                self._send(several)
        except Exception as error:
            self._failed = error
            next_ones = "it is not certain whether the next ones did" if isinstance(error, Unknown) else "no others did"
            raise BatchPublishError(f"{self.sent} messages of the batch arrived, {next_ones}: {error}") from error
        except BaseException as error:
            self._failed = error
            raise

    def discard(self) -> None:
        """Forget what was not sent yet; the batch cannot be used any more."""
        self._aborted = True
        self._parcels.clear()

    def close(self) -> None:
        """The end; nothing is sent."""
        self._closed = True
        self._parcels.clear()

    def _check_usable(self) -> None:
        if self._closed:
            raise RuntimeError("the publish batch is closed")
        if self._aborted:
            raise RuntimeError("the publish batch is aborted")
        if self._failed is not None:
            raise BatchPublishError("the publish batch failed before: make a new one") from self._failed

    def _send(self, parcels: list[Parcel]) -> None:
        """One transaction (or, when bindings changed so that there are more queues now, a few)."""
        publisher, stamp = self._publisher, Stamp(parcels[0].letter.stamp)
        for _ in range(_TRIES):
            refused = False
            try:
                if publisher.receipts.send(stamp, lambda: publisher.pack(parcels)):  # noqa: B023
                    publisher.sent(parcels)
                    self.sent += len(parcels)
                    return
                refused = True
            except LeaseGone:
                publisher.forget_leases()
            letters = [parcel.letter for parcel in parcels]
            again = _fresh(publisher, letters)
            if refused and [parcel.revision for parcel in again] == [parcel.revision for parcel in parcels]:
                raise Refused("a message of the batch is there already: was it published before?")
            parcels = again
            if len(_several(parcels)) < len(parcels):
                while parcels:
                    several = _several(parcels)
                    parcels = parcels[len(several) :]
                    self._send(several)
                return
        raise CronyError("the bindings of the batch's exchanges change too fast", hint="try again")


def _fresh(publisher: Publisher, letters: list[Letter]) -> list[Parcel]:
    """The addresses as they are now: each exchange is read once."""
    read: set[str] = set()
    parcels = []
    for letter in letters:
        parcel = publisher.address(letter, fresh=letter.exchange not in read)
        read.add(letter.exchange)
        if parcel.copies:
            parcels.append(parcel)
    return parcels


def _several(parcels: list[Parcel]) -> list[Parcel]:
    """The first parcels, as many as fit in one transaction; at least one."""
    ops, size, exchanges, unknown, chosen = 1, 0, {""}, set[str](), 0
    revisions: dict[str, int] = {}
    for parcel in parcels:
        letter = parcel.letter
        ops += len(parcel.copies) + len(set(parcel.unknown) - unknown)
        unknown.update(parcel.unknown)
        size += len(parcel.copies) * (len(letter.value) + _KEY_BYTES)
        exchanges.add(letter.exchange)
        other = revisions.setdefault(letter.exchange, parcel.revision) != parcel.revision
        if chosen and (ops > MAX_OPS or size > MAX_BYTES or len(exchanges) > _TABLES or other):
            break
        chosen += 1
    return parcels[:chosen]


__all__ = ["PublishBatch"]
