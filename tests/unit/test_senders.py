"""The senders against servers that behave as the real ones: the answer counts, not the status; no secret gets out."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crony.clock import SYSTEM
from crony.domain.alert import Alert
from crony.domain.channel import HIDDEN, Channel, SealedChannel, parse_channel, sealed
from crony.domain.sealing import CannotDecrypt, Cipher, NoSecretKey, new_secret_key
from crony.errors import Invalid
from crony.notifications import email, feishu
from crony.notifications.message import message_of, message_of_many
from crony.notifications.refused import NotSent
from tests.helpers.authority import Authority
from tests.helpers.feishu import LIMITED, SECRET, TOKEN, Bot, texts
from tests.helpers.feishu import feishu as bot_server
from tests.helpers.mailbox import PASSWORD, USER, mailbox

ALERT = Alert(
    "run_failed.j1.1.x", "run_failed", 1764378000.0, "j1", "billing/close-day", "j1.1.x", 3, "failed", "node-a",
    'exit code 1\r\nBcc: everybody@example.org <at id="all"></at>',
)  # fmt: skip
TAIL = "".join(f"line {n}\n" for n in range(2000)) + 'the last line <at id="all">everybody</at> \x1b[31mred\n'
NOW = 1764378000.0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def bot() -> Iterator[Bot]:
    with bot_server() as running:
        yield running


def by_mail(port: int, **fields: Any) -> Channel:
    return parse_channel(
        {"name": "mail", "kind": "email", "host": "localhost", "port": port, "from": "crony@example.org",
         "to": ["a@example.org", "b@example.org"], "security": "none", **fields}
    )  # fmt: skip


def by_bot(url: str, **fields: Any) -> Channel:
    return parse_channel({"name": "ops", "kind": "feishu", "url": url, "secret": SECRET, **fields})


def message(language: str = "en", tail: str = TAIL) -> Any:
    return message_of(ALERT, language=language, console="https://crony.example.org/", tail=tail)


def not_sent(send: Any) -> NotSent:
    with pytest.raises(NotSent) as caught:
        send()
    for secret in (SECRET, TOKEN, PASSWORD):
        assert secret not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("tls", [False, True], ids=["starttls", "tls"])
def test_mail_goes_through_tls_with_a_sign_in_to_everybody(authority: Authority, tls: bool) -> None:
    with mailbox(authority.issue("localhost"), tls=tls) as box:
        channel = by_mail(
            box.port,
            security="tls" if tls else "starttls",
            user=USER,
            password=PASSWORD,
            ca=Path(authority.ca).read_text(),
        )
        for _ in range(2):
            assert "queued as 4711" in email.send(channel, message(), ["a@example.org", "b@example.org"])
        (sender, recipients, mail), (_, _, again) = box.got
        assert (sender, recipients) == ("crony@example.org", ["a@example.org", "b@example.org"])
        assert box.secure == [True, True] and box.signed_in == [USER, USER]
        assert mail["Subject"] == "[Crony] billing/close-day failed" and mail["Auto-Submitted"] == "auto-generated"
        assert mail["Message-ID"] == again["Message-ID"] and mail["Bcc"] is None
        body = mail.get_content()
        for part in ("Node: node-a", "Attempt: 3", "exit code 1 Bcc: everybody", "the last line",
                     "https://crony.example.org/runs/j1.1.x"):  # fmt: skip
            assert part in body
        assert "\x1b" not in body and "line 1\n" not in body

        wrong = by_mail(box.port, security=channel.settings["security"], user=USER, password="wrong-password-canary",
                        ca=Path(authority.ca).read_text())  # fmt: skip
        error = not_sent(lambda: email.send(wrong, message(), ["a@example.org"]))
        assert error.lasting and "535" in error.what and "canary" not in str(error)
        stranger = by_mail(box.port, security=channel.settings["security"])
        error = not_sent(lambda: email.send(stranger, message(), ["a@b.c"]))
        assert error.lasting and "is not trusted" in error.what and "`ca`" in error.hint


def test_mail_never_goes_in_clear_where_tls_was_asked_for() -> None:
    with mailbox() as box:
        error = not_sent(lambda: email.send(by_mail(box.port, security="starttls", user=USER, password=PASSWORD),
                                            message(), ["a@example.org"]))  # fmt: skip
        assert error.lasting and "STARTTLS" in error.what and not box.got and not box.signed_in
    with pytest.raises(Invalid, match="for all to read"):
        by_mail(25, host="smtp.example.org", user=USER, password=PASSWORD)


def test_each_recipient_has_an_answer_of_its_own() -> None:
    with mailbox() as box:
        box.refuse = {"a@example.org": "550 5.1.1 no such user"}
        answer = email.send(by_mail(box.port), message("zh"), ["a@example.org", "b@example.org"])
        assert "queued" in answer and "a@example.org: localhost answered 550" in answer
        assert box.got[0][1] == ["b@example.org"] and box.subjects == ["[Crony] billing/close-day 失败"]

        box.refuse = {"a@example.org": "451 4.7.1 greylisted, try later"}
        error = not_sent(lambda: email.send(by_mail(box.port), message(), ["a@example.org", "b@example.org"]))
        assert error.left == ("a@example.org",) and not error.lasting and len(box.got) == 2
        error = not_sent(lambda: email.send(by_mail(box.port), message(), ["a@example.org"]))
        assert not error.left and not error.lasting and "greylisted" in error.what
        box.refuse = {"a@example.org": "550 no"}
        assert not_sent(lambda: email.send(by_mail(box.port), message(), ["a@example.org"])).lasting
        box.refuse, box.on_data = {}, "554 5.7.1 looks like spam"
        error = not_sent(lambda: email.send(by_mail(box.port), message(), ["a@example.org"]))
        assert error.lasting and "554 5.7.1 looks like spam" in error.what
        box.on_data = "452 4.3.1 no space"
        assert not not_sent(lambda: email.send(by_mail(box.port), message(), ["a@example.org"])).lasting
        assert not_sent(lambda: email.send(by_mail(box.port), message(), [])).lasting
        port = box.port
    error = not_sent(lambda: email.send(by_mail(port), message(), ["a@example.org"]))
    assert not error.lasting and "refused" in error.what.lower()


def test_a_mail_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(email, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = not_sent(lambda: email.send(by_mail(silent.getsockname()[1], host="127.0.0.1"), message(), ["a@b.c"]))
    assert not error.lasting and "no answer from 127.0.0.1 within" in error.what


def test_a_card_is_signed_and_says_everything_in_plain_text(bot: Bot, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="crony")
    assert feishu.send(by_bot(bot.url), message(), bot_now()) == "0 success"
    feishu.send(by_bot(bot.url), message("zh"), bot_now())
    said = texts(bot.cards[0])
    for part in (
        "billing/close-day",
        "j1.1.x",
        "node-a",
        "exit code 1",
        '<at id="all">everybody</at>',
        "the last line",
    ):
        assert part in said
    assert bot.titles == ["billing/close-day failed", "billing/close-day 失败"]
    (button,) = [each["actions"][0] for each in bot.cards[0]["elements"] if each["tag"] == "action"]
    assert button["url"] == "https://crony.example.org/runs/j1.1.x"
    assert TOKEN not in caplog.text and SECRET not in caplog.text


def bot_now() -> float:
    return SYSTEM.wall()


def test_the_signature_is_the_documented_one() -> None:
    # Computed with openssl: printf '' | openssl dgst -sha256 -hmac $'1599360473\ndemo' -binary | base64
    assert feishu.sign("demo", 1599360473) == "l1N0gAcBjdwBvGm1xMjOF0XSyaLRpR7tuO5dHfhAYc8="


@pytest.mark.parametrize(
    ("answer", "lasting", "after", "said"),
    [
        ((200, {}, {"code": 19021, "msg": "sign match fail"}), True, 0, "code 19021 sign match fail"),
        ((200, {}, {"code": 19024, "msg": "Key Words Not Found"}), True, 0, "19024"),
        (LIMITED, False, feishu.RATE_PAUSE, "send less"),
        ((429, {"x-ogw-ratelimit-reset": "17"}, {"code": 99991400, "msg": "request trigger"}), False, 17, "send less"),
        ((500, {}, {"code": 1500, "msg": "internal"}), False, 0, "1500"),
        ((200, {}, b"<html>login to the proxy</html>"), False, 0, "not as Feishu does"),
        ((200, {}, {"ok": True}), False, 0, "not as Feishu does"),
        ((200, {}, {"code": False, "msg": "odd"}), True, 0, "refused"),
        ((302, {"Location": "http://127.0.0.1:1/"}, b""), True, 0, "302"),
        ((404, {}, b"404 page not found"), True, 0, "404"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_the_bot_answers_counts(bot: Bot, answer: Any, lasting: bool, after: float, said: str) -> None:
    bot.always = answer
    error = not_sent(lambda: feishu.send(by_bot(bot.url), message(), bot_now()))
    assert (error.lasting, error.after) == (lasting, after) and said in error.what
    assert bot.asked == 1, "redirects are not followed, and whether to try again is not the sender's to decide"


def test_a_wrong_secret_or_an_old_signature_is_refused_by_the_bot(bot: Bot) -> None:
    wrong = by_bot(bot.url, secret="another")
    assert "19021" in not_sent(lambda: feishu.send(wrong, message(), bot_now())).what
    assert "19021" in not_sent(lambda: feishu.send(by_bot(bot.url), message(), bot_now() - 7200)).what
    assert "19001" in not_sent(lambda: feishu.send(by_bot(bot.url.replace("0bad", "1bad")), message(), bot_now())).what
    assert not bot.cards
    gone = by_bot("http://127.0.0.1:1/open-apis/bot/v2/hook/" + TOKEN)
    assert not not_sent(lambda: feishu.send(gone, message(), bot_now())).lasting


def test_many_alerts_and_long_ones_fit_into_one_message(bot: Bot) -> None:
    alerts = [(f"run_failed.{n}", f"j{n}", "名" * 200, "原因" * 290) for n in range(60)]
    many = [Alert(ident, "run_failed", NOW, job, name, reason=why) for ident, job, name, why in alerts]
    told = message_of_many(many, language="zh", console="https://c")
    feishu.send(by_bot(bot.url), told, bot_now())
    assert bot.titles == ["60 条告警"] and "另有 40 条" in texts(bot.cards[0])
    wide = Alert("x", "run_failed", NOW, "j", "名" * 200, reason="因" * 600)
    feishu.send(by_bot(bot.url), message_of(wide, language="zh", tail="输出" * 1000), bot_now())
    assert len(feishu.payload(by_bot(bot.url), message_of(wide, language="zh", tail="输出" * 1000), NOW)) <= feishu.BODY
    assert "输出" in texts(bot.cards[1])


def test_secrets_rest_encrypted_and_are_shown_nowhere() -> None:
    cipher = Cipher([new_secret_key()])
    channel = by_bot(f"https://open.feishu.cn/open-apis/bot/v2/hook/{TOKEN}")
    rests = sealed(channel, cipher, revision=4)
    shown = f"{channel!r} {rests.shown()} {rests.document()}"
    assert rests.opened(cipher) == channel and SealedChannel.read(rests.encode()).opened(cipher) == channel
    for secret in (TOKEN, SECRET):
        assert secret not in shown and secret.encode() not in rests.encode()
        assert secret not in channel.hide(f"at {channel.secrets['url']} and {secret}, hook/{TOKEN}")
    with pytest.raises(NoSecretKey):
        sealed(channel, Cipher([]))
    with pytest.raises(CannotDecrypt):
        rests.opened(Cipher([new_secret_key()]))
    with pytest.raises(CannotDecrypt, match="moved"):
        replace(rests, name="theirs").opened(cipher)


def test_a_hidden_secret_stays_but_does_not_go_to_another_host() -> None:
    old = by_mail(587, host="smtp.example.org", security="starttls", user="u", password=PASSWORD)
    shown = sealed(old, Cipher([new_secret_key()])).shown()
    assert shown["password"] == HIDDEN
    again = parse_channel({**shown, "to": ["c@example.org"]}, old)
    assert again.secrets == {"password": PASSWORD} and again.settings["to"] == ["c@example.org"]
    left_out = {name: value for name, value in shown.items() if name != "password"}
    assert parse_channel(left_out, old).secrets == {"password": PASSWORD}
    for moved in ({"host": "evil.example.org"}, {"port": 26}, {"security": "tls"}, {"user": "x"}):
        with pytest.raises(Invalid, match="must be given again") as caught:
            parse_channel({**shown, **moved}, old)
        assert PASSWORD not in str(caught.value)
    bot = by_bot(f"https://open.feishu.cn/hook/{TOKEN}")
    assert parse_channel({"name": "ops", "kind": "feishu", "language": "zh"}, bot).secrets == bot.secrets
    with pytest.raises(Invalid, match="must be given again"):
        parse_channel({"name": "ops", "kind": "feishu", "url": "https://evil.example.org/x"}, bot)
    unsigned = parse_channel({"name": "ops", "kind": "feishu", "url": "https://o.feishu.cn/x", "secret": ""}, bot)
    assert unsigned.secrets == {"url": "https://o.feishu.cn/x"}
    with pytest.raises(Invalid, match="is hidden here"):
        parse_channel({"name": "ops", "kind": "feishu", "url": HIDDEN})


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"name": "x"}, "kind"),
        ({"name": "X", "kind": "feishu", "url": "https://a/b"}, "name"),
        ({"name": "x", "kind": "pigeon"}, "kind"),
        ({"name": "x", "kind": "feishu"}, "url"),
        ({"name": "x", "kind": "feishu", "url": "http://open.feishu.cn/x"}, "url"),
        ({"name": "x", "kind": "feishu", "url": "https://u:p@a/b"}, "url"),
        ({"name": "x", "kind": "feishu", "url": "https://a/b", "host": "h"}, "host"),
        ({"name": "x", "kind": "email", "from": "a@b.c"}, "host"),
        ({"name": "x", "kind": "email", "host": "h h", "from": "a@b.c"}, "host"),
        ({"name": "x", "kind": "email", "host": "h", "from": "a b"}, "from"),
        ({"name": "x", "kind": "email", "host": "h", "from": "a@b.c", "to": ["a@b.c\r\nBcc: x@y.z"]}, "to[0]"),
        ({"name": "x", "kind": "email", "host": "h", "from": "a@b.c", "port": "25"}, "port"),
        ({"name": "x", "kind": "email", "host": "h", "from": "a@b.c", "user": "u"}, "password"),
        ({"name": "x", "kind": "email", "host": "h", "from": "a@b.c", "ca": "no"}, "ca"),
        ({"name": "x", "kind": "email", "host": "h", "from": "a@b.c", "colour": "red"}, "colour"),
    ],
)
def test_what_is_wrong_is_named(document: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_channel(document)
    assert caught.value.field == field and caught.value.hint


def test_a_bot_that_answers_drop_by_drop_holds_only_its_own_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feishu, "PATIENCE", (0.5, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []
        thread = threading.Thread(target=lambda: taken.append(server.accept()[0]), daemon=True)
        thread.start()
        channel = by_bot(f"http://127.0.0.1:{server.getsockname()[1]}/{TOKEN}")
        error = not_sent(lambda: feishu.send(channel, message(), NOW))
        assert "in time" in error.what and not error.lasting
        thread.join(5)
        for each in taken:
            each.close()
