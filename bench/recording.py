"""Recordings: how fast output becomes durable, what it costs, and that memory stays; how fast words are found.

Each round is a process of its own that records a hundred megabytes of one kind as fast as the disk takes them, pausing
as a session does, then exports and searches what it has recorded. Many sessions with a little output each, as from
`top`, share the threads of one library.
"""

import asyncio
import multiprocessing
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import SecretStr

from bench.harness import Figure, Options, Result, at_least, at_most, column, in_turn, main
from server_monitor.db.ids import new_id
from server_monitor.terminal import casting, recording
from server_monitor.terminal.chain import Check, Opening
from server_monitor.terminal.keys import Keyring
from server_monitor.terminal.recording import Recorder
from server_monitor.terminal.text import Screen, draw

MB = 1_000_000
SEARCHED_BYTES = 10 * MB
BLOCK = 32_768  # what a read from SSH brings
MEMORY_GOAL_MIB = 16
SESSIONS = 200
FRAME_EVERY_S = 1.0
STORE = "/var/tmp"  # a disk: /tmp may be memory

_KEYRING = Keyring(SecretStr("a key of recordings for the bench"))


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of output: a function that makes a block of it."""

    name: str
    block: Callable[[random.Random], bytes]


def _log_lines(rng: random.Random) -> bytes:
    lines = []
    size = 0
    while size < BLOCK:
        line = b"%09d host sshd[%d]: Accepted publickey for user%d from 10.0.%d.%d port %d\r\n" % (
            rng.randrange(10**9),
            rng.randrange(30_000),
            rng.randrange(500),
            rng.randrange(256),
            rng.randrange(256),
            rng.randrange(60_000),
        )
        lines.append(line)
        size += len(line)
    return b"".join(lines)[:BLOCK]


def _top(rng: random.Random) -> bytes:
    """A frame of a full-screen program of 24 rows."""
    rows = (
        b"\x1b[%d;1H\x1b[7m%6d\x1b[m root  20  0 %8d %6d  S \x1b[1m%5.1f\x1b[m  0.3  0:%02d.%02d process-%d\x1b[K"
        % (
            row,
            rng.randrange(99_999),
            rng.randrange(10**7),
            rng.randrange(10**6),
            rng.random() * 100,
            rng.randrange(60),
            rng.randrange(100),
            row,
        )
        for row in range(1, 24)
    )
    return b"".join(rows)


def _noise(rng: random.Random) -> bytes:
    return rng.randbytes(BLOCK)


KINDS = (Kind("log lines", _log_lines), Kind("a full-screen program", _top), Kind("random bytes", _noise))


def measure(options: Options) -> Result:
    size_bytes = (5 if options.quick else 100) * MB
    sides = {kind.name: (lambda kind=kind: _alone(_bulk, KINDS.index(kind), size_bytes)) for kind in KINDS}
    sessions, seconds = (20, 3) if options.quick else (SESSIONS, 20)
    sides["many"] = lambda: _alone(_many, sessions, seconds)
    measured = in_turn(sides, options.rounds)
    figures = [figure for kind in KINDS for figure in _figures(kind, measured[kind.name])]
    many = f"{sessions} sessions with a frame of a full-screen program each second"
    figures += [
        Figure(f"CPU: {many}", "cores", column(measured["many"], "cores"), at_most(1.0)),
        Figure(f"memory: {many}", "KiB a session", column(measured["many"], "kib")),
        Figure(f"output not durable for at most: {many}", "s", column(measured["many"], "late_s"), at_most(2.0)),
    ]
    return Result("recording", "Recordings", figures, NOTES)


def _figures(kind: Kind, rounds: list[dict[str, float]]) -> list[Figure]:
    name = kind.name
    return [
        Figure(f"recorded: {name}", "MB/s", column(rounds, "record"), at_least(20)),
        Figure(f"CPU to record: {name}", "ms a MB", column(rounds, "cpu_ms")),
        Figure(f"file: {name}", "bytes a byte", column(rounds, "ratio")),
        Figure(f"memory grown: {name}", "MiB", column(rounds, "grown_mib"), at_most(MEMORY_GOAL_MIB)),
        Figure(f"verified: {name}", "MB/s", column(rounds, "verify")),
        Figure(f"exported as v3: {name}", "MB/s", column(rounds, "export")),
        Figure(f"searched: {name}", "MB/s", column(rounds, "search")),
    ]


def _alone(work: Callable[[int, int], dict[str, float]], *arguments: int) -> dict[str, float]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(work, *arguments).result()


def _bulk(kind: int, size_bytes: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="server-monitor-bench-", dir=STORE) as folder:
        return asyncio.run(_record_and_read(KINDS[kind], size_bytes, Path(folder)))


async def _record_and_read(kind: Kind, size_bytes: int, folder: Path) -> dict[str, float]:
    rng = random.Random(1)
    blocks = [kind.block(rng) for _ in range(64)]
    session_id = new_id()
    path = folder / f"{session_id}.rec"
    with ThreadPoolExecutor(4) as threads:
        await _record(folder / "warm.rec", new_id(), blocks, MB, threads)
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began_s, cpu_s = time.monotonic(), time.process_time()
        printed = await _record(path, session_id, blocks, size_bytes, threads)
        took_s, cpu_s = time.monotonic() - began_s, time.process_time() - cpu_s
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    megabytes = printed / MB
    return {
        "record": megabytes / took_s,
        "cpu_ms": cpu_s * 1000 / megabytes,
        "ratio": path.stat().st_size / printed,
        "grown_mib": grown_kib / 1024,
        "verify": megabytes / _seconds(lambda: _verify(path, session_id)),
        "export": megabytes / _seconds(lambda: _export(path, session_id)),
        "search": _searched(path, session_id),
    }


async def _record(
    path: Path, session_id: str, blocks: list[bytes], size_bytes: int, threads: ThreadPoolExecutor
) -> int:
    recorder = await _begun(path, session_id, threads)
    go_on = asyncio.Event()
    recorder.on_progress = lambda _: go_on.set()
    printed = 0
    while printed < size_bytes:
        for block in blocks:
            while recorder.is_behind:
                go_on.clear()
                await go_on.wait()
            recorder.output(block)
            printed += len(block)
            await asyncio.sleep(0)
    await recorder.end(0)
    return printed


async def _begun(path: Path, session_id: str, threads: ThreadPoolExecutor) -> Recorder:
    return await Recorder.begin(path, _KEYRING.make(session_id), _opening(session_id), threads)


def _opening(session_id: str) -> Opening:
    return Opening(session_id, datetime.now(UTC), 80, 24, server="web01", user="olga")


def _verify(path: Path, session_id: str) -> None:
    recording.check(path, _KEYRING, Check(session_id, (), is_over=True))


def _export(path: Path, session_id: str) -> None:
    events = recording.events(path, _KEYRING, session_id)
    for _ in casting.exported(casting.V3, _opening(session_id), events):
        pass


def _searched(path: Path, session_id: str) -> float:
    """MB a second, in the first of them."""
    screen = Screen(80, 24)
    read = 0
    began_s = time.monotonic()
    for event in recording.events(path, _KEYRING, session_id):
        draw(screen, event)
        for text, was in screen.changes():
            _ = "systemctl" in text.lower() and "systemctl" not in was.lower()
        read += len(event.data)
        if read >= SEARCHED_BYTES:
            break
    return read / MB / (time.monotonic() - began_s)


def _seconds(work: Callable[[], None]) -> float:
    began_s = time.monotonic()
    work()
    return time.monotonic() - began_s


def _many(sessions: int, seconds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="server-monitor-bench-", dir=STORE) as folder:
        return asyncio.run(_record_many(sessions, seconds, Path(folder)))


async def _record_many(sessions: int, seconds: int, folder: Path) -> dict[str, float]:
    rng = random.Random(1)
    frames = [_top(rng) for _ in range(64)]
    with ThreadPoolExecutor(4) as threads:
        before_kib = _rss_kib()
        ids = [new_id() for _ in range(sessions)]
        recorders = [await _begun(folder / f"{one}.rec", one, threads) for one in ids]
        late = _Late()
        for recorder in recorders:
            recorder.on_progress = late.watch(recorder)
        began_s, cpu_s = time.monotonic(), time.process_time()
        for _ in _steps(recorders, frames, seconds, late):
            await asyncio.sleep(FRAME_EVERY_S / sessions)
        cores = (time.process_time() - cpu_s) / (time.monotonic() - began_s)
        kib = (_rss_kib() - before_kib) / sessions
        for recorder in recorders:
            await recorder.end(0)
    return {"cores": cores, "kib": kib, "late_s": late.most_s}


class _Late:
    """How long the oldest output has waited for the disk, at the most."""

    def __init__(self) -> None:
        self.most_s = 0.0
        self._since_s: dict[Recorder, float] = {}

    def printed(self, recorder: Recorder) -> None:
        self._since_s.setdefault(recorder, time.monotonic())

    def watch(self, recorder: Recorder) -> Callable[[recording.Progress], None]:
        def durable(_: recording.Progress) -> None:
            since_s = self._since_s.pop(recorder, None)
            if since_s is not None:
                self.most_s = max(self.most_s, time.monotonic() - since_s)

        return durable


def _steps(recorders: list[Recorder], frames: list[bytes], seconds: int, late: _Late) -> Iterator[None]:
    """Each session gets a frame a second, one after the other."""
    for number in range(seconds):
        for recorder in recorders:
            recorder.output(frames[number % len(frames)])
            late.printed(recorder)
            yield


def _rss_kib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024


NOTES = (
    "The disk is that of /var/tmp, and every chunk that is counted was fsynced.",
    "Searching goes through a terminal of 80 by 24 that draws everything, for a word that is not there.",
    "Memory grown is that of the process's peak over its peak after the first megabyte.",
)


if __name__ == "__main__":
    raise SystemExit(main(measure))
