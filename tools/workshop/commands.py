"""What `make` and `python3 tools/dev.py` offer."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from workshop import environment, locks, machine, ui
from workshop.environment import BIN, PYTHON, ROOT
from workshop.process import exit_code
from workshop.say import Stop, step, stop

USAGE = """\
Usage: python3 tools/dev.py COMMAND [ARGUMENTS]     (or: make COMMAND)

  run     set up what is missing, then start the console and print its URL
  test    every check and every test; ARGUMENTS go to pytest
  setup   only what `run` needs: .venv and the built UI
  check   format, lint, types, import order, and the UI's own checks
  bench   the measurements; ARGUMENTS choose which
  web     build the UI if web/ changed
  lock    write locks/ from pyproject.toml; --upgrade takes newer versions
  docs    write .env.example and the pages of docs/reference/ that repeat the code
  help    this text
"""


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    command: Sequence[str]


CHECKS = [
    Check("types", [str(BIN / "mypy")]),
    Check("lint", [str(BIN / "ruff"), "check", "--quiet", "."]),
    Check("format", [str(BIN / "ruff"), "format", "--check", "--quiet", "."]),
    Check("import order", [str(BIN / "lint-imports"), "--cache-dir", str(ROOT / ".cache" / "imports")]),
    Check("UI", [str(PYTHON), "tools/dev.py", "check-web"]),
]

# Much of a test's time is waiting for a real sshd, disk or browser: three at a time use two cores. A file stays in one
# process, for the sake of what its tests share; tests/conftest.py has the slow files begin first.
ALL_TESTS = ["-n", str(max(2, (os.cpu_count() or 2) * 3 // 2)), "--dist", "loadfile", "--no-loadscope-reorder"]


def main(arguments: Sequence[str]) -> int:
    name, *rest = arguments or ["help"]
    command = COMMANDS.get(name)
    if command is None:
        sys.stderr.write(f"Unknown command: {name}\n\n{USAGE}")
        return 3
    try:
        return command(rest)
    except Stop as reason:
        sys.stderr.write(f"{reason}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def setup(_arguments: Sequence[str]) -> int:
    with environment.one_at_a_time():
        environment.install("run")
        ui.build_for_checkout()
    return 0


def run(arguments: Sequence[str]) -> int:
    setup([])
    environment.become_console(arguments)


def web(_arguments: Sequence[str]) -> int:
    return setup([])


def set_up_for_tests() -> None:
    with environment.one_at_a_time():
        environment.install("run", "test")
        ui.build_for_checkout()


def check(_arguments: Sequence[str]) -> int:
    set_up_for_tests()
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        outcomes = list(pool.map(run_check, CHECKS))
    if failed := [check.name for check, passed in zip(CHECKS, outcomes, strict=True) if not passed]:
        stop(f"These checks failed: {', '.join(failed)}")
    return 0


def run_check(check: Check) -> bool:
    """Its output is printed in one piece, and only when it fails."""
    started = time.monotonic()
    ended = subprocess.run(
        check.command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    took_s = time.monotonic() - started
    passed = ended.returncode == 0
    step(f"{check.name}: {'ok' if passed else 'FAILED'} ({took_s:.1f} s)" + ("" if passed else f"\n{ended.stdout}"))
    return passed


def check_web(_arguments: Sequence[str]) -> int:
    ui.check("check", "test")
    return 0


def test(arguments: Sequence[str]) -> int:
    machine.ensure_programs(machine.FOR_TESTS)
    check([])
    return exit_code([PYTHON, "-m", "pytest", *(arguments or ALL_TESTS)], cwd=ROOT)


def bench(arguments: Sequence[str]) -> int:
    set_up_for_tests()
    return exit_code([PYTHON, "-m", "bench", *arguments], cwd=ROOT)


def lock(arguments: Sequence[str]) -> int:
    with environment.one_at_a_time():
        environment.make_venv()
        locks.write(upgrade="--upgrade" in arguments)
    return 0


def docs(_arguments: Sequence[str]) -> int:
    set_up_for_tests()
    return exit_code([PYTHON, "tools/reference.py"], cwd=ROOT)


def show_help(_arguments: Sequence[str]) -> int:
    sys.stdout.write(USAGE)
    return 0


COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "run": run,
    "test": test,
    "setup": setup,
    "check": check,
    "check-web": check_web,
    "bench": bench,
    "web": web,
    "lock": lock,
    "docs": docs,
    "help": show_help,
    "--help": show_help,
    "-h": show_help,
}
