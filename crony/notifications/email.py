"""E-mail: one message over SMTP with STARTTLS or TLS, its certificate checked, to one or more recipients.

The server's own answer counts: a recipient it refuses is named, one it puts off is tried again, and STARTTLS that is
not offered ends it before a password is sent.
"""

from __future__ import annotations

import contextlib
import datetime
import smtplib
import socket
import ssl
from collections.abc import Sequence
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from crony.clock import SYSTEM
from crony.domain.channel import Channel
from crony.notifications.message import Message, one_line
from crony.notifications.refused import NotSent

PATIENCE = 15.0
"""Seconds the server may take for each answer."""
FAREWELL = 2.0


def send(channel: Channel, message: Message, recipients: Sequence[str]) -> str:
    """Send, and give the server's answer. Raises `NotSent`."""
    host = channel.settings["host"]
    if not recipients:
        raise NotSent("nobody to send it to", lasting=True, hint="give the channel recipients in its field `to`")
    try:
        server = _connect(channel)
        try:
            answer = _deliver(server, channel, message, recipients)
            with contextlib.suppress(OSError, smtplib.SMTPException):  # it is sent, however the farewell goes
                if server.sock is not None:
                    server.sock.settimeout(FAREWELL)
                server.quit()
            return answer
        finally:
            server.close()
    except NotSent as error:
        raise NotSent(
            channel.hide(str(error.what)), lasting=error.lasting, after=error.after, left=error.left, hint=error.hint
        ) from None
    except ssl.SSLCertVerificationError as error:
        why = f"the certificate of {host} is not trusted: {error.verify_message}"
        raise NotSent(why, lasting=True, hint="give its CA in the field `ca`") from None
    except smtplib.SMTPServerDisconnected as error:
        silent = "timed out" in str(error)
        raise NotSent(
            f"no answer from {host} within {PATIENCE:g} s" if silent else f"{host} closed the connection"
        ) from None
    except smtplib.SMTPResponseException as error:
        raise NotSent(channel.hide(_said(host, error.smtp_code, error.smtp_error)),
                      lasting=error.smtp_code >= 500) from None  # fmt: skip
    except smtplib.SMTPNotSupportedError as error:
        raise NotSent(f"{host} cannot do what is asked: {error}", lasting=True) from None
    except (OSError, smtplib.SMTPException, ValueError) as error:
        raise NotSent(channel.hide(f"{host} cannot be reached: {_reason(error)}")) from None


def mail(channel: Channel, message: Message, recipients: Sequence[str]) -> EmailMessage:
    """The message as e-mail. Its id is the same each time it is sent, so that a mailbox can tell a repetition."""
    made = EmailMessage(policy=SMTP)
    sender = channel.settings["from"]
    domain = sender.rpartition("@")[2]
    made["Subject"] = one_line(f"[Crony] {message.title}", 200)
    made["From"] = sender
    made["To"] = ", ".join(recipients)
    made["Date"] = format_datetime(datetime.datetime.fromtimestamp(SYSTEM.wall(), datetime.UTC))
    made["Message-ID"] = f"<{message.ident}@{domain}>"
    made["References"] = f"<{message.thread}@{domain}>"
    made["Auto-Submitted"] = "auto-generated"
    made.set_content(message.text(), cte="quoted-printable" if message.text().isascii() else "base64")
    return made


def _connect(channel: Channel) -> smtplib.SMTP:
    told = channel.settings
    host, port, security = told["host"].strip("[]"), told["port"], told["security"]
    server: smtplib.SMTP
    if security == "tls":
        server = smtplib.SMTP_SSL(host, port, _own_name(), timeout=PATIENCE, context=_trust(told["ca"]))
    else:
        server = smtplib.SMTP(host, port, _own_name(), timeout=PATIENCE)
    try:
        if security == "starttls":
            server.starttls(context=_trust(told["ca"]))
        if told["user"]:
            server.login(told["user"], channel.secrets["password"])
    except BaseException:
        server.close()
        raise
    return server


def _trust(ca: str) -> ssl.SSLContext:
    """The CAs that the machine trusts, and this one."""
    context = ssl.create_default_context(cadata=ca or None)
    if ca:
        context.load_default_certs()
    return context


def _own_name() -> str:
    """How this machine introduces itself: as it calls itself. smtplib would ask the resolver, which can take long."""
    name = socket.gethostname()
    return name if name.isascii() and name.replace("-", "").replace(".", "").isalnum() else "[127.0.0.1]"


def _deliver(server: smtplib.SMTP, channel: Channel, message: Message, recipients: Sequence[str]) -> str:
    host = channel.settings["host"]
    data = mail(channel, message, recipients).as_bytes()
    server.ehlo_or_helo_if_needed()
    code, said = server.mail(channel.settings["from"])
    if code >= 400:
        raise NotSent(_said(host, code, said), lasting=code >= 500)
    refused: dict[str, tuple[int, bytes]] = {}
    for recipient in recipients:
        code, said = server.rcpt(recipient)
        if code == 421:
            raise NotSent(_said(host, code, said))
        if code >= 400:
            refused[recipient] = code, said
    later = tuple(recipient for recipient, (code, _) in refused.items() if code < 500)
    told = "; ".join(f"{recipient}: {_said(host, *answer)}" for recipient, answer in refused.items())
    if len(refused) == len(recipients):
        raise NotSent(told, lasting=not later)
    code, said = server.data(data)
    if code >= 400:
        raise NotSent(_said(host, code, said), lasting=code >= 500)
    answer = f"{code} {_text(said)}"
    if later:
        raise NotSent(f"not to everybody: {told}", left=later)
    return f"{answer}; not to everybody: {told}" if refused else answer


def _said(host: str, code: int, said: bytes | str) -> str:
    return f"{host} answered {code} {_text(said)}"


def _text(said: bytes | str) -> str:
    return one_line(said.decode("utf-8", "replace") if isinstance(said, bytes) else said, 300)


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError | socket.timeout):
        return f"no answer within {PATIENCE:g} s"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return type(error).__name__
