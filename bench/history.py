"""History: bytes for a value, CPU to take it in, time to draw it.

Two fleets that do not exist and could (`believable_hosts.py`) go through the whole path, from `append` to settled
blocks, at the pace that a simulated clock gives; and this machine's own values, taken by the real probe once a second
while the bench runs. The size is that of the whole file, log, indexes and empty pages included.
"""

import asyncio
import gc
import multiprocessing
import random
import resource
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from bench.believable_hosts import BelievableHost, Shape
from bench.harness import Figure, Options, Result, at_most, main, say
from server_monitor.collect import probe
from server_monitor.collect.collector import Clocks, Collector
from server_monitor.collect.lines import Hello
from server_monitor.series.sample import Sample
from server_monitor.series.store import FLUSH_INTERVAL_S, History
from server_monitor.series.tiers import Tier, Tiers
from server_monitor.ssh import local

BYTES_GOAL = 0.8
CHART_GOAL_MS = 15.0
INGEST_GOAL_CPU_S = 0.4  # for a million values: 20 µs for a sample of 50
MEMORY_GOAL_KIB = 10.0

START = 1_700_006_400.0  # an hour begins
HOUR = 3600


@dataclass(frozen=True, slots=True)
class Fleet:
    hosts: int
    hours: int
    every_s: float

    @property
    def label(self) -> str:
        return f"{self.hosts} servers, {self.hours} h at {self.every_s:g} s"


@dataclass(slots=True)
class Clock:
    now: float = START

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True, slots=True)
class Taken:
    """What a fleet's history took. Bytes are for a value of the raw tier."""

    values: int
    raw_bytes: float
    file_bytes: float
    all_tiers_bytes: float
    cpu_s_per_million: float
    sample_us: float
    charts_ms: dict[str, float]


