"""A wheel holds all that runs: an installed one needs no Node, no compiler and no checkout."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = "import sys; from hatchling.build import build_{kind}; build_{kind}(sys.argv[1])"
NEEDED = ["pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "src", "tools", "locks", "web", ".cache/web"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the checkout whose UI is already built, so that building a wheel starts no Node."""
    if not (ROOT / ".cache" / "web").exists():
        pytest.skip("The UI is not built: make web")
    copy = tmp_path / "checkout"
    leave_out = shutil.ignore_patterns("node_modules", "__pycache__")
    for name in NEEDED:
        source, target = ROOT / name, copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=leave_out)
        else:
            shutil.copy(source, target)
    return copy


def built(checkout: Path, kind: str) -> set[str]:
    """The names of the files in a wheel built by the package's own build step."""
    target = checkout / "dist"
    target.mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", BUILD.format(kind=kind), target],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    [wheel] = target.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_a_wheel_holds_the_ui_the_probe_and_the_migrations(checkout: Path) -> None:
    names = built(checkout, "wheel")

    assert "server_monitor/static/index.html" in names
    assert any(name.startswith("server_monitor/static/assets/") for name in names)
    assert "server_monitor/collect/probe.awk" in names
    assert "server_monitor/db/migrations/env.py" in names
    assert any(name.startswith("server_monitor/db/migrations/versions/0001") for name in names)
    assert "server_monitor/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_a_wheel_holds_nothing_else(checkout: Path) -> None:
    tops = {name.partition("/")[0] for name in built(checkout, "wheel")}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"server_monitor"}


def test_an_editable_install_builds_no_ui(checkout: Path) -> None:
    """It is what tools/dev.py installs before Node is there."""
    shutil.rmtree(checkout / "web")
    shutil.rmtree(checkout / "src" / "server_monitor" / "static")
    assert built(checkout, "editable") != set()
