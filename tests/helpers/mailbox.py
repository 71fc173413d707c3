"""A real SMTP server for tests (aiosmtpd), with STARTTLS or TLS, sign-in, and recipients it refuses or puts off."""

from __future__ import annotations

import email
import email.policy
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

USER, PASSWORD = "crony", "correct-horse-battery"


@dataclass
class Mailbox:
    """What arrived, and how the server behaves."""

    port: int = 0
    got: list[tuple[str, list[str], EmailMessage]] = field(default_factory=list)
    """(sender, recipients, message)."""
    refuse: dict[str, str] = field(default_factory=dict)
    """Recipient -> answer to RCPT."""
    on_data: str = ""
    """Answer to DATA instead of taking it."""
    signed_in: list[str] = field(default_factory=list)
    secure: list[bool] = field(default_factory=list)
    """Of each message: whether it came through TLS."""

    async def handle_RCPT(self, server: SMTP, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        if answer := self.refuse.get(address):
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:
        if self.on_data:
            return self.on_data
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        self.secure.append(server.transport.get_extra_info("ssl_object") is not None)
        self.got.append((envelope.mail_from, list(envelope.rcpt_tos), message))  # type: ignore[arg-type]
        return "250 2.0.0 queued as 4711"

    def authenticate(self, server: SMTP, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        good = (data.login.decode(), data.password.decode()) == (USER, PASSWORD)
        if good:
            self.signed_in.append(data.login.decode())
        return AuthResult(success=good, handled=False)

    @property
    def subjects(self) -> list[str]:
        """Of all messages, in order."""
        return [str(message["Subject"]) for _, _, message in self.got]


@contextmanager
def mailbox(certificate: tuple[str, str] | None = None, *, tls: bool = False, port: int = 0) -> Iterator[Mailbox]:
    """A running server: with a certificate STARTTLS is offered (and sign-in wants it), with `tls` it is TLS at once."""
    made = Mailbox()
    context = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificate)
    controller = Controller(
        made,
        hostname="127.0.0.1",
        port=port,
        ssl_context=context if tls else None,
        tls_context=None if tls else context,
        authenticator=made.authenticate,
        auth_require_tls=certificate is not None and not tls,
    )
    ask = controller._trigger_server

    def found() -> None:
        assert controller.server is not None
        made.port = controller.port = controller.server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        ask()

    controller._trigger_server = found  # type: ignore[method-assign]  # with port 0 it would not know where to ask
    controller.start()
    try:
        yield made
    finally:
        controller.stop()
