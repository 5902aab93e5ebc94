"""`tools/dev.py` starts on any Python, and says what is missing."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
DEV = ROOT / "tools" / "dev.py"


def dev(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **({"PATH": str(path)} if path else {})}
    return subprocess.run(
        [sys.executable, DEV, *arguments], env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def test_an_old_python_can_read_it() -> None:
    """It has to parse before it can say that the Python is too old."""
    ast.parse(DEV.read_text(), feature_version=(3, 4))


def test_an_old_python_is_told_what_is_needed(tmp_path: Path) -> None:
    pretend = tmp_path / "dev.py"
    pretend.write_text(DEV.read_text().replace("OLDEST = (3, 11)", "OLDEST = (9, 0)"))

    ended = subprocess.run(
        [sys.executable, pretend, "run"], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )

    assert ended.returncode == 1
    assert "needs Python 9.0 or newer" in ended.stderr


def test_an_old_python_hands_over_to_a_newer_one(tmp_path: Path) -> None:
    """`python3` may be old on a machine that has `python3.11` beside it."""
    (tmp_path / "python3.11").symlink_to(sys.executable)
    pretend = tmp_path / "dev.py"
    source = DEV.read_text().replace("OLDEST = (3, 11)", 'OLDEST = (3, 11) if "AGAIN" in os.environ else (9, 0)')
    pretend.write_text(source.replace("os.execv(found", 'os.environ["AGAIN"] = "1"; os.execv(found'))
    shutil.copytree(ROOT / "tools" / "workshop", tmp_path / "workshop")

    ended = subprocess.run(
        [sys.executable, pretend, "help"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.stdout.startswith("Usage:")


def test_help_names_every_make_target() -> None:
    helped = dev("help").stdout
    targets = [line.partition(":")[0] for line in (ROOT / "Makefile").read_text().splitlines() if "dev.py " in line]
    assert [target for target in targets[1:] if f"\n  {target} " not in helped] == []


def test_an_unknown_command_is_wrong_usage() -> None:
    ended = dev("frobnicate")
    assert ended.returncode == 3
    assert "Unknown command: frobnicate" in ended.stderr
