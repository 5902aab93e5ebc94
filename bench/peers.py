"""Others to measure against, installed by the bench itself as public packages into `bench/.peers`."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from bench.harness import ROOT, say

PEERS = ROOT / "bench" / ".peers"


class MissingPeerError(Exception):
    """The peer cannot be installed here. `str()` says what to do."""


def python_tool(package: str, command: str) -> Path:
    """The path of `command` from a Python package, in an environment of its own."""
    home = PEERS / package
    program = home / "bin" / command
    if not program.exists():
        say(f"installing {package} into {home.relative_to(ROOT)}")
        venv.create(home, with_pip=True)
        install = [
            str(home / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            package,
        ]
        if subprocess.run(install, check=False, stdout=sys.stderr).returncode != 0:
            shutil.rmtree(home, ignore_errors=True)
            raise MissingPeerError(f"pip could not install {package}")
    return program


def debian_tool(package: str, command: str, *parts: str) -> Path:
    """The path of `command` from a Debian package: the installed one, else one unpacked into our own folder.

    `parts` are packages that it needs and that are unpacked beside it.

    Unpacking instead of installing starts no service and changes nothing outside `bench/.peers`.
    """
    found = shutil.which(command)
    if found:
        return Path(found)
    home = PEERS / package
    program = _within(home, command)
    if program is None:
        for each in (package, *parts):
            _unpack(each, home)
        program = _within(home, command)
    if program is None:
        raise MissingPeerError(f"install it first: apt-get install {package}")
    return program


def _unpack(package: str, home: Path) -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise MissingPeerError(f"{package} is a Debian package, and this is no Debian")
    say(f"unpacking {package} into {home.relative_to(ROOT)}")
    home.mkdir(parents=True, exist_ok=True)
    # Downloading needs no root; only apt's own sandbox user must be able to write here.
    fetch = ["apt-get", "-qq", "-o", "APT::Sandbox::User=" + _user(), "download", package]
    if subprocess.run(fetch, cwd=home, check=False, stdout=sys.stderr).returncode != 0:
        raise MissingPeerError(f"apt-get could not fetch {package}; as root, run: apt-get update")
    for archive in home.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", archive, home], check=True)


def _within(home: Path, command: str) -> Path | None:
    for folder in ("usr/bin", "usr/sbin", "bin", "sbin"):
        program = home / folder / command
        if os.access(program, os.X_OK):
            return program
    return None


def _user() -> str:
    return "root" if os.geteuid() == 0 else os.environ.get("USER", "nobody")
