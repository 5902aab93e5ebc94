"""The forecast is what the file becomes."""

from pathlib import Path

import numpy as np
import pytest

from server_monitor.series.sample import Sample
from server_monitor.series.store import History
from server_monitor.series.tiers import Tier, Tiers

START = 1_700_006_400.0
HOUR, DAY = 3600.0, 86_400.0


async def fill(history: History, start: float, hours: float) -> None:
    random = np.random.default_rng(int(start))
    for second in np.arange(start, start + hours * HOUR, 30.0).tolist():
        values = dict(zip(("cpu_percent", "load1", "fds"), (random.random(3) * 90).tolist(), strict=True))
        history.append([Sample(server, second, values) for server in ("one", "two")])
    await history.compact(start + hours * HOUR + 200)


async def test_the_file_becomes_as_large_as_foretold(tmp_path: Path) -> None:
    now = [START]
    tiers = Tiers(raw_hours=48, minute_days=4, hour_days=40)
    history = await History.open(tmp_path / "h.sqlite3", tiers, keep_free_bytes=0, clock=lambda: now[0])
    assert (await history.sizes()).forecast_bytes is None
    await fill(history, START, 30)
    now[0] = START + 30 * HOUR
    foretold = (await history.sizes()).forecast_bytes
    assert foretold is not None
    for day in range(2, 7):
        await fill(history, START + day * DAY, 24)
        now[0] = START + (day + 1) * DAY
        await history.compact(now[0] + 200)
        await history.prune(now[0])
    sizes = await history.sizes()
    # Of the hours, five weeks are still to come.
    missing = sizes.tiers[Tier.HOUR].data_bytes * 40 / 7
    assert sizes.file_bytes + missing == pytest.approx(foretold, rel=0.35)
    await history.close()


async def test_a_day_that_was_half_watched_is_not_taken_for_a_quiet_one(tmp_path: Path) -> None:
    now = [START + 18 * HOUR]
    history = await History.open(tmp_path / "h.sqlite3", Tiers(), keep_free_bytes=0, clock=lambda: now[0])
    await fill(history, START + 12 * HOUR, 6)
    early = (await history.sizes()).forecast_bytes
    await fill(history, START + 18 * HOUR, 18)
    now[0] = START + 36 * HOUR
    later = (await history.sizes()).forecast_bytes
    assert early is not None
    assert later is not None
    assert early == pytest.approx(later, rel=0.6)
    await history.close()
