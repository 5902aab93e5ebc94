"""The shell parser: `shfmt` as a child process on a short leash.

Each parse is a process of its own that gets the text on standard input and writes a tree as JSON. It is started with
a list of arguments, its own environment and no shell. Its limits are set from outside after it was started and before
it is sent the first byte: a function between fork and exec would copy the whole console's page tables each time.
"""

import os
import re
import select
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec

from server_monitor.tasks.policy import tree
from server_monitor.tasks.policy.parsing import Dialect, NotParsed, ParserFailed, SyntaxWrong, TooComplex

if sys.platform == "linux":
    from resource import RLIMIT_AS, RLIMIT_CPU, RLIMIT_DATA, prlimit

MIB = 1024**2
CPU_S = 2
# The Go runtime reserves about 1.2 GiB of address space before it reads a byte and dies when it may not. What it may
# then use is bounded by RLIMIT_DATA; the bound of the address space leaves 1 GiB above the reservation.
DATA_BYTES = 1024 * MIB
ADDRESS_SPACE_BYTES = 2304 * MIB
OUTPUT_BYTES = 2 * MIB
COMPLAINT_BYTES = 4096
DEADLINE_S = 3.0  # a parse takes milliseconds; a machine that is very busy takes long to start a process
# Nothing of ours. A process this short has no need to collect what it no longer uses, but at a bound that none comes
# near, nor of many threads: that takes a quarter off the time of a large command.
ENVIRONMENT = {"GOMAXPROCS": "2", "GOGC": "off", "GOMEMLIMIT": "256MiB"}
AT_ONCE = 2
# From the first, below the second: up to 3.13 a tree has other operators, and no later one has been tried.
OLDEST, BEYOND = (3, 14, 1), (3, 15, 0)

_POSITION = re.compile(rb"^(\d+):(\d+): (.*)$", re.MULTILINE)
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


def found_program() -> str | None:
    """Path of the parser: the one installed with this program, else the first on the PATH."""
    beside = Path(sys.executable).parent / "shfmt"
    return str(beside) if beside.is_file() else shutil.which("shfmt")


class ShellParser:
    """Parses shell text. Safe to use from several threads; never more than two processes run at once."""

    def __init__(self, program: str | None = None, *, deadline_s: float = DEADLINE_S) -> None:
        self._program = program or found_program()
        self._deadline_s = deadline_s
        self._slots = threading.BoundedSemaphore(AT_ONCE)
        self._version: str | None = None
        self._checked: tuple[int, int] | None = None

    def version(self) -> str:
        """The parser's version, such as `3.14.1`. Raises ParserFailed when it is absent or not one that was tested."""
        identity = self._identity()
        if self._version is None or identity != self._checked:
            self._version, self._checked = self._asked_version(), identity
        return self._version

    def parse(self, text: str, dialect: Dialect = "bash") -> tree.File:
        """The tree of `text`. Raises one of NotParsed's kinds, within the deadline."""
        self.version()
        written = self._run(["--language-dialect", dialect, "--to-json"], text.encode())
        try:
            return tree.read(written)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ParserFailed(f"The shell parser wrote a tree that the rules do not know: {error}") from None

    def _identity(self) -> tuple[int, int]:
        """Tells one installed parser from another, so that an update in place is checked again."""
        if self._program is None:
            raise ParserFailed("The shell parser shfmt is not installed.")
        try:
            found = os.stat(self._program)
        except OSError as error:
            raise ParserFailed(f"The shell parser cannot be used: {error.strerror}.") from None
        return found.st_ino, found.st_mtime_ns

    def _asked_version(self) -> str:
        said = self._run(["--version"], b"").decode(errors="replace").strip()
        match = _VERSION.fullmatch(said)
        if match is None or not OLDEST <= tuple(int(part) for part in match.groups()) < BEYOND:
            shown = said[:40] if said.isprintable() else "unreadable"
            raise ParserFailed(f"The shell parser's version is {shown!r}, which was not tested with these rules.")
        return ".".join(match.groups())

    def _run(self, arguments: list[str], text: bytes) -> bytes:
        deadline = time.monotonic() + self._deadline_s
        if not self._slots.acquire(timeout=self._deadline_s):
            raise ParserFailed("The shell parser was busy for too long.")
        try:
            return self._converse([self._program or "", *arguments], text, deadline)
        finally:
            self._slots.release()

    def _converse(self, argv: list[str], text: bytes, deadline: float) -> bytes:
        try:
            child = subprocess.Popen(  # noqa: S603  # A fixed program, fixed options, and the text on standard input.
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, bufsize=0
            )
        except OSError as error:
            raise ParserFailed(f"The shell parser cannot be started: {error.strerror}.") from None
        try:
            _limit(child.pid)
            _send(child, text)
            written, complaint = _heard(child, deadline)
            status = _status(child, deadline)
        except subprocess.TimeoutExpired:
            raise ParserFailed("The shell parser did not answer in time.") from None
        finally:
            _end(child)
        if status == 0:
            return written
        raise _judged(status, complaint, text)


