"""A full disk stops history and nothing else, and history goes on by itself."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from server_monitor.series.sample import Sample
from server_monitor.series.store import History
from server_monitor.series.tiers import Tiers
from tests.support.disk import mounted

START = 1_700_006_400.0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    with mounted(tmp_path / "disk", 2) as disk:
        yield disk


def grow(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)


def noise(count: int, start: float, seed: int) -> list[Sample]:
    """Samples that no compression makes small."""
    values = np.random.default_rng(seed).random((count, 40))
    return [
        Sample("one", start + at, {f"other{place}": float(value) for place, value in enumerate(row)})
        for at, row in enumerate(values)
    ]


async def test_a_full_disk_stops_history_until_there_is_room(small_disk: Path) -> None:
    history = await History.open(small_disk / "history.sqlite3", Tiers(), keep_free_bytes=0, clock=lambda: START)
    with capture_logs() as logs:
        for second in range(100):
            history.append(noise(300, START + second * 300, second))
            await history.tick()
        assert [entry["event"] for entry in logs] == ["history_stopped"], "one warning, however long it lasts"
        assert "Free space" in logs[0]["remedy"]
        assert history.stopped_because is not None
        assert history.counts.dropped > 0
        newest = history.latest("one")
        assert newest is not None
        assert newest.at == START + 100 * 300 - 1, "live values go on"
        stored = history.counts.stored
        assert (await history.read("one", "other3", START, START + 299, 300)).points != []

        grow(small_disk)
        await history.tick()
        assert history.stopped_because is None
        assert history.counts.stored > stored
        assert [entry["event"] for entry in logs] == ["history_stopped", "history_resumed"]
    await history.close()
    again = await History.open(small_disk / "history.sqlite3", Tiers(), keep_free_bytes=0, clock=lambda: START)
    kept = 0
    for at in range(0, 30_000, 6_000):
        kept += len((await again.read("one", "other3", START + at, START + at + 6_000, 10_000)).points)
    assert kept == again.counts.stored + history.counts.stored
    await again.close()


async def test_history_leaves_room_for_the_audit_log(tmp_path: Path) -> None:
    """History stops before the disk is full: what must be written has to find room."""
    history = await History.open(tmp_path / "history.sqlite3", Tiers(), keep_free_bytes=1 << 60, clock=lambda: START)
    with capture_logs() as logs:
        history.append(noise(3, START, 1))
        await history.tick()
        await history.tick()
    assert [entry["event"] for entry in logs] == ["history_stopped"]
    assert history.counts.stored == 0
    assert len((await history.read("one", "other3", START, START + 10)).points) == 3
    await history.close()