def measure(options: Options) -> Result:
    idle, watched = Fleet(100, 24, 10), Fleet(20, 3, 1)
    if options.quick:
        idle, watched = Fleet(5, 2, 10), Fleet(3, 2, 1)
    captured = asyncio.run(_captured(20 if options.quick else 120))
    with tempfile.TemporaryDirectory(prefix="server-monitor-bench-") as folder:
        fleets = [
            (fleet, asyncio.run(_fleet(fleet, Path(folder, f"{fleet.hosts}.sqlite3")))) for fleet in (idle, watched)
        ]
        own = asyncio.run(_own(captured, Path(folder, "own.sqlite3")))
        few, many = (50, 100) if options.quick else (options.hosts // 5, options.hosts)
        fixed_kib, _ = _alone(few, Path(folder, "few.sqlite3"))
        grown_kib, sample_us = _alone(many, Path(folder, "many.sqlite3"))
    figures = [figure for fleet, taken in fleets for figure in _figures(fleet, taken)]
    figures += [
        Figure(f"stored, this machine's own {own.values:,} values at 1 s", "bytes a value", [own.raw_bytes]),
        Figure(
            f"memory for each more server at 1 s, {few} to {many}",
            "KiB",
            [(grown_kib - fixed_kib) / (many - few)],
            at_most(MEMORY_GOAL_KIB),
        ),
        Figure(f"memory for {few} servers", "MiB", [fixed_kib / 1024]),
        Figure(f"CPU to take in, {many} servers at 1 s, none settled yet", "µs a sample", [sample_us], at_most(20.0)),
    ]
    return Result("history", "History", figures, NOTES)


def _figures(fleet: Fleet, taken: Taken) -> list[Figure]:
    return [
        Figure(f"raw tier, blocks: {fleet.label}", "bytes a value", [taken.raw_bytes]),
        Figure(
            f"raw tier, its share of the whole file: {fleet.label}",
            "bytes a value",
            [taken.file_bytes],
            at_most(BYTES_GOAL),
        ),
        Figure(f"file with all tiers: {fleet.label}", "bytes a value", [taken.all_tiers_bytes]),
        Figure(
            f"ingest with settling: {fleet.label}",
            "CPU s a million values",
            [taken.cpu_s_per_million],
            at_most(INGEST_GOAL_CPU_S),
        ),
        Figure(f"ingest with settling: {fleet.label}", "µs a sample", [taken.sample_us], at_most(20.0)),
        *(
            Figure(f"chart of {what}: {fleet.label}", "ms", [took_ms], at_most(CHART_GOAL_MS))
            for what, took_ms in taken.charts_ms.items()
        ),
    ]


async def _fleet(fleet: Fleet, path: Path) -> Taken:
    """The fleet's whole history, hour by hour: values are made outside the measured time."""
    clock = Clock()
    history = await History.open(path, Tiers(), clock=clock)
    hosts = [BelievableHost(number, seed=1) for number in range(fleet.hosts)]
    values, samples, cpu_s = 0, 0, 0.0
    for hour in range(fleet.hours):
        say(f"{fleet.label}: hour {hour + 1}")
        shape = Shape(START + hour * HOUR, int(HOUR / fleet.every_s), fleet.every_s)
        ticks = list(zip(*(host.samples(shape) for host in hosts), strict=True))
        values += sum(len(sample.values) for sample in chain.from_iterable(ticks))
        samples += sum(map(len, ticks))
        cpu_s += await _append(history, clock, ticks)
    clock.now = START + fleet.hours * HOUR
    await history.divide()
    charts_ms = await _charts(history, hosts[1].name, clock.now)
    began = time.process_time()
    await history.compact(clock.now + 2 * HOUR)
    cpu_s += time.process_time() - began
    await history.close()
    raw_bytes, share, total = _sizes(path, values)
    return Taken(values, raw_bytes, share, total, cpu_s / values * 1e6, cpu_s / samples * 1e6, charts_ms)


async def _append(history: History, clock: Clock, ticks: Sequence[Sequence[Sample]]) -> float:
    """CPU seconds for taking these in, at the pace of the console's own loop."""
    gc.collect()
    gc.freeze()
    flushed_at = clock.now
    began = time.process_time()
    for samples in ticks:
        history.append(samples)
        clock.now = samples[0].at
        if clock.now - flushed_at >= FLUSH_INTERVAL_S - 0.5:
            flushed_at = clock.now
            await history.tick()
    used = time.process_time() - began
    gc.unfreeze()
    return used


def _sizes(path: Path, values: int) -> tuple[float, float, float]:
    """Bytes a raw value: of blocks alone; of the file, less what blocks of the other tiers take; of the file."""
    with sqlite3.connect(path) as conn:
        by_tier = dict(conn.execute("select tier, sum(length(data)) from blocks group by tier").fetchall())
    conn.close()
    whole = sum(file.stat().st_size for file in path.parent.glob(path.name + "*"))
    rollups = sum(size for tier, size in by_tier.items() if tier != Tier.RAW)
    return by_tier[Tier.RAW] / values, (whole - rollups) / values, whole / values


async def _charts(history: History, server: str, now: float) -> dict[str, float]:
    spans = {"5 min": 300, "1 h": HOUR, "3 h": 3 * HOUR, "24 h": 24 * HOUR, "30 days": 720 * HOUR}
    found = {
        name: await _median_ms(lambda span=span: history.read(server, "cpu_percent", now - span, now, 300))
        for name, span in spans.items()
    }
    page = [
        "cpu_percent",
        "memory_percent",
        "load1",
        "net_rx_bytes_per_second",
        "net_tx_bytes_per_second",
        "disk_percent",
    ]
    found["24 h, 6 series at once"] = await _median_ms(
        lambda: history.read_many(server, page, now - 24 * HOUR, now, 300)
    )
    return found


async def _median_ms(work: Callable[[], Awaitable[object]]) -> float:
    took = []
    for _ in range(15):
        began = time.perf_counter()
        await work()
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


async def _own(samples: Sequence[Sample], path: Path) -> Taken:
    history = await History.open(path, Tiers(), clock=lambda: samples[-1].at)
    history.append(samples)
    await history.compact(samples[-1].at + 2 * HOUR)
    await history.close()
    values = sum(len(sample.values) for sample in samples)
    raw_bytes, share, total = _sizes(path, values)
    return Taken(values, raw_bytes, share, total, 0.0, 0.0, {})


class _Listener:
    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def sampled(self, server_id: str, at: float, values: dict[str, float]) -> None:
        self.samples.append(Sample(server_id, at, dict(values)))

    def judged(self, server_id: str, status: str, reason: str | None, detail: str | None) -> None:
        say(f"{server_id} is {status} {reason or ''} {detail or ''}")

    def greeted(self, server_id: str, hello: Hello) -> None:
        pass

    def lost(self, server_id: str) -> None:
        pass


async def _captured(seconds: int) -> list[Sample]:
    """This machine's own values, once a second, by the real probe."""
    say(f"this machine's own values, for {seconds} s")
    listener = _Listener()
    collector = Collector("here", listener, Clocks(), random.Random(1))
    callbacks = collector.connecting()
    collector.opened(
        await local.open_channel(probe.arguments(), callbacks.on_data, callbacks.on_closed, callbacks.on_stderr)
    )
    collector.watched = True
    for second in range(seconds):
        collector.beat(time.monotonic(), second, 10)
        await asyncio.sleep(1)
    collector.stop()
    return listener.samples


def _alone(count: int, path: Path) -> tuple[float, float]:
    """In a process of its own, whose memory nothing else has stretched."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_steady, count, path).result()


def _steady(count: int, path: Path) -> tuple[float, float]:
    return asyncio.run(_memory(count, path))


async def _memory(count: int, path: Path) -> tuple[float, float]:
    """KiB that history needs at most beyond the samples themselves, and µs of CPU for a sample, at one a second."""
    clock = Clock()
    hosts = [BelievableHost(number, seed=2) for number in range(count)]
    ticks = list(zip(*(host.samples(Shape(START, 120, 1.0)) for host in hosts), strict=True))
    before_kib = highest_kib = _resident_kib()
    history = await History.open(path, Tiers(), clock=clock)
    cpu_s = 0.0
    for first in range(0, len(ticks), 2):
        cpu_s += await _append(history, clock, ticks[first : first + 2])
        highest_kib = max(highest_kib, _resident_kib())
    await history.close()
    return highest_kib - before_kib, cpu_s / (count * len(ticks)) * 1e6


def _resident_kib() -> float:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * resource.getpagesize() / 1024


NOTES = (
    "The fleets' values are simulated from counters (jiffies, packets, blocks), 53 series a host.",
    "A third of those hosts are nearly idle, half are ordinary, a fifth are busy.",
    "This machine's own values are what the probe found in 120 s while other work ran on it.",
    "The file's size counts log, indexes, half-filled and empty pages.",
    "Memory is the growth of the process from before the history is opened, at its highest, without the samples.",
)

if __name__ == "__main__":
    raise SystemExit(main(measure))
