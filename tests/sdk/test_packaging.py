"""What is shipped as `crony-sdk`: dependencies, layers, the oldest Python, how light an import is."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

import crony_sdk

ROOT = Path(__file__).resolve().parents[2]
SDK = ROOT / "sdk"
SETUP = configparser.ConfigParser()
SETUP.read(SDK / "setup.cfg")


def names(text: str) -> set[str]:
    return {re.split(r"[<>=!~ \[;]", line)[0] for line in text.split("\n") if line.strip()}


def imports(at_top: bool) -> dict[str, set[str]]:
    """Packages that each module imports; `at_top`: only those that importing the module brings in."""
    found: dict[str, set[str]] = {}
    for path in (SDK / "crony_sdk").glob("*.py"):
        tree = ast.parse(path.read_text(), feature_version=(3, 9))
        for node in tree.body if at_top else ast.walk(tree):
            if isinstance(node, ast.Import):
                found.setdefault(path.stem, set()).update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.setdefault(path.stem, set()).add(node.module.split(".")[0])
    return found


def test_dependencies_are_what_is_imported() -> None:
    assert names(SETUP["options"]["install_requires"]) == {"requests"}
    frameworks = {
        "flask": {"flask"}, "django": {"django"}, "grpc": {"grpc", "grpc_health", "google"}, "callback_pb2": {"google"},
    }  # fmt: skip
    for module, packages in imports(at_top=False).items():
        foreign = {name for name in packages if name not in sys.stdlib_module_names} - {"crony_sdk"}
        assert foreign <= {"requests", *frameworks.get(module, ())}, module
    assert set(SETUP["options.extras_require"]) == {"django", "fastapi", "flask", "grpc"}


def test_an_import_is_light_and_brings_nothing_of_the_platform() -> None:
    heavy = ("crony", "flask", "fastapi", "django", "grpc", "celery", "sqlalchemy", "asyncio", "http.server")
    script = f"import sys, crony_sdk; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=SDK, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_imports_go_down_only() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--config", "setup.cfg", "--no-cache"]
    done = subprocess.run(command, cwd=SDK, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-3000:]


def test_it_runs_on_the_python_that_it_names() -> None:
    oldest = SETUP["options"]["python_requires"].removeprefix(">=")
    command = [
        sys.executable,
        "-c",
        "import vermin; vermin.main()",
        f"--target={oldest}-",
        "--violations",
        "--no-tips",
        "crony_sdk",
    ]
    done = subprocess.run(command, cwd=SDK, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    assert f'target-version = "py{oldest.replace(".", "")}"' in (SDK / "pyproject.toml").read_text()


def test_what_is_shipped_beside_the_code() -> None:
    assert SETUP["metadata"]["version"] == "attr: crony_sdk.__version__" and crony_sdk.__version__
    assert (SDK / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert (SDK / "crony_sdk/py.typed").exists() and SETUP["metadata"]["license"] == "Apache-2.0"
    assert sorted(crony_sdk.__all__) == crony_sdk.__all__
    assert all(hasattr(crony_sdk, name) for name in crony_sdk.__all__)
