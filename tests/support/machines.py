"""Machines that differ from this one, as mount namespaces: another /bin/sh, no bash, a full disk, a boot of their own.

    prefix = machine(is_sh("busybox"), without("/bin/bash"))
    subprocess.run([*prefix, "sh", "-c", …])        # runs there; the process is replaced, its pid stays

Only root can make one; elsewhere the test is skipped and says so.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.patience import PATIENCE_S

Prefix = tuple[str, ...]

SHELLS = tuple(name for name in ("dash", "bash", "busybox") if shutil.which(name))
NEEDS_ROOT = "Making a machine with another shell or disk needs root, to mount something in a namespace of its own."


def machine(*changes: str, account: int | None = None) -> Prefix:
    """Words to put before a command. `changes` are shell commands; `account` is the user id that it then runs as."""
    require_namespaces()
    become = f"/usr/bin/setpriv --reuid={account} --regid={account} --clear-groups " if account is not None else ""
    script = "; ".join(("set -e", *changes, f'exec {become}"$@"'))
    # Without --norc bash takes a socket on its standard input for rshd, and reads the start files of the account.
    return ("unshare", "--mount", "--propagation", "private", "bash", "--norc", "-c", script, "machine")


def is_sh(shell: str) -> str:
    """/bin/sh is this shell."""
    return f"mount --bind {Path(shutil.which(shell) or shell).resolve()} {Path('/bin/sh').resolve()}"


def has_only_busybox(directory: Path) -> str:
    """All tools are those of BusyBox, as on Alpine; there is bash still. `directory` is for their names."""
    for name in _applets():
        link = directory / name
        if not link.is_symlink():
            link.symlink_to("/bin/busybox")
    return f"mount --bind {directory} /opt; export PATH=/opt"  # other accounts may not look into our directory


def without(*paths: str) -> str:
    """No such programs."""
    return "; ".join(f"mount --bind /dev/null {Path(path).resolve()}" for path in paths)


def logs_in_with(shell: str, directory: Path) -> str:
    """Every account's login shell is this one.

    All of /etc is another one: a mount upon a single file is gone once anybody replaces that file, and other tests make
    and remove accounts meanwhile.
    """
    etc = directory / "etc"
    # What such a test has for a moment may be gone before it is copied.
    subprocess.run(["cp", "-a", "/etc", str(etc)], check=False, capture_output=True, timeout=PATIENCE_S)
    lines = Path("/etc/passwd").read_text().splitlines()
    (etc / "passwd").write_text("".join(f"{line.rpartition(':')[0]}:{shell}\n" for line in lines))
    return f"mount --bind {etc} /etc"


def boots_as(boot_id: str, directory: Path) -> str:
    """The kernel was started anew, as far as anybody can see."""
    file = directory / f"boot-{boot_id}"
    file.write_text(f"{boot_id}\n")
    return f"mount --bind {file} /proc/sys/kernel/random/boot_id"


def read_only(path: Path) -> str:
    return f"mount --bind {path} {path}; mount -o remount,bind,ro {path}"


def in_memory(path: Path) -> str:
    return f"mount -t tmpfs none {path}"


def on_disk_of(kib: int, path: Path, image: Path) -> str:
    """A disk of that size at `path`."""
    with image.open("wb") as file:
        file.truncate(kib * 1024)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True, capture_output=True, timeout=PATIENCE_S)
    return f"mount -o loop {image} {path}"


def require_namespaces() -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip(NEEDS_ROOT)
    tried = subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True, timeout=PATIENCE_S)
    if tried.returncode != 0:
        pytest.skip(NEEDS_ROOT)


@contextmanager
def on_a_real_disk(preferred: Path) -> Iterator[Path]:
    """`preferred`, or a directory of its own where that is in memory: the wrapper trusts no memory with its state."""
    if _kind(preferred) not in {"tmpfs", "ramfs"}:
        yield preferred
        return
    with TemporaryDirectory(prefix="server-monitor-", dir="/var/tmp") as found:
        if _kind(Path(found)) in {"tmpfs", "ramfs"}:
            pytest.skip("Both the temporary directory and /var/tmp are in memory here; a disk is needed.")
        yield Path(found)


def _kind(path: Path) -> str:
    words = ["stat", "-f", "-c", "%T", str(path)]
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=PATIENCE_S).stdout.strip()


def _applets() -> list[str]:
    listed = subprocess.run(["busybox", "--list"], check=True, capture_output=True, text=True, timeout=PATIENCE_S)
    return listed.stdout.split()
