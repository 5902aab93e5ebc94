"""The embedded history: what every server measured, for two years, in one file.

    append ─▶ pending ─(2 s)─▶ log + head ─(some minutes)─▶ loose blocks ─(the hour ends)─▶ settled block
                                                                      └─▶ minute tier ─▶ hour tier

`append` only puts samples on a list. One thread owns the writing connection: every two seconds it writes what is
pending to the log (a row for some dozens of servers) and keeps the same in memory, the *head*; when the head is large
or old it becomes loose blocks; when a period is over its loose blocks are settled (`settle.py`). Reading joins all of
these. A killed console loses what was pending.
"""

import asyncio
import math
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from server_monitor.series import file, head, ranges, rollup
from server_monitor.series.blocks import Block, Damaged, Table, stack
from server_monitor.series.file import TierSize
from server_monitor.series.forecast import full_size_bytes
from server_monitor.series.head import Batch, Head
from server_monitor.series.layouts import Layouts
from server_monitor.series.precision import factors, to_numbers, to_values
from server_monitor.series.ranges import MAX_POINTS, Range
from server_monitor.series.rollup import Rows
from server_monitor.series.sample import Sample
from server_monitor.series.settle import Period, settle
from server_monitor.series.tiers import PERIOD_MS, STEP_MS, Names, Tier, Tiers, select, to_rows
from server_monitor.telemetry import metrics
from server_monitor.telemetry.logs import logger

log = logger(__name__)
T = TypeVar("T")

FLUSH_INTERVAL_S = 2.0  # A killed console may lose 5 s; half the flushes cost half as much.
_RETRY_INTERVAL_S = 5.0  # after the disk refused
_PRUNE_INTERVAL_S = 300.0
_READER_THREADS = 2

_PENDING_SAMPLES_MAX = 20_000  # a minute of 300 servers at one a second
_FLUSH_SAMPLES_MAX = 2_000
_HEAD_BYTES_A_SERVER = 4 * 1024
_HEAD_BYTES_MIN = 1 << 18
_HEAD_AGE_MAX_S = 300.0
_SETTLE_BUDGET_S = 0.05  # of each second, so that a whole fleet's hour is settled within minutes and nobody notices
_SETTLE_INTERVAL_S = 10.0  # when nothing was left the last time
_SETTLE_AFTER_MS = 120_000  # A period stays open a little longer for samples still on their way.
_PRUNE_BATCH = 64
_EMPTY_PAGES_KEPT = 0.05  # Settling needs room to turn around; giving all back would only be asked for again.
_GIVE_BACK_PAGES = 256
_LATE_S = 60.0  # A sample further back than this is not late: the clock was set back.
_LATEST_YEAR_S = 7_258_118_400.0  # 2200-01-01


@dataclass(frozen=True, slots=True)
class Sizes:
    """What history takes on disk. `forecast_bytes` is what it grows to if the fleet stays as it is; None too early."""

    file_bytes: int
    tiers: Mapping[Tier, TierSize]
    forecast_bytes: int | None


@dataclass(frozen=True, slots=True)
class _Wanted:
    server_id: str
    names: Names
    tier: Tier
    start_ms: int
    end_ms: int


@dataclass(slots=True)
class Counts:
    """What happened to samples since the start; also exposed as metrics."""

    stored: int = 0
    dropped: int = 0  # nobody took them from the full buffer
    refused: int = 0  # at no instant in this world
    damaged: int = 0  # blocks that could not be read


