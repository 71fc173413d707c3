"""Feishu (and Lark): a card by a custom bot, signed when the bot asks for signatures.

The bot answers 200 also when it refuses: the `code` in the body decides. Too many messages (100 a minute, 5 a second)
are put off as the provider asks for.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any
from urllib.parse import urlsplit

import requests

from crony.domain.channel import Channel
from crony.notifications.message import Message, one_line
from crony.notifications.refused import NotSent

PATIENCE = (5.0, 10.0)
"""Seconds to connect, and for each part of the answer."""
BODY = 20 * 1000
"""Most bytes of a message, as Feishu allows."""
ANSWER = 64 * 1024
TOO_MANY = frozenset({11232, 11233, 230020, 99991400})
"""Codes of its rate limits."""
_BROKEN = frozenset({11201, 1000, 1500, 190005})
"""Codes of troubles of its own."""
_HINTS = {
    19001: "check the webhook address",
    19021: "check the signing secret, and the clock of this machine",
    19022: "add this machine's address to the bot's list of allowed addresses",
    19024: "one of the bot's keywords must be in the message: add `Crony` to them, or sign instead",
}
RATE_PAUSE = 5.0


def send(channel: Channel, message: Message, now: float) -> str:
    """Send, and give the provider's answer. `now`: the time for the signature. Raises `NotSent`."""
    url = channel.secrets["url"]
    host = urlsplit(url).hostname or ""
    body = payload(channel, message, now)
    try:
        with requests.Session() as session:
            answer = session.post(
                url, data=body, headers={"Content-Type": "application/json; charset=utf-8"}, timeout=PATIENCE,
                allow_redirects=False, stream=True,
            )  # fmt: skip
            text = answer.raw.read(ANSWER, decode_content=True)
    except requests.exceptions.SSLError:
        raise NotSent(f"the certificate of {host} is not trusted", lasting=True) from None
    except requests.exceptions.Timeout:
        raise NotSent(f"{host} did not answer in time") from None
    except (requests.exceptions.RequestException, OSError, ValueError) as error:
        raise NotSent(f"{host} cannot be reached: {type(error).__name__}") from None
    except Exception as error:  # what urllib3 raises while the answer is read
        raise NotSent(f"{host} broke off its answer: {type(error).__name__}") from None
    return _judge(channel, host, answer, text)


def payload(channel: Channel, message: Message, now: float) -> bytes:
    """The request's body, signed, within the size that is allowed."""
    while True:
        told: dict[str, Any] = {"msg_type": "interactive", "card": card(message)}
        if secret := channel.secrets.get("secret"):
            told = {"timestamp": str(int(now)), "sign": sign(secret, int(now)), **told}
        body = json.dumps(told, ensure_ascii=False).encode("utf-8", "replace")
        if len(body) <= BODY or not (message.tail or message.lines):
            return body
        message = message.shorter()


def sign(secret: str, timestamp: int) -> str:
    """The signature that goes with a timestamp: an empty text under the key `<timestamp>\\n<secret>`."""
    key = f"{timestamp}\n{secret}".encode()
    return base64.b64encode(hmac.new(key, b"", hashlib.sha256).digest()).decode()


def card(message: Message) -> dict[str, Any]:
    """The card. All texts are plain ones: markup in them would let a job mention everybody."""
    elements: list[dict[str, Any]] = []
    if message.facts:
        elements.append(
            {
                "tag": "div",
                "fields": [
                    {"is_short": len(value) < 40, "text": _plain(f"{word}\n{value}")} for word, value in message.facts
                ],
            }
        )
    if message.lines:
        elements.append({"tag": "div", "text": _plain("\n".join(message.lines))})
    if message.tail:
        elements += [{"tag": "hr"}, {"tag": "div", "text": _plain(f"{message.tail_word}\n{message.tail}")}]
    if message.link:
        button = {"tag": "button", "type": "primary", "text": _plain(message.link_word), "url": message.link}
        elements.append({"tag": "action", "actions": [button]})
    elements.append({"tag": "note", "elements": [_plain("Crony")]})
    return {
        "config": {"wide_screen_mode": True},
        "header": {"template": "green" if message.good else "red", "title": _plain(message.title)},
        "elements": elements,
    }


def _plain(text: str) -> dict[str, str]:
    return {"tag": "plain_text", "content": text}


def _judge(channel: Channel, host: str, answer: requests.Response, text: bytes) -> str:
    try:
        told = json.loads(text)
        code = told.get("code", told.get("StatusCode"))
        said = one_line(str(told.get("msg", told.get("StatusMessage", ""))), 300)
    except (ValueError, AttributeError, RecursionError):
        code, said = None, one_line(text[:200].decode("utf-8", "replace"), 200)
    said, status = channel.hide(said), answer.status_code
    if status == 200 and code == 0 and type(code) is int:
        return f"{code} {said}"
    if status == 429 or code in TOO_MANY:
        raise NotSent(f"{host} asks to send less: {status}, code {code} {said}", after=_after(answer))
    if code is None:
        raise NotSent(f"{host} answered {status}, not as Feishu does: {said}", lasting=300 <= status < 500)
    raise NotSent(
        f"{host} refused it: code {code} {said}",
        lasting=status < 500 and code not in _BROKEN,
        hint=_HINTS.get(code, ""),
    )


def _after(answer: requests.Response) -> float:
    for name in ("x-ogw-ratelimit-reset", "retry-after"):
        try:
            return min(600.0, max(1.0, float(answer.headers[name])))
        except (KeyError, ValueError):
            continue
    return RATE_PAUSE
