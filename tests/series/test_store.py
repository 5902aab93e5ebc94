"""The history as its callers know it: samples in, charts out."""

import asyncio
import math
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from server_monitor.errors import Unavailable
from server_monitor.series.sample import Sample
from server_monitor.series.store import History
from server_monitor.series.tiers import Tier, Tiers

HOUR = 3600.0
DAY = 24 * HOUR
START = 1_700_006_400.0  # a full hour, and the start of a day
Point = tuple[float, float, float, float]


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def opened(path: Path, tiers: Tiers | None = None, now: float = START) -> AsyncIterator[History]:
    history = await History.open(path, tiers or Tiers(), keep_free_bytes=0, clock=Clock(now))
    try:
        yield history
    finally:
        await history.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite3"


@pytest.fixture
async def history(path: Path) -> AsyncIterator[History]:
    async with opened(path) as history:
        yield history


def sample(at: float, server: str = "one", **values: float) -> Sample:
    return Sample(server, at, values or {"cpu_percent": 12.5, "load1": 0.25})


def walk(start: float, seconds: int, every: float, seed: int = 1) -> list[Sample]:
    """A server whose values wander, at irregular instants, with a series that is only there now and then."""
    random = np.random.default_rng(seed)
    at = start
    found = []
    cpu, used = 30.0, 4e9
    while at < start + seconds:
        cpu = min(max(cpu + random.normal(0, 5), 0), 100)
        used += 4096 * float(random.integers(-500, 500))
        values = {"cpu_percent": round(cpu, 2), "memory_used_bytes": used}
        if random.random() < 0.3:
            values["device_wait_ms:sda"] = round(float(random.gamma(1, 4)), 2)
        found.append(Sample("one", round(at, 3), values))
        at += every + float(random.uniform(0, every / 10))
    return found


