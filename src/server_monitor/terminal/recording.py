"""Writes a recording while its session runs, and reads one.

What is shown is taken at once and never waits. It reaches the disk in chunks, each sealed and chained, one fsync behind
all that have gathered: after 64 KiB, or a second and a half after the first news. A disk that cannot keep up makes
`is_behind` true, and the caller stops reading from the shell; one that takes nothing for five seconds ends the session.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final, Self

from server_monitor.errors import NotFound, Unavailable
from server_monitor.ssh.envelope import TamperedError
from server_monitor.telemetry import metrics
from server_monitor.telemetry.logs import logger
from server_monitor.terminal import casting, chain
from server_monitor.terminal.casting import Stand
from server_monitor.terminal.chain import Check, NotARecording, Opening, Walk
from server_monitor.terminal.events import EXIT, MARKER, OUTPUT, RESIZE, Event, size_of
from server_monitor.terminal.keys import Keyring, RecordingKey, RecordingUnreadable

CHUNK_BYTES: Final = 64 * 1024  # of output
FLUSH_AFTER_S: Final = 1.5  # so that with the write itself it is two seconds at the most
BEHIND_BYTES: Final = 512 * 1024  # of output not yet durable, at which the shell is to be paused
OVERRUN_BYTES: Final = 16 * 1024 * 1024  # far more than a paused shell still has under way
GIVE_UP_S: Final = 5.0
RETRY_S: Final = 0.25
EVENT_BYTES: Final = 128  # what an event takes in memory beside its data

_log = logger(__name__)


class RecordingFailed(Unavailable):
    """The recording cannot be written. What `Progress` says is durable is all that there is."""

    code = "not_recorded"


@dataclass(frozen=True, slots=True)
class Progress:
    """What of a recording is durable: so many chunks with this head, the size of the file, and bytes of output.

    `until_us` is when the last durable event was; `is_behind` asks for the shell to be paused.
    """

    chunks: int
    head: bytes
    size_bytes: int
    output_bytes: int = 0
    until_us: int = 0
    is_behind: bool = False


@dataclass(frozen=True, slots=True)
class _Batch:
    """What goes to the disk in one write: sealed once, so that a second try writes the same bytes."""

    data: bytes
    after: Progress


class Recorder:
    """One recording being written. Its methods belong to the event loop; the disk is worked on in `threads`.

    `on_progress` is called after each write that has become durable, `on_failed` once, when no more will.
    """

    def __init__(  # noqa: PLR0917  # Only `begin` makes one.
        self,
        file: int,
        key: RecordingKey,
        opening: Opening,
        progress: Progress,
        threads: Executor | None,
        give_up_s: float,
    ) -> None:
        self._file = file
        self._key = key
        self._threads = threads
        self._give_up_s = give_up_s
        self._loop = asyncio.get_running_loop()
        self._durable = progress
        self._size = (opening.cols, opening.rows)
        self._stand = Stand(0, *self._size)
        self._pending: list[Event] = []
        self._pending_bytes = 0
        self._under_way_bytes = 0
        self._began_ns = time.monotonic_ns()
        self._timer: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._is_writing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._refusal: OSError | None = None  # what the disk said last, of the write under way
        self._failure: RecordingFailed | None = None
        self._is_over = False
        self._is_left = False
        self.on_progress: Callable[[Progress], None] = lambda _progress: None
        self.on_failed: Callable[[RecordingFailed], None] = lambda _failure: None

    @classmethod
    async def begin(
        cls,
        place: Path,
        key: RecordingKey,
        head: Opening,
        threads: Executor | None = None,
        *,
        give_up_s: float = GIVE_UP_S,
    ) -> Self:
        """A new file at `place`, its header durable. Raises RecordingFailed."""
        line = chain.header(head, key.wrapped, key.wrapped_by)
        making = asyncio.get_running_loop().run_in_executor(threads, _create, place, line)
        try:
            await asyncio.wait({making}, timeout=give_up_s)
        finally:
            if not making.done():
                making.add_done_callback(lambda made: _undo(place, made))
        if not making.done():
            raise RecordingFailed("The recording cannot be begun: the disk does not answer.")
        try:
            file = making.result()
        except OSError as error:
            raise RecordingFailed(f"The recording cannot be begun: {_why(error)}.") from error
        return cls(file, key, head, Progress(0, chain.parse(line).head, len(line)), threads, give_up_s)

    @property
    def progress(self) -> Progress:
        return replace(self._durable, is_behind=self.is_behind)

    @property
    def is_behind(self) -> bool:
        """Pause the shell: the disk does not keep up."""
        return self._pending_bytes + self._under_way_bytes >= BEHIND_BYTES

    @property
    def failure(self) -> RecordingFailed | None:
        return self._failure

    def output(self, data: bytes) -> None:
        """What the shell printed, and is being shown."""
        for at in range(0, len(data), CHUNK_BYTES):
            self._add(OUTPUT, data[at : at + CHUNK_BYTES])

    def resized(self, cols: int, rows: int) -> None:
        self._size = (cols, rows)
        self._add(RESIZE, b"%dx%d" % (cols, rows))

    def mark(self, label: str) -> None:
        """A note about what output does not say."""
        self._add(MARKER, label.encode(errors="replace"))

    async def end(self, exit_status: int | None) -> Progress:
        """Make all of it durable and close the file. Raises RecordingFailed when that cannot be done."""
        if exit_status is not None and not self._is_over:
            self._add(EXIT, b"%d" % exit_status)
        self._is_over = True
        self._flush()
        try:
            while self._failure is None and (self._pending or self._is_writing):
                self._idle.clear()
                await self._idle.wait()
        finally:
            self._stop_timers()
            self._is_left = True
            self._let_go()
        if self._failure is not None:
            raise self._failure
        return self.progress

    # --- taking ---

    def _add(self, code: str, data: bytes) -> None:
        if self._failure is not None or self._is_over:
            return
        self._pending.append(Event(self._now_us(), code, data))
        self._pending_bytes += len(data) + EVENT_BYTES
        if self._pending_bytes > OVERRUN_BYTES:
            self._fail("more was printed than the disk takes, and the shell was not paused")
        elif self._pending_bytes >= CHUNK_BYTES:
            self._flush()
        elif self._timer is None and not self._is_writing:
            self._timer = self._loop.call_later(FLUSH_AFTER_S, self._flush)

    def _now_us(self) -> int:
        return (time.monotonic_ns() - self._began_ns) // 1000

    # --- writing ---

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_writing or not self._pending or self._failure is not None:
            return
        self._is_writing = True
        taken, self._pending = self._pending, []
        self._under_way_bytes, self._pending_bytes = self._pending_bytes, 0
        stand, self._stand = self._stand, Stand(taken[-1].at_us, *self._size)
        self._refusal = None
        self._watch = self._loop.call_later(self._give_up_s, self._hang)
        deadline_s = time.monotonic() + self._give_up_s
        written = self._loop.run_in_executor(self._threads, self._write, stand, taken, deadline_s)
        written.add_done_callback(self._written)

    def _write(self, stand: Stand, events: list[Event], deadline_s: float) -> Progress:
        """Seal, write and fsync; in a thread. Raises OSError when the disk has not taken it by the deadline."""
        batch = self._sealed(stand, events)
        while True:
            try:
                _write_all(self._file, batch.data, self._durable.size_bytes)
                os.fsync(self._file)
            except OSError as error:
                self._refusal = error
                if time.monotonic() + RETRY_S >= deadline_s or self._failure is not None:
                    raise
                time.sleep(RETRY_S)  # A disk that was full may have room again.
            else:
                return batch.after

    def _sealed(self, stand: Stand, events: list[Event]) -> _Batch:
        now = self._durable
        frames = []
        for part_stand, part in _parts(stand, events):
            sealed = self._key.seal(casting.packed(part_stand, part), now.head)
            number = now.chunks + 1
            now = Progress(
                number,
                chain.next_head(now.head, number, sealed),
                now.size_bytes + chain.LENGTH_BYTES + len(sealed),
                now.output_bytes + _output_bytes(part),
                part[-1].at_us,
            )
            frames.append(chain.frame(sealed))
        return _Batch(b"".join(frames), now)

    def _written(self, done: "asyncio.Future[Progress]") -> None:
        self._is_writing = False
        self._under_way_bytes = 0
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        error = done.exception()
        if self._failure is not None:
            pass  # It came too late.
        elif error is None:
            self._durable = done.result()
            self.on_progress(self.progress)
            self._go_on()
        else:
            self._fail(_why(error) if isinstance(error, OSError) else "there is a mistake in the program")
        self._let_go()
        self._idle.set()
        if error is not None and not isinstance(error, OSError):
            raise error

    def _go_on(self) -> None:
        if not self._pending:
            return
        waited_s = (self._now_us() - self._pending[0].at_us) / 1_000_000
        if self._is_over or self._pending_bytes >= CHUNK_BYTES or waited_s >= FLUSH_AFTER_S:
            self._flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(FLUSH_AFTER_S - waited_s, self._flush)

    def _hang(self) -> None:
        """The disk has not taken it for too long. The thread may wait for it as long as it likes."""
        self._fail("the disk does not answer" if self._refusal is None else _why(self._refusal))

    def _fail(self, why: str) -> None:
        if self._failure is not None:
            return
        self._failure = RecordingFailed(f"The session cannot be recorded any more: {why}.")
        self._pending, self._pending_bytes = [], 0
        self._stop_timers()
        self._let_go()
        self._idle.set()
        metrics.recordings_failed.inc()
        _log.error("recording_failed", cause=why, chunks=self._durable.chunks)
        self.on_failed(self._failure)

    def _stop_timers(self) -> None:
        for timer in (self._timer, self._watch):
            if timer is not None:
                timer.cancel()
        self._timer = self._watch = None

    def _let_go(self) -> None:
        """Have the file closed, when nothing more will be written to it."""
        if (self._failure is None and not self._is_left) or self._is_writing or self._file < 0:
            return
        file, self._file = self._file, -1
        self._loop.run_in_executor(None, _close, file, self._durable.size_bytes)  # The writers may be gone by now.


def _parts(stand: Stand, events: list[Event]) -> Iterator[tuple[Stand, list[Event]]]:
    """The events in chunks of at most 64 KiB of output, each with where it begins."""
    part: list[Event] = []
    size = 0
    for event in events:
        if part and size + len(event.data) > CHUNK_BYTES:
            yield stand, part
            stand, part, size = _after(stand, part), [], 0
        part.append(event)
        size += len(event.data) + EVENT_BYTES
    yield stand, part


def _after(stand: Stand, part: list[Event]) -> Stand:
    sizes = [size for event in part if event.code == RESIZE and (size := size_of(event.data))]
    return Stand(part[-1].at_us, *(sizes[-1] if sizes else (stand.cols, stand.rows)))


def _create(place: Path, line: bytes) -> int:
    """A new private file with this first line, durable together with its name."""
    new = [directory for directory in (place.parent, place.parent.parent) if not directory.exists()]
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _write_all(file, line, 0)
        os.fsync(file)
        for directory in (place.parent, *(made.parent for made in new)):
            _sync_directory(directory)
    except BaseException:
        os.close(file)
        place.unlink(missing_ok=True)
        raise
    return file


def _undo(place: Path, made: "asyncio.Future[int]") -> None:
    """Take back a file that came too late."""
    if not made.cancelled() and made.exception() is None:
        os.close(made.result())
        place.unlink(missing_ok=True)


def _close(file: int, durable_bytes: int) -> None:
    """Close the file behind its last durable byte: nothing after it claims to be recorded."""
    try:
        with suppress(OSError):
            if os.fstat(file).st_size > durable_bytes:
                os.ftruncate(file, durable_bytes)
    finally:
        os.close(file)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(file: int, data: bytes, at: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, at)
        at += written
        rest = rest[written:]


def _why(error: OSError) -> str:
    return "the disk does not answer" if isinstance(error, TimeoutError) else str(error.strerror or error).lower()


# --- reading ---


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file of a recording. Raises NotFound when there is none, and Unavailable."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise NotFound("recording", path.stem) from None
    except OSError as error:
        raise Unavailable(f"The recording cannot be read: {error.strerror}.") from error
    with closing(file):
        yield file


@dataclass(frozen=True, slots=True)
class Part:
    """What one chunk holds; `head` is that of the chain up to it."""

    number: int
    head: bytes
    stand: Stand
    events: list[Event]


class Damaged(Exception):  # noqa: N818  # It is what a recording turns out to be.
    """From here on the file is not what was recorded. `chunk` is the first that is not."""

    def __init__(self, chunk: int) -> None:
        super().__init__(f"chunk {chunk} is not what was recorded")
        self.chunk = chunk


def opening_of(path: Path, keyring: Keyring, session_id: str) -> Opening:
    """What the header says, once it is sure that what follows can be opened. Raises as `read` does."""
    with opened(path) as file, _as_damage():
        return _begun(file, keyring, session_id)[0].header.opening


def read(path: Path, keyring: Keyring, session_id: str, first: int = 1) -> Iterator[Part]:
    """The chunks from this one on, up to the last whole one; one after the other, in constant memory.

    Raises NotFound, Unavailable when the file or its key cannot be opened, and Damaged where it is not what was
    recorded.
    """
    with opened(path) as file, _as_damage():
        walk, key = _begun(file, keyring, session_id)
        for link in walk:
            if link.number < first:
                continue
            try:
                yield Part(link.number, link.head, *casting.unpacked(key.open(link.sealed, link.before)))
            except TamperedError:
                raise Damaged(link.number) from None


def _begun(file: BinaryIO, keyring: Keyring, session_id: str) -> tuple[Walk, RecordingKey]:
    walk = Walk(file.read)
    if walk.header.opening.session_id != session_id:
        raise Damaged(0)
    return walk, keyring.open(session_id, walk.header.wrapped, walk.header.wrapped_by)


def events(path: Path, keyring: Keyring, session_id: str) -> Iterator[Event]:
    """Everything that was recorded, in order. Raises as `read` does."""
    for part in read(path, keyring, session_id):
        yield from part.events


@dataclass(frozen=True, slots=True)
class Checked:
    """A file as it was found. The numbers are those of its whole chunks."""

    check: Check
    chunks: int = 0
    head: bytes = b""
    size_bytes: int = 0
    torn_bytes: int = 0
    output_bytes: int = 0


def settle(path: Path, keyring: Keyring, session_id: str) -> Progress | None:
    """Cut off the chunk that a dead console was writing, and tell what is left; None when there is no recording.

    Raises Unavailable.
    """
    try:
        with opened(path) as file:
            walk = Walk(file.read)
            key = _key_of(walk, keyring, Check(session_id, (), is_over=True))
            output_bytes = until_us = 0
            for link in walk:
                try:
                    found = casting.unpacked(key.open(link.sealed, link.before))[1] if key is not None else []
                except TamperedError:  # which `check` will say
                    found = []
                output_bytes += _output_bytes(found)
                until_us = found[-1].at_us if found else until_us
        if walk.torn_bytes:
            _cut(path, walk.size_bytes)
    except (NotFound, NotARecording):
        return None
    return Progress(walk.chunks, walk.head, walk.size_bytes, output_bytes, until_us)


def _cut(path: Path, size_bytes: int) -> None:
    try:
        file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(file, size_bytes)
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        raise Unavailable(f"The recording cannot be closed: {error.strerror}.") from error


def _output_bytes(events: Iterable[Event]) -> int:
    return sum(len(event.data) for event in events if event.code == OUTPUT)


def check(path: Path, keyring: Keyring, against: Check) -> Checked:
    """Hold the file against what is known of it: every head, and with the key every chunk.

    Raises NotFound and Unavailable.
    """
    with opened(path) as file:
        try:
            walk = Walk(file.read)
        except NotARecording as error:
            against.find("not_a_recording", f"The file is no recording: {error}.", 0)
            return Checked(against)
        against.begins(walk.header)
        key = _key_of(walk, keyring, against)
        output_bytes = 0
        for link in walk:
            against.reaches(link.number, link.head)
            if key is not None:
                try:
                    _, found = casting.unpacked(key.open(link.sealed, link.before))
                    output_bytes += _output_bytes(found)
                except TamperedError:
                    against.find("does_not_open", f"Chunk {link.number} is not what was recorded.", link.number)
                    key = None  # What comes after it is sealed to it, and does not open either.
        against.ends(walk.chunks, walk.torn_bytes)
        return Checked(against, walk.chunks, walk.head, walk.size_bytes, walk.torn_bytes, output_bytes)


def _key_of(walk: Walk, keyring: Keyring, against: Check) -> RecordingKey | None:
    try:
        return keyring.open(against.session_id, walk.header.wrapped, walk.header.wrapped_by)
    except RecordingUnreadable:
        against.doubt("no_key", "The key that it was made under is not configured, so no chunk was opened.")
    except TamperedError:
        against.find("key_differs", "Its own key is not what was stored.", 0)
    return None


@contextmanager
def _as_damage() -> Iterator[None]:
    try:
        yield
    except (NotARecording, TamperedError):
        raise Damaged(0) from None