class History:
    def __init__(
        self, path: Path, conn: sqlite3.Connection, tiers: Tiers, keep_free_bytes: int, clock: Callable[[], float]
    ) -> None:
        self._path = path
        self._tiers = tiers
        self._keep_free_bytes = keep_free_bytes
        self._clock = clock
        self._writer = conn  # used in the writing thread only
        self._layouts = Layouts(conn)
        self._servers = file.servers(conn)
        self._forgotten: set[str] = set()
        self._to_forget: list[str] = []
        self._pending: list[Sample] = []
        self._head = Head()
        self._head_since: float | None = None
        self._latest: dict[str, Sample] = {}
        self._newest_layouts: set[int] = set()
        # Held while samples move from one place to the next, so that no reader sees them in both or in none.
        self._moving = threading.Lock()
        self._writing = ThreadPoolExecutor(1, "history-write")
        self._reading = ThreadPoolExecutor(_READER_THREADS, "history-read")
        self._connections = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self.stopped_because: str | None = None
        self._settled_at = 0.0
        self._prune_at = 0.0
        self.counts = Counts()

    @classmethod
    async def open(
        cls,
        path: Path,
        tiers: Tiers,
        *,
        keep_free_bytes: int = 64 << 20,
        clock: Callable[[], float] = time.time,
    ) -> "History":
        """The history in `path`, made when there is none, with what a killed console left in its log.

        Samples are not stored while less than `keep_free_bytes` is free: the audit log needs the rest of the disk.
        Raises Unavailable, naming the file and the remedy, when the file is foreign, newer or damaged.
        """

        def opened() -> History:
            history = cls(path, file.open_file(path), tiers, keep_free_bytes, clock)
            history._restore()
            return history

        return await asyncio.to_thread(opened)

    # --- samples come in ------------------------------------------------------------------------------------------

    def append(self, samples: Sequence[Sample]) -> None:
        """Take samples for storing; they are on disk about two seconds later.

        Never waits. When the disk has stopped taking samples and the buffer is full, new ones are dropped and counted.
        """
        for sample in samples:
            if not 0 <= sample.at < _LATEST_YEAR_S:
                self._refuse()
                continue
            if sample.server_id in self._forgotten:
                continue
            newest = self._latest.get(sample.server_id)
            if newest is None or not newest.at - _LATE_S < sample.at < newest.at:
                self._latest[sample.server_id] = sample
            if len(self._pending) < _PENDING_SAMPLES_MAX:
                self._pending.append(sample)
            else:
                self.counts.dropped += 1
                metrics.history_dropped.inc()

    def _refuse(self) -> None:
        self.counts.refused += 1
        metrics.history_refused.inc()

    def latest(self, server_id: str) -> Sample | None:
        return self._latest.get(server_id)

    def latest_all(self) -> Mapping[str, Sample]:
        """The newest sample of each server, by its id. A view: it changes as samples arrive."""
        return MappingProxyType(self._latest)

    # --- charts go out --------------------------------------------------------------------------------------------

    async def read(self, server_id: str, series: str, start_at: float, end_at: float, points: int = 300) -> Range:
        """A series from `start_at` up to `end_at` in at most `points` steps. Nothing there is an empty range."""
        return (await self.read_many(server_id, [series], start_at, end_at, points))[0]

    async def read_many(
        self, server_id: str, series: Sequence[str], start_at: float, end_at: float, points: int = 300
    ) -> list[Range]:
        """Several series of one server at the price of little more than one."""
        names = tuple(dict.fromkeys(series))
        start_ms, end_ms = (round(min(max(at, 0.0), _LATEST_YEAR_S) * 1000) for at in (start_at, end_at))
        points = min(max(points, 1), MAX_POINTS)
        if start_ms >= end_ms:
            return [Range(name, 1, []) for name in names]
        choice = ranges.choose(start_ms, end_ms, points, self._tiers, round(self._clock() * 1000))
        wanted = _Wanted(server_id, names, choice.tier, start_ms, end_ms)
        found = await self._in_reader(lambda conn: self._rows(conn, wanted))
        return ranges.to_ranges(found, names, choice.step_s)

    async def series(self, server_id: str) -> list[str]:
        """Every series that history holds of a server, sorted."""
        return await self._in_reader(lambda conn: self._series(conn, server_id))

    def _series(self, conn: sqlite3.Connection, server_id: str) -> list[str]:
        server = self._servers.get(server_id)
        with self._moving:
            found = {name for sample in self._pending if sample.server_id == server_id for name in sample.values}
            packed = [] if server is None else self._head.batches_with(server)
            layouts = set() if server is None else set(file.layouts_used(conn, server))
        for layout in layouts | head.layouts_of(packed, server or 0):
            found.update(self._layouts.names(conn, layout))
        return sorted(found)

    async def _in_reader(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def run() -> T:
            conn = getattr(self._connections, "conn", None)
            if conn is None:
                conn = self._connections.conn = file.open_reader(self._path)
                self._readers.append(conn)
            return work(conn)

        return await asyncio.get_running_loop().run_in_executor(self._reading, run)

    def _rows(self, conn: sqlite3.Connection, wanted: _Wanted) -> Rows:
        """A tier's rows that touch the range: its own blocks, and what of the tiers below is not rolled up yet."""
        server = self._servers.get(wanted.server_id)
        with ExitStack() as stack:
            with self._moving:
                packed = [] if server is None else self._head.batches_with(server)
                pending = [sample for sample in self._pending if sample.server_id == wanted.server_id]
                stack.enter_context(file.snapshot(conn))
            stored = {
                tier: [] if server is None else self._stored(conn, server, tier, wanted)
                for tier in Tier
                if tier <= wanted.tier
            }
        newest = self._undivided(server, packed, pending, wanted.names)
        nothing = rollup.empty(len(wanted.names))
        rows = rollup.first_of_each(rollup.join([*stored[Tier.RAW], *newest, nothing]))
        for tier in list(Tier)[1 : wanted.tier + 1]:
            rows = rollup.join([*stored[tier], rollup.roll(rows, STEP_MS[tier])])
        step_ms = STEP_MS[wanted.tier]
        return rollup.between(rows, wanted.start_ms // step_ms * step_ms, wanted.end_ms)

    def _undivided(
        self, server: int | None, packed: Sequence[bytes], pending: Sequence[Sample], names: Names
    ) -> list[Rows]:
        """What is in no block yet."""
        found = [] if server is None else head.rows_of(packed, server, names, self._names)
        if pending:
            values = np.array([[sample.values.get(name, np.nan) for name in names] for sample in pending])
            at_ms = np.rint(np.array([sample.at for sample in pending]) * 1000).astype(np.int64)
            by = factors(names)
            found.append(rollup.of_samples(at_ms, to_values(*to_numbers(values, by), by)))
        return found

    def _stored(self, conn: sqlite3.Connection, server: int, tier: Tier, wanted: _Wanted) -> list[Rows]:
        """A tier's blocks in the range; of a tier below the one wanted, only what it does not hold itself."""
        periods = wanted.start_ms // PERIOD_MS[tier], (wanted.end_ms - 1) // PERIOD_MS[tier]
        found: dict[Names, list[Table]] = {}
        for id_, _settled, layout, data in file.blocks_between(
            conn, server, tier, periods, loose_only=tier < wanted.tier
        ):
            try:
                kept = self._layouts.names(conn, layout)
                names = tuple(name for name in wanted.names if name in kept)
                if names:
                    found.setdefault(names, []).append(select(tier, Block(data), kept, names))
            except Damaged as error:
                self._count_damaged(1, block=id_, why=str(error))
        return [
            rollup.in_order(rollup.widen(to_rows(tier, stack(tables), names), names, wanted.names))
            for names, tables in found.items()
        ]

    def _count_damaged(self, count: int, **facts: object) -> None:
        self.counts.damaged += count
        metrics.history_damaged.inc(count)
        log.warning("history_block_damaged", file=str(self._path), **facts)

    # --- the writing thread ---------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Flush, settle and prune for as long as the console runs. `close` writes what is left."""
        while True:
            await self.tick()
            await asyncio.sleep(FLUSH_INTERVAL_S if self.stopped_because is None else _RETRY_INTERVAL_S)

    async def tick(self) -> None:
        """What is due now. A disk that refuses stops history, which `stopped_because` tells, and not the console."""
        await self._in_writer(self._tick)

    async def flush(self) -> None:
        """Put on disk what was appended until now. Raises sqlite3.Error or OSError when the disk refuses."""
        await self._in_writer(self._flush)

    async def divide(self) -> None:
        """Put everything appended until now into blocks."""
        await self._in_writer(self._divide_all)

    async def compact(self, now: float) -> None:
        """Settle every period that is over at `now`, however long it takes. `run` does it bit by bit."""

        def settle_all() -> None:
            self._divide_all()
            self._settle_over(now, budget_s=math.inf)

        await self._in_writer(settle_all)

    async def prune(self, now: float) -> None:
        """Delete what is older than its tier keeps, and give the room back to the file system."""
        await self._in_writer(lambda: self._prune(now))

    async def forget(self, server_id: str) -> None:
        """Delete all history of a server for good; samples of it that still arrive are ignored.

        When the disk refuses, it is done as soon as it can be.
        """
        self._forgotten.add(server_id)
        self._latest.pop(server_id, None)
        self._to_forget.append(server_id)
        await self.tick()

    async def sizes(self) -> Sizes:
        return await self._in_reader(self._sizes)

    @property
    def held_bytes(self) -> int:
        """Memory that samples take which are in no block yet."""
        return self._head.size_bytes

    async def close(self) -> None:
        """Write everything to blocks and close the file."""
        try:
            await self._in_writer(self._write_all)
        finally:
            self._writing.shutdown()
            self._reading.shutdown()
            for conn in (*self._readers, self._writer):
                conn.close()

    async def _in_writer(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writing, work)

    def _restore(self) -> None:
        newest = file.newest(self._writer)
        batch = None if newest is None else self._restored(newest)
        if batch is not None:
            self._newest_layouts.update(batch.layouts.tolist())
        for shard, packed in file.log_rows(self._writer):
            if self._restored(packed) is not None:
                self._head.add(shard, packed)
                self._head_since = self._clock()

    def _restored(self, packed: bytes) -> Batch | None:
        """A batch whose samples are now the newest of their servers; None when it is damaged."""
        server_ids = {short: server_id for server_id, short in self._servers.items()}
        try:
            batch = Batch.unpack(packed)
            for sample in batch.samples(server_ids, self._names):
                self._latest[sample.server_id] = sample
        except Damaged as error:
            self._count_damaged(1, why=str(error))
            return None
        return batch

    def _names(self, layout: int) -> Names:
        """For the layouts of the head, which are always known."""
        return self._layouts.names(self._writer, layout)

    def _tick(self) -> None:
        try:
            now = self._clock()
            if time.monotonic() >= self._prune_at:
                self._prune_at = time.monotonic() + _PRUNE_INTERVAL_S
                self._prune(now)
            self._check_room()
            self._flush()
            if self._head_is_due():
                self._divide()
            while self._to_forget:
                self._forget(self._to_forget[0])
                del self._to_forget[0]
            if abs(now - self._settled_at) >= _SETTLE_INTERVAL_S and self._settle_over(now, _SETTLE_BUDGET_S):
                self._settled_at = now
        except (sqlite3.Error, OSError) as error:
            self._stop(error)
        else:
            self._resume()

    def _stop(self, error: Exception) -> None:
        if self.stopped_because is None:
            log.error(
                "history_stopped",
                file=str(self._path),
                why=str(error),
                remedy="Free space on this disk, or keep history for a shorter time; it goes on by itself.",
            )
        self.stopped_because = str(error)

    def _resume(self) -> None:
        if self.stopped_because is not None:
            log.warning("history_resumed", file=str(self._path), dropped_samples=self.counts.dropped)
        self.stopped_because = None

    def _check_room(self) -> None:
        free = shutil.disk_usage(self._path.parent).free
        if free < self._keep_free_bytes:
            raise OSError(
                f"only {free >> 20} MiB are free, and {self._keep_free_bytes >> 20} MiB are left for the rest"
            )

    def _flush(self) -> None:
        # A part at a time, so that a disk which refuses costs one part's work and not that of all that piled up.
        while taken := self._pending[:_FLUSH_SAMPLES_MAX]:
            whole = self._batch(sorted(taken, key=lambda sample: self._server(sample.server_id)))
            packed = [(shard, part.pack()) for shard, part in whole.by_shard()]
            with file.transaction(self._writer):
                file.log_append(self._writer, packed)
            with self._moving:
                del self._pending[: len(taken)]
                for shard, batch in packed:
                    self._head.add(shard, batch)
            self._head_since = self._head_since or self._clock()
            self.counts.stored += len(taken)
            metrics.history_stored.inc(len(taken))

    def _batch(self, samples: Sequence[Sample]) -> Batch:
        names = [tuple(sample.values) for sample in samples]
        layouts = [self._layouts.id(self._writer, one) for one in names]
        return head.batch(samples, [self._server(sample.server_id) for sample in samples], layouts, names)

    def _server(self, server_id: str) -> int:
        known = self._servers.get(server_id)
        if known is None:
            known = self._servers[server_id] = file.add_server(self._writer, server_id)
        return known

    def _head_is_due(self) -> bool:
        if self._head_since is None:
            return False
        limit = max(_HEAD_BYTES_MIN, _HEAD_BYTES_A_SERVER * len(self._latest))
        return self._head.size_bytes >= limit or abs(self._clock() - self._head_since) >= _HEAD_AGE_MAX_S

    def _divide(self) -> None:
        """Turn the head into loose blocks, which makes the log superfluous."""
        if not self._head:
            return
        newest = self._batch(list(self._latest.values()))
        try:
            with ExitStack() as moving:
                with file.transaction(self._writer):
                    for shard in self._head.shards():
                        file.add_blocks(self._writer, head.loose_blocks(shard, self._names, self._layout))
                    file.replace_newest(self._writer, newest.pack())
                    file.log_clear(self._writer)
                    # From the commit on until the head is empty, nobody may look.
                    moving.enter_context(self._moving)
                self._head.clear()
        except BaseException:
            # Layouts that were added in it are gone with the transaction.
            self._layouts = Layouts(self._writer)
            raise
        self._newest_layouts = set(newest.layouts.tolist())
        self._head_since = None

    def _layout(self, names: Names) -> int:
        return self._layouts.id(self._writer, names)

    def _settle_over(self, now: float, budget_s: float) -> bool:
        """Settle what is over, for as long as the budget lasts; whether nothing is left."""
        deadline = time.monotonic() + budget_s
        now_ms = round(now * 1000) - _SETTLE_AFTER_MS
        for tier in Tier:
            while over := file.over(self._writer, tier, now_ms // PERIOD_MS[tier], limit=64):
                for server, period in over:
                    damaged = settle(self._writer, self._layouts, Period(server, tier, period))
                    if damaged:
                        self._count_damaged(damaged, server=server, tier=tier.name, period=period)
                    if time.monotonic() > deadline:
                        return False
        return True

    def _prune(self, now: float) -> None:
        now_ms = round(now * 1000)
        for tier in Tier:
            before = (now_ms - self._tiers.kept_ms(tier)) // PERIOD_MS[tier]
            deleted = _PRUNE_BATCH
            while deleted == _PRUNE_BATCH:
                with file.transaction(self._writer):
                    deleted = file.prune(self._writer, tier, before, _PRUNE_BATCH)
        self._divide()
        self._layouts.remove_unused(self._writer, self._newest_layouts)
        self._give_back()

    def _give_back(self) -> None:
        total, unused, _size = file.pages(self._writer)
        while unused > total * _EMPTY_PAGES_KEPT:
            file.give_back(self._writer, min(_GIVE_BACK_PAGES, unused))
            total, unused, _size = file.pages(self._writer)

    def _forget(self, server_id: str) -> None:
        # The log holds its samples among others'; blocks hold them apart.
        self._divide_all()
        server = self._servers.get(server_id)
        if server is None:
            return
        deleted = _PRUNE_BATCH
        while deleted == _PRUNE_BATCH:
            with file.transaction(self._writer):
                deleted = file.remove_blocks_of(self._writer, server, _PRUNE_BATCH)
        file.remove_server(self._writer, server)
        del self._servers[server_id]
        self._give_back()

    def _divide_all(self) -> None:
        self._flush()
        self._divide()

    def _write_all(self) -> None:
        try:
            self._divide_all()
        except (sqlite3.Error, OSError) as error:
            self._stop(error)

    def _sizes(self, conn: sqlite3.Connection) -> Sizes:
        with file.snapshot(conn):
            total, unused, size = file.pages(conn)
            tiers = {tier: file.tier_size(conn, tier) for tier in Tier}
        used = (total - unused) * size
        forecast = full_size_bytes(tiers, self._tiers, used, round(self._clock() * 1000))
        return Sizes(total * size, tiers, forecast)
