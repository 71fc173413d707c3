"""Job documents from files: YAML without YAML's surprises, and the options of `crony job create`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from crony.cli import job
from crony.cli.documents import read_documents
from crony.cli.importer import local_zone
from crony.cli.job_document import document_of
from crony.domain.job import parse


def read(tmp_path: Path, text: str, name: str = "job.yaml") -> list[dict[str, Any]]:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return read_documents(str(tmp_path / name))


def test_what_yaml_would_guess_stays_text(tmp_path: Path) -> None:
    text = "on: no\noff: yes\nat: 2026-12-01T09:00:00+08:00\ntime: 12:30\nhex: 0x10\noct: 010\n"
    assert read(tmp_path, text + "under: 1_000\nn: Null\nnan: .nan\n") == [
        {
            "on": "no",
            "off": "yes",
            "at": "2026-12-01T09:00:00+08:00",
            "time": "12:30",
            "hex": "0x10",
            "oct": "010",
            "under": "1_000",
            "n": None,
            "nan": ".nan",
        }
    ]


def test_numbers_and_flags_are_what_json_has(tmp_path: Path) -> None:
    text = "a: 5\nb: -1.5\nc: 1e3\nd: true\ne: False\nf: ~\ng:\nh: '5'\ni: [1, two]\nj: {k: 1}\n"
    values = [5, -1.5, 1000.0, True, False, None, None, "5", [1, "two"], {"k": 1}]
    assert list(read(tmp_path, text)[0].values()) == values


@pytest.mark.parametrize(
    "text",
    [
        "name: a\n---\nname: b\n",
        "- name: a\n- name: b\n",
        "jobs:\n- {name: a}\n- {name: b}\n",
        "jobs: [{name: a}]\n---\nname: b\n",
    ],
)
def test_several_documents_in_one_file(tmp_path: Path, text: str) -> None:
    assert [document["name"] for document in read(tmp_path, text)] == ["a", "b"]


def test_a_byte_order_mark_and_windows_lines_are_no_reason_to_fail(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeffname: 日报\r\nenabled: true\r\n") == [{"name": "日报", "enabled": True}]
    assert read(tmp_path, '\ufeff{"name": "x"}', "job.json") == [{"name": "x"}]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "--shell 'echo hi' --cron '*/5 * * * *' --timezone Asia/Shanghai",
            {
                "schedule": {"cron": "*/5 * * * *", "timezone": "Asia/Shanghai"},
                "action": {"kind": "shell", "script": "echo hi"},
            },
        ),
        (
            """--command "ls -l 'a b'" --every 5m""",
            {"action": {"kind": "shell", "command": ["ls", "-l", "a b"]}, "schedule": {"every": "5m"}},
        ),
        (
            "--http https://h.example/ --method POST --header 'X-A: b' --body x --at 2099-01-01T00:00:00Z",
            {
                "schedule": {"at": "2099-01-01T00:00:00Z"},
                "action": {
                    "kind": "http",
                    "method": "POST",
                    "url": "https://h.example/",
                    "headers": {"X-A": "b"},
                    "body": "x",
                },
            },
        ),
        (
            "--python my.tasks.report -p region=eu -p n:=5 -p text=5",
            {"action": {"kind": "python", "task": "my.tasks.report"}, "params": {"region": "eu", "n": 5, "text": "5"}},
        ),
        (
            "--shell x --retries 2 --retry-delay 5s --timeout 2m --overlap allow --priority 3",
            {"retry": {"max": 2, "delay": "5s"}, "timeout": "2m", "overlap": "allow", "priority": 3},
        ),
        (
            "--shell x --label zone=a --label disk=ssd --node n1 --tag t --tag u --paused",
            {
                "routing": {"labels": {"zone": "a", "disk": "ssd"}, "node": "n1"},
                "tags": ["t", "u"],
                "enabled": False,
            },
        ),
        ("--shell x", {"name": "a/b", "action": {"kind": "shell", "script": "x"}}),
    ],
)
def test_options_make_a_sound_document(line: str, expected: dict[str, Any]) -> None:
    given = job.create.make_context("create", ["a/b", *shlex.split(line)]).params
    document = document_of("a/b", given)
    assert {field: document[field] for field in expected} == expected
    parse(document)


def test_the_zone_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    assert local_zone() == "Europe/Berlin"
    monkeypatch.setenv("TZ", "../../etc/passwd")
    assert local_zone() != "../../etc/passwd"
    monkeypatch.delenv("TZ")
    assert local_zone()
