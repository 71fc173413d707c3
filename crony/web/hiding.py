"""What a callee says later is masked as what its node saw was: of the secrets that the job gave it.

Only etcd is asked, as for every report, and only for jobs with secrets. What this web cannot open it cannot find in a
text either: then the text is not kept, and what was reported counts all the same.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from crony.domain.callback import Report
from crony.domain.masking import MASK, Mask
from crony.domain.run import Envelope
from crony.domain.sealing import CannotDecrypt, Cipher
from crony.domain.secret import Secret, place_of
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn
from crony.lifecycle.publish_object import published

log = logging.getLogger("crony.web")

NOTHING = Mask(())
WITHHELD = "withheld: the web that took it cannot open the secrets of the job, and so not mask them"


class Hiding:
    """Masks what callees report through one web."""

    def __init__(self, client: Client, keys: Keys, cipher: Cipher) -> None:
        self._client, self._keys, self._cipher = client, keys, cipher

    def report(self, told: Envelope, report: Report) -> Report:
        """A report with the secrets of its attempt masked. Raises `Unavailable`."""
        mask = self._mask(told)
        if mask is None:
            result = None if report.result is None else {"withheld": WITHHELD}
            return replace(report, result=result, reason=f"({WITHHELD})" if report.reason else "")
        return replace(report, result=mask.value(report.result), reason=mask.text(report.reason)) if mask else report

    def message(self, told: Envelope, text: str) -> str:
        """A few words with the secrets masked. Raises `Unavailable`."""
        mask = self._mask(told)
        return MASK.decode() if mask is None else mask.text(text)

    def output(self, told: Envelope, data: bytes) -> bytes:
        """As many bytes, those of secrets as `*`: the callee counts them. Raises `Unavailable`."""
        mask = self._mask(told)
        return b"*" * len(data) if mask is None else mask.blotted(data)

    def _mask(self, told: Envelope) -> Mask | None:
        """Of what the job gave it, as far as it is still so; None: this web cannot know."""
        if not told.secrets:
            return NOTHING
        names, look = sorted(set(map(str, told.secrets.values()))), Txn()
        for name in names:
            look.get(self._keys.obj("secret", name))
        values = []
        for name, found in zip(names, self._client.txn(look).responses, strict=True):
            secret = published(found[0] if found else None, Secret)
            if secret is None or secret.deleted:
                continue
            try:
                values.append(self._cipher.decrypt(secret.ciphertext, place_of(name)))
            except CannotDecrypt as error:
                log.warning("what the callee of %s says is not kept: %s", told.run, error)
                return None
        return Mask(values)
