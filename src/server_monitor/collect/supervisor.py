"""Keeps the collectors equal to the servers that are to be watched, and is the one clock of them all.

Everything runs under one task group: a loop that reads the rows, one that listens to the bus, one that beats, one that
writes down verdicts, and a task for each connection being opened. A collector that waits for its next second costs
nothing.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from server_monitor.bus.contract import Bus, Changed, SamplesTaken, StatusChanged, Subject, Watched
from server_monitor.collect import probe
from server_monitor.collect.collector import Callbacks, Channel, Clocks, Collector, Phase
from server_monitor.collect.lines import Hello, text
from server_monitor.collect.linux import ProcessUse
from server_monitor.errors import Unavailable, Unreachable
from server_monitor.fleet.servers import Watch
from server_monitor.series.sample import Sample
from server_monitor.ssh import local
from server_monitor.telemetry import metrics
from server_monitor.telemetry.logs import logger

log = logger(__name__)

RELOAD_EVERY_S: Final = 30.0
# Audit actions after which the rows that are watched read differently; a run on every server is none of them.
_ABOUT_ROWS: Final = ("server.", "host_key.", "ssh_key.", "key.")
RELOAD_PAUSE_S: Final = 0.5
LEASE_S: Final = 15.0
FLUSH_AFTER_S: Final = 0.2
CHANNEL_DEADLINE_S: Final = 30.0
CLOSE_DEADLINE_S: Final = 2.0
RECORD_PAUSE_S: Final = 0.2
# A second's answers come in this many bursts at most, so that no burst keeps a browser waiting, and in bursts of
# this many servers at least, because answers that come together are cheaper.
BURSTS: Final = 10
BURST_SERVERS: Final = 50


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a server at `at` (Unix seconds); `reason` is a code of `fleet/reasons.py`."""

    server_id: str
    status: str
    reason: str | None
    detail: str | None
    at: float


OpenRemote = Callable[..., Awaitable[Channel]]
"""`ssh.pool.Pool.open_channel`: (target, command, on_data, on_closed, on_stderr) -> Channel."""


