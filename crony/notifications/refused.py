"""What a sender raises: the message did not reach (all of) its recipients, and whether trying again can help."""

from __future__ import annotations

from crony.errors import CronyError


class NotSent(CronyError):
    """The provider refused, or could not be reached. Its text never holds a secret of the channel."""

    status = 502

    def __init__(
        self, what: str, *, lasting: bool = False, after: float = 0.0, left: tuple[str, ...] = (), hint: str = ""
    ) -> None:
        """`lasting`: the same will be refused again until somebody changes something; `after`: seconds to wait, as the
        provider asks for; `left`: recipients that have not got it, when others have."""
        super().__init__(what, hint=hint)
        self.lasting, self.after, self.left = lasting, after, left
