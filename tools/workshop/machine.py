"""Programs that only the system's packages can give: installed when we may, else named exactly."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from workshop.process import environment
from workshop.say import step, stop

SYSTEM_FOLDERS = ["/usr/local/sbin", "/usr/sbin", "/sbin"]
"""sshd and its like are here, and a plain user's PATH often leaves them out."""


@dataclass(frozen=True, slots=True)
class Program:
    name: str
    package: str
    wanted_for: str


FOR_TESTS = [
    Program("sshd", "openssh-server", "tests against a real SSH server"),
    Program("ssh-keygen", "openssh-client", "tests against a real SSH server"),
    Program("chromium", "chromium", "the journeys in a real browser"),
    Program("busybox", "busybox", "the probe on BusyBox"),
    Program("gawk", "gawk", "the probe on gawk"),
    Program("mawk", "mawk", "the probe on mawk"),
    Program("vim", "vim", "vim in a terminal"),
    Program("htop", "htop", "htop in a terminal"),
    Program("tmux", "tmux", "tmux in a terminal"),
]


def ensure_venv_module() -> None:
    """Debian ships `python3 -m venv` in a package of its own."""
    if importlib.util.find_spec("ensurepip"):
        return
    packages = ["python3-venv", f"python{sys.version_info.major}.{sys.version_info.minor}-venv"]
    package = packages[0] if Path(sys.executable).name == "python3" else packages[1]
    if not apt_install([package]):
        stop(f"Python's venv module is missing. Install it, then try again:\n    {apt_line([package])}")


def ensure_programs(programs: Iterable[Program]) -> None:
    """Install what is missing; where we may not, say so, and fail only when CI must have all of it."""
    missing = [program for program in programs if not is_here(program)]
    if not missing or apt_install(sorted({program.package for program in missing})):
        return
    for program in missing:
        step(f"{program.name} is missing: {program.wanted_for} will be skipped")
    line = apt_line(sorted({program.package for program in missing}))
    if os.environ.get("CI") == "true":
        stop(f"CI=true, and a missing program would skip tests. Install it first:\n    {line}")
    step(f"To run them: {line}")


def is_here(program: Program) -> bool:
    folders = os.pathsep.join([os.environ.get("PATH", ""), *SYSTEM_FOLDERS])
    return shutil.which(program.name, path=folders) is not None


def apt_line(packages: Iterable[str]) -> str:
    return f"sudo apt-get install -y {' '.join(packages)}"


def apt_install(packages: list[str]) -> bool:
    """True when apt installed them. It is asked only as root or where sudo wants no password."""
    if (prefix := privilege()) is None:
        return False
    step(f"Installing with apt: {' '.join(packages)}")
    apt = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"]
    if not succeeds([*apt, "update"]):
        step("apt-get update failed; trying with the package lists of before")
    return succeeds([*apt, "install", "-y", "--no-install-recommends", *packages])


def privilege() -> list[str] | None:
    """What to put before apt-get; None where there is no apt or we may not use it."""
    if shutil.which("apt-get") is None:
        return None
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo and succeeds([sudo, "-n", "true"], stderr=subprocess.DEVNULL):
        return [sudo, "-n"]
    return None


def succeeds(command: list[str], *, stderr: int | None = None) -> bool:
    ended = subprocess.run(
        command, env=environment(), stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=stderr, check=False
    )
    return ended.returncode == 0
