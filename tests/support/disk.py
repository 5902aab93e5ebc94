"""A console on a small disk of its own, to be filled."""

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.console import ConsoleProcess


@contextmanager
def mounted(directory: Path, size_mib: int) -> Iterator[Path]:
    """A file system of this size, in memory; the test is skipped where none can be mounted."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small tmpfs takes root: run the tests as root to see this one")
    directory.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs"]
    try:
        subprocess.run(["mount", *options, directory], check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this system mounts no tmpfs: {error.stderr.decode().strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MiB."""
    with mounted(tmp_path / "disk", 48) as disk:
        yield disk


@pytest.fixture
async def console_on_it(small_disk: Path) -> AsyncIterator[ConsoleProcess]:
    """A console that keeps its data there, and 1 MiB of it for its log."""
    process = ConsoleProcess(small_disk / "data", {"DISK_RESERVE_MIB": "1"})
    await process.start()
    try:
        yield process
    finally:
        if process.is_running:
            await process.kill()


def fill(disk: Path, name: str = "filler") -> Path:
    """Take every byte that is left, in a file of this name."""
    filler = disk / name
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return filler