class Supervisor:
    """Runs all collectors. What it needs of other domains is handed over by the wiring."""

    def __init__(
        self,
        *,
        targets: Callable[[], Awaitable[Sequence[Watch]]],
        open_remote: OpenRemote,
        drop_remote: Callable[[str], Awaitable[None]],
        history_append: Callable[[Sequence[Sample]], None],
        bus: Bus,
        record_verdicts: Callable[[Sequence[Verdict]], Awaitable[None]],
        record_facts: Callable[[Mapping[str, Mapping[str, Any]]], Awaitable[None]],
        idle_interval_s: int,
        connect_concurrency: int,
        clocks: Clocks | None = None,
    ) -> None:
        self._targets = targets
        self._open_remote = open_remote
        self._drop_remote = drop_remote
        self._history_append = history_append
        self._bus = bus
        self._record_verdicts = record_verdicts
        self._record_facts = record_facts
        self._idle_interval_s = idle_interval_s
        self._connect_concurrency = connect_concurrency
        self._clocks = clocks or Clocks()
        self._jitter = random.Random()  # noqa: S311  # Not a secret.
        self._watches: dict[str, Watch] = {}
        self._collectors: dict[str, Collector] = {}
        self._bursts: list[list[Collector]] = []
        self._leases: dict[str, tuple[Watched, float]] = {}
        self._connecting: set[str] = set()
        self._due: deque[Collector] = deque()
        self._queued: set[str] = set()
        self._batch: list[Sample] = []
        self._verdicts: dict[str, Verdict] = {}
        self._facts: dict[str, Mapping[str, Any]] = {}
        self._lost: set[str] = set()
        self._reload = asyncio.Event()
        self._to_record = asyncio.Event()
        self._slots = 0
        self._here: local.LocalChannel | None = None

    async def run(self) -> None:
        """Watch until cancelled; then every probe is ended and every sample handed over."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_up_with_rows(), name="collect rows")
                tasks.create_task(self._listen(), name="collect bus")
                tasks.create_task(self._beat(tasks), name="collect beat")
                tasks.create_task(self._record(), name="collect record")
        finally:
            for collector in self._collectors.values():
                collector.stop()
            self._flush()
            if self._here is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(CLOSE_DEADLINE_S):
                        await self._here.wait_closed()

    def top(self, server_id: str) -> Sequence[ProcessUse]:
        """The processes that use most on a server whose page is open; empty when none have been asked for."""
        collector = self._collectors.get(server_id)
        return collector.top if collector is not None else ()

    # --- the rows -----------------------------------------------------------------------------------------------

    async def _keep_up_with_rows(self) -> None:
        while True:
            self._reload.clear()
            try:
                self._adopt({watch.server_id: watch for watch in await self._targets() if watch.enabled})
            except Unavailable as error:
                log.warning("collect_rows_unavailable", error=str(error))
            await asyncio.sleep(RELOAD_PAUSE_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(RELOAD_EVERY_S):
                    await self._reload.wait()

    def _adopt(self, watches: Mapping[str, Watch]) -> None:
        for server_id in self._collectors.keys() - watches.keys():
            self._end(server_id)
            self.lost(server_id)
        for server_id, watch in watches.items():
            if self._watches.get(server_id) != watch:
                self._end(server_id)
                self._begin(watch)
        bursts = min(max(len(self._collectors) // BURST_SERVERS, 1), BURSTS)
        everyone = list(self._collectors.values())
        self._bursts = [everyone[number::bursts] for number in range(bursts)]

    def _begin(self, watch: Watch) -> None:
        self._slots += 1
        self._watches[watch.server_id] = watch
        self._collectors[watch.server_id] = Collector(
            watch.server_id, self, self._clocks, self._jitter, slot=self._slots
        )

    def _end(self, server_id: str) -> None:
        collector = self._collectors.pop(server_id, None)
        if collector is not None:
            collector.stop()
            del self._watches[server_id]
            self._verdicts.pop(server_id, None)
            self._facts.pop(server_id, None)

    async def _listen(self) -> None:
        with self._bus.subscribe(Subject.CHANGED, Subject.WATCHED, queue_size=256) as messages:
            async for message in messages:
                if isinstance(message, Changed):
                    if message.actions is None or any(action.startswith(_ABOUT_ROWS) for action in message.actions):
                        self._reload.set()
                elif isinstance(message, Watched):
                    self._leases[message.watcher] = message, self._clocks.monotonic() + LEASE_S

    # --- the beat -----------------------------------------------------------------------------------------------

    async def _beat(self, tasks: asyncio.TaskGroup) -> None:
        second = 0
        due_at = self._clocks.monotonic()
        while True:
            second += 1
            self._honour_leases()
            # The list is replaced when rows change, which must not shift the bursts of a second under way.
            bursts = self._bursts or [[]]
            for burst in bursts:
                for collector in burst:
                    self._beat_one(collector, second)
                self._connect_due(tasks)
                due_at += 1.0 / len(bursts)
                now = self._clocks.monotonic()
                if due_at < now - 1.0:
                    due_at = now
                await asyncio.sleep(max(due_at - now, 0))

    def _beat_one(self, collector: Collector, second: int) -> None:
        now = self._clocks.monotonic()
        collector.beat(now, second, self._idle_interval_s)
        if collector.phase is Phase.WAITING and collector.retry_at <= now:
            self._wants_connection(collector)

    def _honour_leases(self) -> None:
        now = self._clocks.monotonic()
        for watcher in [watcher for watcher, (_, until) in self._leases.items() if until < now]:
            del self._leases[watcher]
        everyone = any(watched.all_servers for watched, _ in self._leases.values())
        detailed = frozenset[str]().union(*(watched.detailed for watched, _ in self._leases.values()))
        for server_id, collector in self._collectors.items():
            collector.detailed = server_id in detailed
            collector.watched = everyone or collector.detailed

    # --- connections --------------------------------------------------------------------------------------------

    def _wants_connection(self, collector: Collector) -> None:
        if collector.server_id in self._connecting or collector.server_id in self._queued:
            return
        self._queued.add(collector.server_id)
        # One that has never been tried is more likely to answer than one that has failed.
        if collector.retry_at == 0:
            self._due.appendleft(collector)
        else:
            self._due.append(collector)

    def _connect_due(self, tasks: asyncio.TaskGroup) -> None:
        while self._due and len(self._connecting) < self._connect_concurrency:
            collector = self._due.popleft()
            self._queued.discard(collector.server_id)
            watch = self._watches.get(collector.server_id)
            if watch is not None and self._collectors[watch.server_id] is collector:
                self._connecting.add(collector.server_id)
                tasks.create_task(self._connect(tasks, collector, watch))

    async def _connect(self, tasks: asyncio.TaskGroup, collector: Collector, watch: Watch) -> None:
        callbacks = collector.connecting()
        try:
            async with asyncio.timeout(CHANNEL_DEADLINE_S):
                channel = await self._open(watch, callbacks)
            collector.opened(channel)
        except Unreachable as error:
            collector.failed(error.reason, str(error))
        except TimeoutError:
            collector.failed("connect_timeout", f"no channel within {CHANNEL_DEADLINE_S:.0f} s")
        except Unavailable as error:
            collector.failed("internal", str(error))
        except OSError as error:
            collector.failed("probe_failed", str(error))
        finally:
            self._connecting.discard(watch.server_id)
        self._connect_due(tasks)

    async def _open(self, watch: Watch, callbacks: Callbacks) -> Channel:
        if watch.target is None:
            self._here = await local.open_channel(
                probe.arguments(), callbacks.on_data, callbacks.on_closed, callbacks.on_stderr
            )
            return self._here
        return await self._open_remote(
            watch.target,
            probe.command(),
            on_data=callbacks.on_data,
            on_closed=callbacks.on_closed,
            on_stderr=callbacks.on_stderr,
        )

    # --- what collectors find -----------------------------------------------------------------------------------

    def sampled(self, server_id: str, at: float, values: dict[str, float]) -> None:
        if not self._batch:
            asyncio.get_running_loop().call_later(FLUSH_AFTER_S, self._flush)
        self._batch.append(Sample(server_id, at, values))

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        if not batch:
            return
        self._history_append(batch)
        metrics.samples_taken.inc(len(batch))
        values = {sample.server_id: sample.values for sample in batch}
        self._bus.publish(Subject.SAMPLES, SamplesTaken(batch[-1].at, values))

    def judged(self, server_id: str, status: str, reason: str | None, detail: str | None) -> None:
        at = self._clocks.unix()
        log.info("server_status", server_id=server_id, status=status, reason=reason, detail=detail)
        self._verdicts[server_id] = Verdict(server_id, status, reason, detail, at)
        self._to_record.set()
        self._bus.publish(Subject.STATUS, StatusChanged(server_id, status, reason, at))

    def greeted(self, server_id: str, hello: Hello) -> None:
        self._facts[server_id] = facts(hello)
        self._to_record.set()

    def lost(self, server_id: str) -> None:
        """The whole connection to this server is to be closed."""
        self._lost.add(server_id)
        self._to_record.set()

    async def _record(self) -> None:
        """Write down what was found; of many verdicts about one server only the last is worth a row."""
        while True:
            await self._to_record.wait()
            self._to_record.clear()
            lost, self._lost = self._lost, set()
            for server_id in lost:
                await self._drop_remote(server_id)
            await self._write_down()
            await asyncio.sleep(RECORD_PAUSE_S)

    async def _write_down(self) -> None:
        verdicts, self._verdicts = self._verdicts, {}
        found, self._facts = self._facts, {}
        try:
            # In this order: where a server counts as online, what its host says of itself is known, its boot above all.
            if found:
                await self._record_facts(found)
            if verdicts:
                await self._record_verdicts(list(verdicts.values()))
        except Unavailable as error:
            # They are still true: keep them, unless something newer has come.
            self._verdicts = {**verdicts, **self._verdicts}
            self._facts = {**found, **self._facts}
            self._to_record.set()
            log.warning("collect_record_unavailable", error=str(error))


def facts(hello: Hello) -> dict[str, Any]:
    """What a host says of itself, fit to be stored and shown."""
    return {
        "system": text(hello.system),
        "kernel": text(hello.kernel),
        "architecture": text(hello.architecture),
        "hostname": text(hello.hostname),
        "cpus": hello.cpus,
        "memory_bytes": None if hello.memory_kib is None else hello.memory_kib * 1024,
        "boot_id": text(hello.boot_id),
        "booted_at": hello.booted_at,
        "awk": text(hello.awk),
        "sections": [text(section) for section in hello.sections],
    }