def _limit(pid: int) -> None:
    if sys.platform != "linux":
        return
    try:
        for what, most in (
            (RLIMIT_CPU, CPU_S),
            (RLIMIT_DATA, DATA_BYTES),
            (RLIMIT_AS, ADDRESS_SPACE_BYTES),
        ):
            prlimit(pid, what, (most, most))
    except ProcessLookupError:
        pass  # It has already ended, which what it wrote will show.


def _send(child: subprocess.Popen[bytes], text: bytes) -> None:
    """Send everything; a pipe holds 64 KiB and no text is longer, so this never waits."""
    assert child.stdin is not None
    try:
        with child.stdin:
            child.stdin.write(text)
    except BrokenPipeError:
        pass  # It ended without reading, which its status will show.


def _heard(child: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bytes]:
    """What the child wrote until it closed both outputs. Raises TooComplex beyond the cap, and at the deadline."""
    assert child.stdout is not None
    assert child.stderr is not None
    output, complaint = child.stdout.fileno(), child.stderr.fileno()
    parts: dict[int, list[bytes]] = {output: [], complaint: []}
    left = {output: OUTPUT_BYTES, complaint: COMPLAINT_BYTES}
    poll = select.poll()
    for descriptor in left:
        poll.register(descriptor, select.POLLIN)
    open_ends = set(left)
    while open_ends:
        ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not ready:
            raise ParserFailed("The shell parser did not answer in time.")
        for descriptor, _ in ready:
            chunk = os.read(descriptor, MIB)
            if not chunk:
                poll.unregister(descriptor)
                open_ends.discard(descriptor)
                continue
            left[descriptor] -= len(chunk)
            if left[output] < 0:
                raise TooComplex("The command's tree is larger than what can be judged.")
            if left[descriptor] >= 0:
                parts[descriptor].append(chunk)
    return b"".join(parts[output]), b"".join(parts[complaint])


def _status(child: subprocess.Popen[bytes], deadline: float) -> int:
    """How the child ended. Raises TimeoutExpired at the deadline."""
    if sys.platform == "linux":
        _until_ended(child.pid, deadline)
    return child.wait(max(0.0, deadline - time.monotonic()))


def _until_ended(pid: int, deadline: float) -> None:
    """Wait for the end itself. `Popen.wait` with a deadline looks, sleeps and looks again, a millisecond long."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return  # A kernel without it, or no descriptor is left: the slower way works too.
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
    finally:
        os.close(descriptor)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Make sure that the child has ended and nothing of it is left."""
    if child.poll() is None:
        child.kill()
        child.wait()
    for stream in (child.stdout, child.stderr):
        if stream is not None:
            stream.close()


def _judged(status: int, complaint: bytes, text: bytes) -> NotParsed:
    match = _POSITION.search(complaint)
    if status != 1 or match is None:
        return ParserFailed(f"The shell parser failed with status {status}.")
    line, column, message = int(match[1]), int(match[2]), match[3].decode(errors="replace")
    lines = text.split(b"\n")
    offset = sum(len(earlier) + 1 for earlier in lines[: line - 1]) + column - 1
    return SyntaxWrong(message, min(offset, len(text)))
