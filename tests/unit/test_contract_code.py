"""The generated code of the gRPC contract is what its `.proto` says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = "crony/v1/callback.proto"
COPIES = ("crony/workers/rpc", "sdk/crony_sdk")


def test_the_checked_in_code_is_what_the_contract_generates(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    subprocess.run([*command, SOURCE], cwd=ROOT / "proto", check=True, timeout=60)
    for made in sorted((tmp_path / "crony/v1").iterdir()):
        for copy in COPIES:
            there = (ROOT / copy / made.name).read_text()
            assert there == made.read_text(), f"{copy}/{made.name} is out of date: `make proto` writes it"
