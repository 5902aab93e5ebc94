"""The last of the disk, kept for the audit log: a file that is given up when nothing else is free.

Whatever filled the disk, the records of those who make room, and the clean-up itself, can then still be written.
History stops long before, see series/store.py.
"""

import asyncio
import os
import shutil
from contextlib import suppress
from pathlib import Path

from server_monitor.telemetry.logs import logger

LOOK_EVERY_S = 2.0
_ROOMY_SIZES = 8  # the reserve is only taken from a disk with so many times its size free
_LOW_PARTS = 8  # and given up when less than this part of it is

log = logger(__name__)


class Reserve:
    """One file in the data directory; none of a size of 0, and none on a disk that is never roomy."""

    def __init__(self, data_dir: Path, size_bytes: int) -> None:
        self._file = data_dir / "reserve"
        self._size_bytes = size_bytes

    async def run(self) -> None:
        while self._size_bytes:
            try:
                await asyncio.to_thread(self.look)
            except OSError as error:
                log.warning("disk_reserve_not_looked_at", cause=str(error.strerror))
            await asyncio.sleep(LOOK_EVERY_S)

    def look(self) -> None:
        """Give the file up when the disk is full, and take it again when there is room."""
        free = shutil.disk_usage(self._file.parent).free
        if not self._file.exists():
            if free >= _ROOMY_SIZES * self._size_bytes:
                self._take()
        elif free < self._size_bytes // _LOW_PARTS:
            self._file.unlink(missing_ok=True)
            log.error("disk_reserve_released", size_bytes=self._size_bytes, remedy="make room on the disk of DATA_DIR")

    def _take(self) -> None:
        half = self._file.with_suffix(".new")
        try:
            descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._size_bytes)
            finally:
                os.close(descriptor)
            half.rename(self._file)
        except OSError as error:
            log.warning("disk_reserve_not_taken", cause=str(error.strerror))
            with suppress(OSError):
                half.unlink(missing_ok=True)
