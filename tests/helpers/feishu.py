"""A Feishu bot for tests, as its documentation says: it checks the signature and answers 200 with a code."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.helpers.service import Asked, service

SECRET, TOKEN = "bot-signing-secret-canary", "0bad1dea-hook-token-canary"
OK = (200, {}, {"StatusCode": 0, "StatusMessage": "success", "code": 0, "data": {}, "msg": "success"})
LIMITED = (200, {}, {"code": 11232, "data": {}, "msg": "frequency limited psm[lark.oapi.app_platform_runtime]"})


@dataclass
class Bot:
    """What it was sent, and what it answers next."""

    url: str = ""
    cards: list[dict[str, Any]] = field(default_factory=list)
    """Those it has taken."""
    asked: int = 0
    answers: list[tuple[int, dict[str, str], Any]] = field(default_factory=list)
    """Answers to give before it behaves again."""
    always: tuple[int, dict[str, str], Any] | None = None

    def answer(self, asked: Asked) -> tuple[int, dict[str, str], bytes]:
        """One request."""
        self.asked += 1
        if self.always or self.answers:
            status, headers, told = self.always or self.answers.pop(0)
            return status, headers, told if isinstance(told, bytes) else json.dumps(told).encode()
        told = self._judge(asked)
        return 200, {"Content-Type": "application/json"}, json.dumps(told).encode()

    def _judge(self, asked: Asked) -> dict[str, Any]:
        if asked.path != f"/open-apis/bot/v2/hook/{TOKEN}":
            return {"code": 19001, "data": {}, "msg": "param invalid: incoming webhook access token invalid"}
        if len(asked.body) > 20 * 1024:
            return {"code": 9499, "data": {}, "msg": "Bad Request"}
        body = json.loads(asked.body)
        stamp = int(body.get("timestamp", "0"))
        key = f"{stamp}\n{SECRET}".encode()
        wanted = base64.b64encode(hmac.new(key, b"", digestmod=hashlib.sha256).digest()).decode()
        if abs(time.time() - stamp) > 3600 or body.get("sign") != wanted:
            why = "sign match fail or timestamp is not within one hour from current time"
            return {"code": 19021, "data": {}, "msg": why}
        if body.get("msg_type") != "interactive":
            return {"code": 19002, "data": {}, "msg": "params error, msg_type need"}
        self.cards.append(body["card"])
        return OK[2]

    @property
    def titles(self) -> list[str]:
        """Of the cards, in order."""
        return [card["header"]["title"]["content"] for card in self.cards]


@contextmanager
def feishu(port: int = 0) -> Iterator[Bot]:
    """A running bot."""
    bot = Bot()
    with service(bot.answer, port) as running:
        bot.url = f"{running.url}/open-apis/bot/v2/hook/{TOKEN}"
        yield bot


def texts(card: dict[str, Any]) -> str:
    """Every text of a card, one after the other; none of them may be markup."""
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if value.get("tag") in ("plain_text", "lark_md"):
                assert value["tag"] == "plain_text"
                found.append(value["content"])
            for each in value.values():
                walk(each)
        elif isinstance(value, list):
            for each in value:
                walk(each)

    walk(card)
    return "\n".join(found)
