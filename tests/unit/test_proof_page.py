"""docs/explanation/proof.md names a test for every fault and finding, and every test that it names is there."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

from crony.etcd.keys import Keys

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "proof.md"
FAULTS = re.findall(r"\S+", "L2 L3 L4 L6 L7 L8 N1 N2 N4 N6 N7 N8 E1 E2 E3 E5 E6 E9 T1 T2 T4 T6 S1 S2 X1")
FINDINGS = [
    f"{letter}{number}"
    for letter, numbers in {"S": range(1, 16), "N": range(1, 15), "Q": range(3, 7), "M": range(1, 8), "H": range(1, 3),
                            "E": range(1, 8)}.items()
    for number in numbers
]  # fmt: skip


def covered(heading: str) -> dict[str, list[str]]:
    """Id -> tests, of the tables under headings that begin so."""
    found: dict[str, list[str]] = {}
    for section in PAGE.read_text(encoding="utf-8").split("\n### ")[1:]:
        if section.startswith(heading):
            for ident, tests in re.findall(r"^\| ([A-Z]\d+) \| [^|]+ \| (.+) \|$", section.split("\n# ")[0], re.M):
                assert ident not in found, f"{ident} is there twice"
                found[ident] = re.findall(r"`([^`]+)`", tests)
    return found


@lru_cache
def defined(path: str) -> set[str]:
    """Names of the functions and classes of a file."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


@pytest.mark.parametrize(("heading", "ids"), [("Faults", FAULTS), ("Findings", FINDINGS)])
def test_every_id_has_a_test_and_every_test_is_there(heading: str, ids: list[str]) -> None:
    found = covered(heading)
    assert sorted(found) == sorted(ids)
    for ident, tests in found.items():
        assert tests, f"{ident} has none"
        for test in tests:
            path, _, name = test.partition("::")
            assert (ROOT / path).is_file() and name in defined(path), f"{ident}: {test} is not there"


def test_no_name_lies_below_another_in_etcd() -> None:
    """A range on what belongs to `a` must not hold what belongs to `a/b` (S14)."""
    keys = Keys("x")
    for one, other in (("a", "a/b"), ("a", "a/"), ("run.n", "run.n/1")):
        places = keys.message(one, ""), keys.claim(one, "")
        assert not any(keys.message(other, "p").startswith(place) for place in places)
        assert not keys.node(other).startswith(f"{keys.node(one)}/")
        assert not keys.name(other).startswith(f"{keys.name(one)}/")
