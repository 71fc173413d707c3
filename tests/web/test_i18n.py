"""The Chinese catalogue is complete and has nothing left over; its texts take the same values as the English ones."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from jinja2.ext import extract_from_ast

import crony.web
from crony.web.i18n import choose, translator
from crony.web.rendering import Renderer

ROOT = Path(crony.web.__file__).parent
PLACES = re.compile(r"%\((\w+)\)s")


def used(render: Renderer) -> set[str]:
    """Every text given to `_` or `N_` in templates and code."""
    found: set[str] = set()
    for file in (ROOT / "templates").rglob("*.html"):
        tree = render.env.parse(file.read_text(encoding="utf-8"))
        for _, _, message in extract_from_ast(tree, ("_",)):
            text = message[0] if isinstance(message, tuple) else message
            assert isinstance(text, str), f"{file.name}: a text that is not written out cannot be checked"
            found.add(text)
    for file in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("_", "N_")):
                continue
            if node.args and isinstance(node.args[0], ast.Constant):
                found.add(node.args[0].value)
    return found


def test_every_text_has_a_chinese_one_and_none_is_left_over(web: crony.web.wiring.Web) -> None:
    catalogue = json.loads((ROOT / "i18n" / "zh.json").read_text(encoding="utf-8"))
    texts = used(web.render)
    assert sorted(texts - catalogue.keys()) == [], "without a Chinese text"
    assert sorted(catalogue.keys() - texts) == [], "used nowhere"


def test_translations_take_the_same_values() -> None:
    catalogue = json.loads((ROOT / "i18n" / "zh.json").read_text(encoding="utf-8"))
    for english, chinese in catalogue.items():
        assert set(PLACES.findall(english)) == set(PLACES.findall(chinese)), english
        assert chinese.strip(), english


def test_the_catalogue_has_no_text_twice() -> None:
    pairs: list[tuple[str, str]] = []
    json.loads((ROOT / "i18n" / "zh.json").read_text(encoding="utf-8"), object_pairs_hook=pairs.extend)
    assert len(pairs) == len(dict(pairs))


@pytest.mark.parametrize(
    ("cookie", "accept", "expected"),
    [
        (None, None, "en"),
        (None, "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        (None, "fr, de;q=0.9", "en"),
        (None, "en;q=0.5, zh;q=0.9", "zh"),
        (None, "zh;q=0, en", "en"),
        (None, "zh;q=abc", "en"),
        ("en", "zh-CN", "en"),
        ("zh", "en", "zh"),
        ("xx", "zh", "zh"),
        (None, ";;;,,," * 2000, "en"),
    ],
)
def test_the_language_is_the_cookies_then_the_browsers(cookie: str | None, accept: str | None, expected: str) -> None:
    assert choose(cookie, accept) == expected


def test_a_text_nobody_translated_stays_english() -> None:
    assert translator("zh")("never %(n)s", n=3) == "never 3"
