"""kill -9 at any moment: what was flushed is there, and the file is whole."""

import asyncio
import random
import signal
import sqlite3
import sys
from pathlib import Path

from server_monitor.series.store import FLUSH_INTERVAL_S, History
from server_monitor.series.tiers import Tiers
from tests.support.history_writer import START, STEP_S
from tests.support.patience import PATIENCE_S

KILLS = 12


async def write_and_kill(path: Path, first: int, lines: int) -> int:
    """Let the writer say `lines` lines, kill it, and return the last sequence that it had flushed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.history_writer", str(path), str(first)), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    said = b""
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(lines):
            said += await process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        said += await process.stdout.read()
        await process.wait()
    flushed = [int(line.split()[1]) for line in said.splitlines() if line.startswith(b"flushed ")]
    return max(flushed, default=first - 1)


async def test_a_killed_console_keeps_every_flushed_sample(tmp_path: Path) -> None:
    """Killed again and again at random moments, in flushes, divisions, merges and prunings."""
    path, chance, flushed = tmp_path / "history.sqlite3", random.Random(7), -1
    for _ in range(KILLS):
        flushed = max(flushed, await write_and_kill(path, flushed + 1, chance.randint(1, 150)))
        with sqlite3.connect(path) as conn:
            assert conn.execute("pragma integrity_check").fetchall() == [("ok",)]
        conn.close()
        history = await History.open(path, Tiers(), keep_free_bytes=0, clock=lambda: START)
        try:
            for server in ("server0", "server4"):
                latest = history.latest(server)
                assert latest is not None
                assert latest.values["threads"] >= flushed
            end_at = START + (flushed + 1) * STEP_S
            kept: list[float] = []
            for at in range(int(START), int(end_at), 36_000):
                found = await history.read("server4", "threads", at, min(at + 36_000, end_at), 10_000)
                kept.extend(point[2] for point in found.points)
            assert kept == [float(sequence) for sequence in range(flushed + 1)]
            assert history.counts.damaged == 0
        finally:
            await history.close()
    assert flushed > KILLS


def test_flushing_is_far_more_often_than_the_promise() -> None:
    """At most five seconds are lost; the rest is for a disk that takes its time."""
    assert FLUSH_INTERVAL_S <= 2.5
