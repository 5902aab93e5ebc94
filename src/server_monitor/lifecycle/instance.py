"""The data directory: who we are in it, and that nobody else is using it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server_monitor.db.ids import new_id
from server_monitor.errors import Conflict, Invalid
from server_monitor.settings import make_private_directory, write_new_private_file


def instance_id(data_dir: Path) -> str:
    """The name of this installation: made at the first start, kept in the data directory."""
    path = data_dir / "instance_id"
    try:
        make_private_directory(data_dir)
        write_new_private_file(path, new_id() + "\n")
        name = path.read_text().strip()
    except OSError as error:
        raise Invalid.one("DATA_DIR", f"{data_dir} cannot be used: {error.strerror}") from None
    if not name:
        # The audit log carries the name: another one, made up here, would make it look like another log.
        raise Invalid.one(
            "DATA_DIR", f"{path} is empty: put the id back from a backup, or delete the file to begin under a new one"
        )
    return name


@contextmanager
def exclusive(data_dir: Path) -> Iterator[None]:
    """Hold the data directory while the console runs. The kernel lets go of it however the process ends.

    Raises Conflict when somebody else holds it.
    """
    descriptor = os.open(data_dir / "console.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"Another console is using {data_dir}, or a `server-monitor run` without one: stop it, or give "
                "this one another --data-dir."
            ) from None
        yield
    finally:
        os.close(descriptor)


def is_held(data_dir: Path) -> bool:
    """Does anybody hold the data directory now?"""
    try:
        with exclusive(data_dir):
            return False
    except Conflict:
        return True
