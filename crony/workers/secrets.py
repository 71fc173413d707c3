"""Secrets where they are used: read from etcd when an attempt begins, opened with this node's key, kept in memory only.

What the attempt prints, answers or dies of is masked from then on; so is what this process logs while it lasts.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from crony.domain.masking import Mask
from crony.domain.sealing import CannotDecrypt, Cipher
from crony.domain.secret import Secret, place_of
from crony.errors import CronyError
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn
from crony.lifecycle.publish_object import published
from crony.workers import ending

PATIENCE = 30.0
"""Seconds for which etcd may be away while secrets are read."""


class NoSecret(CronyError):
    """A secret that this node cannot give to a job; says which one and why, and nothing of its value."""


def resolve(
    client: Client, keys: Keys, cipher: Cipher, wanted: Mapping[str, str], *, patience: float = PATIENCE
) -> dict[str, str]:
    """The values of the secrets named in `wanted`, under what the job calls each. Raises `NoSecret`."""
    names = sorted(set(wanted.values()))
    txn = Txn()
    for name in names:
        txn.get(keys.obj("secret", name))
    answer = ending.persist(lambda: client.txn(txn), "the secrets of a run", patience)
    if answer is None:
        raise NoSecret("its secrets could not be read", why=f"etcd did not answer for {patience:.0f} s")
    values = {}
    for name, found in zip(names, answer.responses, strict=True):
        secret = published(found[0] if found else None, Secret)
        if secret is None or secret.deleted:
            raise NoSecret(f"there is no secret {name}")
        try:
            values[name] = cipher.decrypt(secret.ciphertext, place_of(name))
        except CannotDecrypt as error:
            raise NoSecret(f"the secret {name} cannot be opened on this node", why=error.why) from None
    return {variable: values[name] for variable, name in wanted.items()}


class _Hidden(logging.Filter):
    """Masks the log lines of this process while attempts with secrets are under way."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._masks: tuple[Mask, ...] = ()

    @contextmanager
    def __call__(self, mask: Mask) -> Iterator[None]:
        """In the body nothing of it is logged."""
        for handler in _handlers():
            if self not in handler.filters:
                handler.addFilter(self)
        with self._lock:
            self._masks = (*self._masks, mask)
        try:
            yield
        finally:
            with self._lock:
                left = list(self._masks)
                left.remove(mask)
                self._masks = tuple(left)

    def filter(self, record: logging.LogRecord) -> bool:
        """As of logging: every record passes, masked."""
        masks = self._masks
        if not masks:
            return True
        try:
            told = record.getMessage()
        except Exception:  # logging itself complains of such a record, with its arguments
            told, record.args = str(record.msg), ()
        if record.exc_info:
            told += "\n" + logging.Formatter().formatException(record.exc_info)
        said = told
        for mask in masks:
            said = mask.text(said)
        if said != told:
            record.msg, record.args, record.exc_info, record.exc_text = said, (), None, None
        return True


def _handlers() -> list[logging.Handler]:
    """Those of every logger that has its own; Celery's too."""
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    return [handler for each in loggers if isinstance(each, logging.Logger) for handler in each.handlers]


hidden = _Hidden()