def buckets(samples: list[Sample], series: str, step: int, start: float, end: float) -> dict[float, list[float]]:
    """The values of each step, computed without any of our code."""
    found: dict[float, list[float]] = {}
    for one in samples:
        if series in one.values and start <= one.at < end:
            found.setdefault(one.at // step * step, []).append(one.values[series])
    return found


def check(points: list[Point], expected: Mapping[float, list[float]], *, within: float) -> None:
    assert [point[0] for point in points] == sorted(expected)
    for at, low, mean, high in points:
        values = expected[at]
        assert low == pytest.approx(min(values), abs=within)
        assert mean == pytest.approx(float(np.mean(values)), abs=within)
        assert high == pytest.approx(max(values), abs=within)


async def test_a_sample_is_there_at_once(history: History) -> None:
    history.append([sample(START, cpu_percent=12.5)])
    assert history.latest("one") == sample(START, cpu_percent=12.5)
    assert (await history.read("one", "cpu_percent", START - 60, START + 60)).points == [(START, 12.5, 12.5, 12.5)]
    assert await history.series("one") == ["cpu_percent"]


STATES: dict[str, Callable[[History], object]] = {
    "pending": lambda history: asyncio.sleep(0),
    "in the head": lambda history: history.flush(),
    "in loose blocks": lambda history: history.divide(),
    "settled in hours": lambda history: history.compact(START + 3 * HOUR),
    "settled in days": lambda history: history.compact(START + 3 * DAY),
    "settled in months": lambda history: history.compact(START + 100 * DAY),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("points", "step"), [(8000, 1), (150, 60), (3, 3600)])
async def test_every_tier_tells_the_same_wherever_the_samples_are(
    path: Path, state: str, points: int, step: int
) -> None:
    """Samples, minutes and hours agree with a recomputation at each stage of a sample's life."""
    samples = walk(START, 2 * 3600, 7.3)
    async with opened(path, now=START + 2 * HOUR) as history:
        history.append(samples[: len(samples) // 2])
        await history.flush()
        history.append(samples[len(samples) // 2 :])
        if state != "pending":
            await history.flush()
        await STATES[state](history)
        for series in ("cpu_percent", "memory_used_bytes", "device_wait_ms:sda"):
            found = await history.read("one", series, START, START + 2 * HOUR, points)
            assert found.step_s == step
            check(found.points, buckets(samples, series, step, START, START + 2 * HOUR), within=0.051)


async def test_a_chart_that_crosses_every_stage_has_no_seam(path: Path) -> None:
    samples = walk(START, 6 * 3600, 10)
    async with opened(path, now=START + 6 * HOUR) as history:
        history.append(samples[:1000])
        await history.compact(START + 3 * HOUR)
        history.append(samples[1000:1500])
        await history.divide()
        history.append(samples[1500:1900])
        await history.flush()
        history.append(samples[1900:])
        found = await history.read("one", "cpu_percent", START, START + 6 * HOUR, 400)
        assert found.step_s == 60
        check(found.points, buckets(samples, "cpu_percent", 60, START, START + 6 * HOUR), within=0.0051)


async def test_everything_is_there_after_a_restart(path: Path) -> None:
    samples = walk(START, 3600, 10)
    async with opened(path) as history:
        history.append(samples)
        history.append([sample(START, "two")])
    async with opened(path, now=START + HOUR) as history:
        assert history.latest("one") == samples[-1]
        assert history.latest_all().keys() == {"one", "two"}
        found = await history.read("one", "cpu_percent", START, START + HOUR, 4000)
        check(found.points, buckets(samples, "cpu_percent", 1, START, START + HOUR), within=1e-9)


async def test_samples_out_of_order_and_repeated_are_kept_once(history: History) -> None:
    samples = walk(START, 600, 10)
    shuffled = [samples[index] for index in np.random.default_rng(5).permutation(len(samples))]
    history.append(shuffled[:30])
    await history.divide()
    history.append(shuffled[30:])
    history.append(shuffled[:40])
    await history.divide()
    for points, step in ((600, 1), (10, 60)):
        for now in (START, START + 10 * HOUR):
            await history.compact(now)
            found = await history.read("one", "cpu_percent", START, START + 600, points)
            check(found.points, buckets(samples, "cpu_percent", step, START, START + 600), within=0.0051)


async def test_a_sample_that_comes_days_late_joins_its_hour(history: History) -> None:
    samples = walk(START, 7200, 10)
    history.append(samples[::2])
    await history.compact(START + 3 * DAY)
    history.append(samples[1::2])
    await history.compact(START + 3 * DAY)
    for points, step in ((7200, 1), (120, 60), (2, 3600)):
        found = await history.read("one", "cpu_percent", START, START + 2 * HOUR, points)
        check(found.points, buckets(samples, "cpu_percent", step, START, START + 2 * HOUR), within=0.011)


async def test_a_clock_set_back_loses_no_sample(history: History) -> None:
    first = walk(START, 600, 10, seed=1)
    again = [Sample("one", one.at + 3, one.values) for one in walk(START, 600, 10, seed=2)]
    history.append(first)
    history.append(again)
    assert history.latest("one") == again[-1]
    await history.divide()
    found = await history.read("one", "cpu_percent", START, START + 700, 10)
    check(found.points, buckets(first + again, "cpu_percent", 120, START, START + 700), within=0.0051)


async def test_a_late_sample_is_not_the_newest(history: History) -> None:
    history.append([sample(START + 10), sample(START + 5)])
    newest = history.latest("one")
    assert newest is not None
    assert newest.at == START + 10


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (START, START),
        (START + 10, START),
        (START + 9 * DAY, START + 10 * DAY),
        (-5.0, -1.0),
        (-5.0, 1.0),
        (math.inf, 1),
    ],
)
async def test_a_range_without_anything_is_empty(history: History, start: float, end: float) -> None:
    history.append([sample(START)])
    assert (await history.read("one", "cpu_percent", start, end)).points == []


async def test_an_endless_range_is_everything(history: History) -> None:
    history.append([sample(START)])
    assert len((await history.read("one", "cpu_percent", -math.inf, math.inf)).points) == 1


async def test_unknown_servers_and_series_are_empty(history: History) -> None:
    history.append([sample(START)])
    await history.divide()
    assert (await history.read("two", "cpu_percent", START - 1, START + 1)).points == []
    assert (await history.read("one", "load15", START - 1, START + 1)).points == []
    assert await history.series("two") == []
    assert history.latest("two") is None


@pytest.mark.parametrize("at", [math.nan, math.inf, -1.0, 1e18])
async def test_a_sample_at_no_time_of_this_world_is_refused(history: History, at: float) -> None:
    history.append([sample(at)])
    assert history.latest("one") is None
    assert history.counts.refused == 1


async def test_values_that_are_no_numbers_are_gaps(history: History) -> None:
    history.append([sample(START, cpu_percent=math.nan, load1=math.inf, fds=7.0), sample(START + 1, "empty")])
    history.append([Sample("one", START + 2, {})])
    await history.divide()
    read = await history.read_many("one", ["cpu_percent", "load1", "fds"], START - 1, START + 5)
    assert [len(one.points) for one in read] == [0, 0, 1]


async def test_many_series_come_in_the_order_asked_for(history: History) -> None:
    history.append([sample(START, a=1.0, b=2.0, c=3.0)])
    await history.compact(START + DAY)
    found = await history.read_many("one", ["c", "nothing", "a"], START, START + 1)
    assert [(one.series, [point[2] for point in one.points]) for one in found] == [
        ("c", [3.0]),
        ("nothing", []),
        ("a", [1.0]),
    ]


async def test_old_tiers_are_pruned_and_their_room_given_back(path: Path) -> None:
    tiers = Tiers(raw_hours=2, minute_days=2, hour_days=40)
    async with opened(path, tiers) as history:
        for hour in range(6):
            history.append(walk(START + hour * HOUR, 3600, 1, seed=hour))
            await history.compact(START + (hour + 1) * HOUR + 200)
        full = await history.sizes()
        await history.prune(START + 6 * HOUR)
        left = await history.sizes()
        assert left.tiers[Tier.RAW].blocks == 2
        assert left.tiers[Tier.MINUTE].blocks == full.tiers[Tier.MINUTE].blocks
        assert left.file_bytes < full.file_bytes * 0.6
        await history.compact(START + 4 * DAY)
        await history.prune(START + 4 * DAY)
        kept = await history.sizes()
        assert (kept.tiers[Tier.RAW].blocks, kept.tiers[Tier.MINUTE].blocks, kept.tiers[Tier.HOUR].rows) == (0, 0, 6)
        await history.compact(START + 100 * DAY)
        await history.prune(START + 100 * DAY)
        assert all(size.blocks == 0 for size in (await history.sizes()).tiers.values())


async def test_a_forgotten_server_leaves_nothing_behind(path: Path) -> None:
    async with opened(path) as history:
        for server in ("one", "two"):
            history.append([Sample(server, one.at, one.values) for one in walk(START, 7200, 10)])
            await history.compact(START + HOUR)
        history.append([sample(START + 2 * HOUR)])
        await history.forget("one")
        history.append([sample(START + 3 * HOUR)])
        assert history.latest("one") is None
    async with opened(path) as history:
        assert history.latest_all().keys() == {"two"}
        assert await history.series("one") == []
        assert (await history.read("one", "cpu_percent", 0, START + DAY)).points == []
        assert (await history.read("two", "cpu_percent", 0, START + DAY)).points != []
    with sqlite3.connect(path) as conn:
        assert conn.execute("select server_id from servers").fetchall() == [("two",)]
    conn.close()


async def test_layouts_that_nothing_uses_are_removed(path: Path) -> None:
    """A host whose devices come and go by the minute does not fill the file with lists of their names."""
    async with opened(path) as history:
        for number in range(200):
            history.append([sample(START + number, **{f"interface_rx_bytes_per_second:veth{number}": 1.0})])
            await history.divide()
        await history.compact(START + 2 * HOUR)
        await history.prune(START + 2 * HOUR)
        assert len(await history.series("one")) == 200
    with sqlite3.connect(path) as conn:
        assert conn.execute("select count(*) from layouts").fetchone()[0] <= 3


async def test_a_damaged_block_is_left_out_and_counted(path: Path) -> None:
    samples = walk(START, 3 * 3600, 10)
    async with opened(path) as history:
        history.append(samples)
        await history.compact(START + 4 * HOUR)
    with sqlite3.connect(path) as conn:
        conn.execute(
            "update blocks set data = zeroblob(100) where id = (select id from blocks where tier = 0 limit 1 offset 1)"
        )
    conn.close()
    async with opened(path, now=START + 3 * HOUR) as history:
        found = await history.read("one", "cpu_percent", START, START + 3 * HOUR, 10_000)
        expected = buckets(samples, "cpu_percent", 2, START, START + 3 * HOUR)
        check(
            found.points,
            {at: v for at, v in expected.items() if not START + HOUR <= at < START + 2 * HOUR},
            within=0.01,
        )
        assert history.counts.damaged == 1


def contents(path: Path) -> bytes:
    return path.read_bytes()


@pytest.mark.parametrize("content", [b"not a database at all", b"SQLite format 3\0" + b"\xff" * 5000])
async def test_a_file_that_is_no_database_is_refused_by_name(path: Path, content: bytes) -> None:
    Path.write_bytes(path, content)
    with pytest.raises(Unavailable, match=r"history\.sqlite3.*Move it away"):
        await History.open(path, Tiers())
    assert contents(path) == content


async def test_somebody_elses_database_is_refused_and_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as conn:
        conn.execute("create table precious (id integer)")
    conn.close()
    before = contents(path)
    with pytest.raises(Unavailable, match="not a history of server-monitor"):
        await History.open(path, Tiers())
    assert contents(path) == before


async def test_a_file_of_a_newer_version_is_refused(path: Path) -> None:
    async with opened(path):
        pass
    with sqlite3.connect(path) as conn:
        conn.execute("pragma user_version = 99")
    conn.close()
    with pytest.raises(Unavailable, match="newer server-monitor"):
        await History.open(path, Tiers())


async def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be used"):
        await History.open(tmp_path / "nowhere" / "history.sqlite3", Tiers())


async def test_reading_while_writing_sees_every_sample_once(path: Path) -> None:
    """While samples are appended, divided and settled, a count over the range never goes down, and never too high."""
    total, seen = 4000, 0
    async with opened(path, now=START + 3 * HOUR) as history:

        async def write() -> None:
            for number in range(total):
                history.append([sample(START + number * 1.7, cpu_percent=float(number % 100), fds=1.0)])
                if number % 40 == 0:
                    await history.flush()
                if number % 200 == 0:
                    await history.divide()
                if number % 500 == 0:
                    await history.compact(START + number * 1.7 + 200)

        async with asyncio.TaskGroup() as group:
            writing = group.create_task(write())
            while not writing.done():
                sent = len((await history.read("one", "fds", START, START + 3 * HOUR, 10_000)).points)
                assert seen <= sent <= total
                seen = sent
                await asyncio.sleep(0)
        exact = await history.read("one", "fds", START, START + 2 * HOUR, 10_000)
        assert len(exact.points) == total
