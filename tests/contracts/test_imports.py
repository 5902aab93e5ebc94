"""Imports point down, and the contracts that say so would notice if one did not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINTER = Path(sys.executable).with_name("lint-imports")


def lint(sources: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINTER, "--no-cache", "--config", ROOT / "pyproject.toml"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(sources)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_imports_point_down() -> None:
    """Every contract of pyproject.toml is kept."""
    ended = lint(ROOT / "src")
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize(
    ("module", "forbidden", "contract"),
    [
        ("errors.py", "import server_monitor.settings", "Dependencies point down"),
        ("ssh/pool.py", "import server_monitor.series.sample", "Dependencies point down"),
        ("audit/chain.py", "import socket", "Pure modules do no I/O"),
        ("fleet/reasons.py", "import fastapi", "Domains do not speak HTTP"),
        ("realtime/hub.py", "import asyncssh", "Only ssh imports asyncssh"),
    ],
)
def test_a_forbidden_import_is_noticed(tmp_path: Path, module: str, forbidden: str, contract: str) -> None:
    package = shutil.copytree(
        ROOT / "src" / "server_monitor",
        tmp_path / "server_monitor",
        ignore=shutil.ignore_patterns("static", "__pycache__"),
    )
    with (package / module).open("a") as file:
        file.write(f"\n{forbidden}\n")

    ended = lint(tmp_path)

    assert ended.returncode != 0
    assert f"{contract} BROKEN" in ended.stdout


def test_packages_are_empty() -> None:
    """A name is imported from the module that defines it: no `__init__.py` holds any."""
    full = [path for path in (ROOT / "src").rglob("__init__.py") if path.read_text()]
    assert full == []
