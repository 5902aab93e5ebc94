"""What tasks print: taken as it comes, given to whoever watches in order, and kept.

The first bytes of each stream stay in memory and go into the database when the task ends. A stream that grows beyond
them is a file from its first byte on, `DATA_DIR/tasks/<xx>/<task id>.out` or `.err`. A file grows up to a limit; of
what comes after that only the last bytes are kept. Of output that is not to be kept the last bytes are held in memory
while the task runs: whoever watches and keeps up sees it all. Nothing here ever waits for a reader, and so there may be
a gap between the beginning of a stream and its end. Whoever watches is told where it goes on behind it: an offset into
a stream that still grows counts every byte that was printed.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from server_monitor.settings import make_private_directory
from server_monitor.tasks.frames import Piece
from server_monitor.tasks.run import Output
from server_monitor.tasks.secrets import Mask
from server_monitor.telemetry.logs import logger

log = logger(__name__)

TAIL_BYTES: Final = 1_048_576  # kept of the end of a stream that has outgrown its file
RECENT_BYTES: Final = 262_144  # held in memory of a stream that is not kept, for whoever watches it
RECENT_TOTAL_BYTES: Final = 67_108_864  # of all such streams together
READ_BYTES: Final = 262_144  # read from a file at once
STREAMS: Final = ("stdout", "stderr")
_SUFFIXES: Final = {"stdout": "out", "stderr": "err"}


@dataclass(frozen=True, slots=True)
class Sizes:
    """`head_bytes` of a stream are kept in the database, `file_bytes` at most in its file."""

    head_bytes: int = 65_536
    file_bytes: int = 1_073_741_824


class Recent:
    """The memory for the newest bytes of streams that are not kept, shared evenly by those that print a lot.

    A thousand tasks on a thousand hosts hold no more of it than a few do.
    """

    def __init__(self, total_bytes: int = RECENT_TOTAL_BYTES) -> None:
        self._total_bytes = total_bytes
        self._spools: set[Spool] = set()

    @property
    def share_bytes(self) -> int:
        return min(RECENT_BYTES, self._total_bytes // max(1, len(self._spools)))

    def join(self, spool: "Spool") -> None:
        """Give the stream its share; the others give it up at once, for some of them may print nothing any more."""
        if spool in self._spools:
            return
        self._spools.add(spool)
        for one in self._spools:
            one.shrink(self.share_bytes)

    def leave(self, spool: "Spool") -> None:
        self._spools.discard(spool)


class Spool:
    """One stream of one task: append to it, read any part of it that is not in the gap."""

    def __init__(self, where: Callable[[], Path] | None, sizes: Sizes, recent: Recent | None = None) -> None:
        """`where` tells its file, which most streams are too short to need.

        Without it nothing is written: of what is beyond the head the newest can be read for a while.
        """
        self._recent = recent or Recent()
        self.head = bytearray()
        self.total_bytes = 0
        self.truncated = False
        self.digest = hashlib.sha256()
        self._where = where
        self._sizes = sizes
        self._most_in_file = sizes.file_bytes - TAIL_BYTES
        self._file: int | None = None
        self._in_file = 0
        self._tail = bytearray()  # the newest bytes, however far behind the head or the end of the file they are
        self._gap_at = 0  # where bytes are gone, and how many
        self._gap_bytes = 0

    @property
    def has_file(self) -> bool:
        return self._file is not None

    @property
    def stored_bytes(self) -> int:
        """How much of it is kept: all of it, unless it was truncated."""
        if self._is_in_memory:
            return len(self.head)
        return self._in_file + len(self._tail)

    @property
    def recent_bytes(self) -> int:
        """How much is held in memory beyond the head."""
        return len(self._tail)

    @property
    def _is_in_memory(self) -> bool:
        return self._file is None and self._in_file == 0

    def add(self, data: bytes) -> None:
        self.digest.update(data)
        self.total_bytes += len(data)
        room = self._sizes.head_bytes - len(self.head)
        if len(data) <= room:
            self.head += data
            if self._file is not None:
                self._write(data)
            return
        if self._is_in_memory:
            self._open()
        self.head += data[:room]
        self._write(data[room:] if self._file is None else data)

    def readable_from(self, offset: int) -> int:
        """`offset`, or where reading goes on behind what is gone by now."""
        return max(offset, self._gap_at + self._gap_bytes) if self._gap_bytes and offset >= self._gap_at else offset

    def read(self, offset: int, most_bytes: int) -> bytes:
        """Up to so many bytes from `offset` on, which is `readable_from` now; nothing at the end and before the gap."""
        if self._gap_bytes and offset < self._gap_at:
            most_bytes = min(most_bytes, self._gap_at - offset)
        elif self._gap_bytes:
            offset -= self._gap_bytes
        if self._is_in_memory and offset < len(self.head):
            return bytes(self.head[offset : offset + most_bytes])
        if offset < self._in_file:
            assert self._file is not None
            return os.pread(self._file, min(most_bytes, self._in_file - offset), offset)
        offset -= self._before_tail
        return bytes(self._tail[offset : offset + most_bytes])

    @property
    def _before_tail(self) -> int:
        return len(self.head) if self._is_in_memory else self._in_file

    def resume(self, *, is_masked: bool = False) -> None:
        """Go on with the file that a console left behind which has died since. Blocks.

        What is masked at the end of the file may be the beginning of a secret whose rest is still to come: from there
        on it has to come again, because a mask that begins in the middle of a secret does not know it.
        """
        if self._where is None or not self._where().exists():
            return
        try:
            self._file = os.open(self._where(), os.O_RDWR | os.O_CLOEXEC)
            if is_masked:
                os.ftruncate(self._file, self._before_mask(self._file))
            while data := os.pread(self._file, READ_BYTES, self._in_file):
                self.head += data[: self._sizes.head_bytes - len(self.head)]
                self.digest.update(data)
                self._in_file += len(data)
            os.lseek(self._file, 0, os.SEEK_END)
        except OSError as error:
            self._say_not_kept(error)
            self._most_in_file = self._in_file
        self.total_bytes = self._in_file

    @staticmethod
    def _before_mask(file: int) -> int:
        """Where the asterisks begin at its end."""
        end = os.fstat(file).st_size
        while end > 0:
            start = max(0, end - READ_BYTES)
            left = os.pread(file, end - start, start).rstrip(b"*")
            end = start + len(left)
            if left:
                break
        return end

    def settle(self) -> None:
        """Make it durable; it can still be read. Blocks."""
        if self._file is None:
            return
        tail = bytes(self._tail)
        self._tail.clear()
        if self._put(tail) < len(tail):
            self.truncated = True
        try:
            os.fsync(self._file)
        except OSError as error:
            self._say_not_kept(error)
            self.truncated = True

    def close(self) -> None:
        self._recent.leave(self)
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> None:
        if self._where is None:
            return
        try:
            make_private_directory(self._where().parent)
            self._file = os.open(self._where(), os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._say_not_kept(error)
            self._where = None
            return
        self._write(bytes(self.head))

    def _write(self, data: bytes) -> None:
        """Into the file while there is room, and what no longer fits to the end that is kept in memory."""
        if self._file is None:
            self.truncated = True
            self._recent.join(self)
            self._keep_newest(data, self._recent.share_bytes)
            return
        room = self._most_in_file - self._in_file
        written = self._put(data[:room]) if room > 0 else 0
        if written < len(data):
            self._keep_newest(data[written:], TAIL_BYTES)

    def _keep_newest(self, data: bytes, most_bytes: int) -> None:
        self._tail += data
        self.shrink(most_bytes)

    def shrink(self, most_bytes: int) -> None:
        """Hold no more than so many of the newest bytes."""
        excess = len(self._tail) - most_bytes
        if excess > 0:
            self.truncated = True
            self._gap_at = self._gap_at if self._gap_bytes else self._before_tail
            self._gap_bytes += excess
            del self._tail[:excess]

    def _put(self, data: bytes) -> int:
        """Append to the file; returns how much of it the disk took. A full disk takes a part first and then nothing.

        After that the file grows no more: there would be a gap in it.
        """
        assert self._file is not None
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:] if written else data)
        except OSError as error:
            self._say_not_kept(error)
            self._most_in_file = 0
        self._in_file += written
        return written

    def _say_not_kept(self, error: OSError) -> None:
        """The disk takes no more. The command goes on; what it prints is lost and the task says so."""
        assert self._where is not None
        log.error("task_output_not_kept", path=str(self._where()), cause=error.strerror)


class LiveOutput:
    """Both streams of a task that runs now."""

    def __init__(self, stdout: Spool, stderr: Spool, *, is_stored: bool, secrets: Sequence[bytes] = ()) -> None:
        self._masks = {name: Mask(secrets) for name in STREAMS} if secrets else {}
        self.streams = {"stdout": stdout, "stderr": stderr}
        self.is_over = False
        self._readers = 0
        self._is_stored = is_stored
        self._watchers: set[asyncio.Future[None]] = set()

    def add_at(self, stream: str, at: int, data: bytes) -> int:
        """Take bytes that begin at `at` in their stream, unless they are known already. Returns where they end.

        Two channels may carry the same bytes when a follower joins at the moment the command ends.
        """
        new = data[max(0, self.taken_bytes(stream) - at) :]
        if new:
            self._add(stream, self._masks[stream].feed(new) if self._masks else new)
        return at + len(data)

    def taken_bytes(self, stream: str) -> int:
        """How much of a stream has come, what is held back because it may be a secret included."""
        held = len(self._masks[stream].held) if self._masks else 0
        return self.streams[stream].total_bytes + held

    def _add(self, stream: str, data: bytes) -> None:
        if data:
            self.streams[stream].add(data)
            self._wake()

    async def read_on(self, stream: str, offset: int) -> AsyncGenerator[Piece, None]:
        """The stream from `offset` on, as it grows, until the task is over."""
        spool = self.streams[stream]
        self._readers += 1
        try:
            while True:
                while data := spool.read(offset := spool.readable_from(offset), READ_BYTES):
                    yield Piece(offset, data)
                    offset += len(data)
                if self.is_over:
                    return
                await self._news()
        finally:
            self._readers -= 1
            self._close_when_unused()

    async def read_now(self, stream: str, offset: int) -> AsyncGenerator[Piece, None]:
        """What there is of the stream from `offset` on, in pieces: it may be more than fits into memory."""
        spool = self.streams[stream]
        self._readers += 1
        try:
            end = spool.total_bytes
            while data := spool.read(offset := spool.readable_from(offset), min(READ_BYTES, max(0, end - offset))):
                yield Piece(offset, data)
                offset += len(data)
        finally:
            self._readers -= 1
            self._close_when_unused()

    async def end(self, exit_code: int | None) -> Output | None:
        """Make it durable, and tell what goes into the database; None when nothing is to be kept."""
        for name, mask in self._masks.items():
            self._add(name, mask.rest())
        for spool in self.streams.values():
            if spool.has_file:
                await asyncio.to_thread(spool.settle)
        self.is_over = True
        self._wake()
        if not self._is_stored:
            return None
        stdout, stderr = self.streams["stdout"], self.streams["stderr"]
        both = hashlib.sha256(f"{exit_code}".encode() + stdout.digest.digest() + stderr.digest.digest())
        return Output(
            stdout=bytes(stdout.head),
            stderr=bytes(stderr.head),
            stdout_bytes=stdout.stored_bytes,
            stderr_bytes=stderr.stored_bytes,
            truncated=stdout.truncated or stderr.truncated,
            digest=both.digest(),
        )

    def abandon(self) -> None:
        """Nobody will add to it here any more; what is in its files stays for whoever goes on with it."""
        self.is_over = True
        self._wake()
        self._close_when_unused()

    def _close_when_unused(self) -> None:
        if self.is_over and self._readers == 0:
            for spool in self.streams.values():
                spool.close()

    async def _news(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watchers.add(waiter)
        try:
            await waiter
        finally:
            self._watchers.discard(waiter)

    def _wake(self) -> None:
        for watcher in self._watchers:
            if not watcher.done():
                watcher.set_result(None)


class Outputs:
    """The output of all tasks: that of the running ones here, that of the others in files and rows."""

    def __init__(self, directory: Path, sizes: Sizes) -> None:
        self._directory = directory
        self._sizes = sizes
        self._recent = Recent()
        self._live: dict[str, LiveOutput] = {}

    async def begin(self, task_id: str, *, is_stored: bool, secrets: Sequence[bytes] = ()) -> LiveOutput:
        """Begin with a task's output, in which the secrets are masked."""
        spools = (self._spool(task_id, stream, is_stored) for stream in STREAMS)
        made = LiveOutput(*spools, is_stored=is_stored, secrets=secrets)
        self._live[task_id] = made
        return made

    async def resume(self, task_id: str, *, is_stored: bool, secrets: Sequence[bytes] = ()) -> LiveOutput:
        """Go on with the output of a task whose console has died."""
        made = await self.begin(task_id, is_stored=is_stored, secrets=secrets)
        for spool in made.streams.values():
            await asyncio.to_thread(spool.resume, is_masked=bool(secrets))
        return made

    def live(self, task_id: str) -> LiveOutput | None:
        return self._live.get(task_id)

    def forget(self, task_id: str) -> None:
        """The task is over and its output is stored, or another console goes on with it."""
        gone = self._live.pop(task_id, None)
        if gone is not None:
            gone.abandon()

    def path(self, task_id: str, stream: str) -> Path:
        """Where the whole stream is, if it was larger than what the database holds."""
        return self._directory / task_id[-2:] / f"{task_id}.{_SUFFIXES[stream]}"

    def delete(self, task_ids: Collection[str]) -> None:
        """Remove the files of these tasks. Blocks."""
        for task_id in task_ids:
            for stream in STREAMS:
                self.path(task_id, stream).unlink(missing_ok=True)

    def _spool(self, task_id: str, stream: str, is_stored: bool) -> Spool:
        return Spool(partial(self.path, task_id, stream) if is_stored else None, self._sizes, self._recent)
