"""What a message says: one alert with its facts, or many of them in one; in English or Chinese.

Everything in it is plain text. What a job printed or a person typed is never markup: it cannot mention anybody, fake a
link or break a message.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

from crony.domain.alert import Alert, AlertKind

GOOD = frozenset({AlertKind.RECOVERED, AlertKind.TEST})
TAIL = 2000
"""Most characters of output in a message: its end."""
_COLOURS = re.compile(r"\x1b\[[0-9;?]{0,20}[A-Za-z]")
LINES = 20
"""Most alerts that a message about many lists."""

_TITLES = {
    AlertKind.RUN_FAILED: ("{name} failed", "{name} 失败"),
    AlertKind.RUN_HELD: ("A run of {name} waits for a decision", "{name} 的运行等待处理"),
    AlertKind.RECOVERED: ("{name} works again", "{name} 已恢复"),
    AlertKind.JOB_PAUSED: ("{name} was paused", "{name} 已被暂停"),
    AlertKind.JOB_HELD: ("{name} cannot fire", "{name} 无法触发"),
    AlertKind.QUEUE_AGE: ("A run of {name} has not begun", "{name} 的运行迟迟没有开始"),
    AlertKind.LATE: ("A run of {name} is late", "{name} 的运行未按时开始"),
    AlertKind.MISSED: ("{name} did not run", "{name} 未运行"),
    AlertKind.TOO_LONG: ("A run of {name} takes too long", "{name} 的运行耗时过长"),
    AlertKind.NODE_LOST: ("Node {node} is lost", "节点 {node} 失联"),
    AlertKind.LEADER_CHANGED: ("Another centre leads", "主节点已更替"),
    AlertKind.FAILURE_RATE: ("Many runs fail: {name}", "失败率过高:{name}"),
    AlertKind.TZDATA: ("The centres use different time zone data", "各调度中心的时区数据不一致"),
    AlertKind.NOT_KEPT: ("{times} alerts were not kept", "有 {times} 条告警未保留"),
    AlertKind.TEST: ("Test alert", "测试告警"),
}
_WORDS = {
    "job": ("Job", "作业"),
    "run": ("Run", "运行"),
    "attempt": ("Attempt", "第几次尝试"),
    "outcome": ("Outcome", "结果"),
    "node": ("Node", "节点"),
    "reason": ("Reason", "原因"),
    "at": ("At", "时间"),
    "output": ("Last output", "末尾输出"),
    "open": ("Open in Crony", "在 Crony 中查看"),
    "many": ("{n} alerts", "{n} 条告警"),
    "more": ("… and {n} more", "……另有 {n} 条"),
}
_OUTCOMES = {
    "failed": "失败", "timed_out": "超时", "lost": "节点失联", "unknown": "结果未知", "refused": "被拒绝",
    "succeeded": "成功", "cancelled": "已取消",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Message:
    """One message, before it takes the form of its channel."""

    ident: str
    """The same for the same alerts: who gets it twice can tell."""
    thread: str
    """What belongs together: the job, say."""
    title: str
    good: bool
    facts: tuple[tuple[str, str], ...]
    """(word, value)."""
    lines: tuple[str, ...] = ()
    tail: str = ""
    """The end of a run's output."""
    tail_word: str = ""
    link: str = ""
    """https://… or empty."""
    link_word: str = ""

    def text(self) -> str:
        """As plain text, for people."""
        parts = ["\n".join(f"{word}: {value}" for word, value in self.facts), "\n".join(self.lines)]
        if self.tail:
            parts.append(f"{self.tail_word}:\n\n" + "\n".join(f"    {line}" for line in self.tail.split("\n")))
        if self.link:
            parts.append(f"{self.link_word}: {self.link}")
        return "\n\n".join(part for part in parts if part) + "\n"

    def shorter(self) -> Message:
        """With half of its output, without it when little is left, then with half of its lines."""
        if len(self.tail) > 200:
            return replace(self, tail="…" + self.tail[len(self.tail) // 2 :])
        return replace(self, tail="", lines=self.lines[: len(self.lines) // 2])


def word(name: str, language: str, **values: object) -> str:
    """A word of messages."""
    return _WORDS[name][language == "zh"].format(**values)


def title(alert: Alert, language: str) -> str:
    """One line: what happened."""
    known = _TITLES.get(alert.kind)  # type: ignore[call-overload]
    if known is None:
        return one_line(alert.sentence(), 200)
    name = one_line(alert.name or alert.job, 120)
    return str(known[language == "zh"]).format(name=name, node=one_line(alert.node, 80), times=alert.times)


def message_of(alert: Alert, *, language: str, console: str = "", tail: str = "") -> Message:
    """The message about one alert. `console`: address of the web console, for the link; `tail`: output of its run."""
    zh = language == "zh"
    outcome = (_OUTCOMES.get(alert.outcome) if zh else None) or alert.outcome.replace("_", " ")
    facts = (
        ("job", alert.name or alert.job),
        ("run", alert.run),
        ("attempt", str(alert.attempt) if alert.attempt > 1 else ""),
        ("outcome", outcome),
        ("node", alert.node),
        ("reason", alert.reason),
        ("at", moment(alert.at)),
    )
    return Message(
        ident=_digest(alert.id),
        thread=_digest(alert.job or alert.kind),
        title=title(alert, language),
        good=alert.kind in GOOD,
        facts=tuple((word(name, language), _value(value)) for name, value in facts if value),
        tail=tail_of(tail),
        tail_word=word("output", language),
        link=link_of(alert, console),
        link_word=word("open", language),
    )


def message_of_many(alerts: Sequence[Alert], *, language: str, console: str = "") -> Message:
    """One message about several alerts, oldest first."""
    lines = [f"{moment(alert.at)}  {_listed(alert, language)}" for alert in alerts[:LINES]]
    if len(alerts) > LINES:
        lines.append(word("more", language, n=len(alerts) - LINES))
    return Message(
        ident=_digest("\n".join(sorted(alert.id for alert in alerts))),
        thread=_digest("many"),
        title=word("many", language, n=len(alerts)),
        good=all(alert.kind in GOOD for alert in alerts),
        facts=(),
        lines=tuple(lines),
        link=f"{console.rstrip('/')}/alerts" if console else "",
        link_word=word("open", language),
    )


def link_of(alert: Alert, console: str) -> str:
    """Where the console shows what the alert is about; empty when nobody said where the console is."""
    if not console:
        return ""
    place = "/nodes" if alert.node else "/alerts"
    if alert.run:
        place = f"/runs/{quote(alert.run, safe='')}"
    elif alert.job:
        place = f"/jobs/{quote(alert.job, safe='')}"
    return console.rstrip("/") + place


def moment(at: float) -> str:
    """An instant for people, with its zone."""
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def one_line(text: str, most: int) -> str:
    """`text` on one line without control characters, cut."""
    flat = "".join(char if char.isprintable() else " " for char in text)
    flat = " ".join(flat.split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"


def tail_of(text: str) -> str:
    """The end of an output, from the beginning of a line, without control characters but line breaks and tabs."""
    bare = _COLOURS.sub("", text.replace("\r\n", "\n"))
    kept = "".join(char for char in bare if char.isprintable() or char in "\n\t")
    kept = kept.rstrip()
    if len(kept) > TAIL:
        kept = kept[-TAIL:]
        kept = kept.partition("\n")[2] if "\n" in kept[:-1] else kept
    return kept


def _listed(alert: Alert, language: str) -> str:
    reason = f": {one_line(alert.reason, 160)}" if alert.reason else ""
    return title(alert, language) + reason


def _value(text: str) -> str:
    return one_line(text, 600)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]
