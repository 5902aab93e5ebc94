"""Who sees what: samples, states and tasks from the bus, each given to the browsers that want it.

Browsers with equal subscriptions share a *feed*. Samples gather in the feed and leave together, as one frame that is
encoded once however many browsers there are. Each browser has a bounded outbox, so a slow one loses its own oldest
sample frames and slows nobody; states are never lost, because an outbox keeps the newest one of each server. The same
holds for the tasks of the run that a browser watches: each waits with its newest state until the browser reads.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from server_monitor.bus.contract import (
    Bus,
    SamplesTaken,
    StatusChanged,
    Stopping,
    Subject,
    Subscription,
    TasksChanged,
    TaskState,
    Watched,
)
from server_monitor.errors import Failure
from server_monitor.realtime import messages
from server_monitor.telemetry import metrics
from server_monitor.telemetry.logs import logger

TRY_AGAIN_LATER = 1013
SERVICE_RESTART = 1012

log = logger(__name__)

Explain = Callable[[str, str], Awaitable[tuple[str, str]]]  # server, reason -> what a person reads, and the remedy


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes and times of the hub. A status outbox holds one entry a server, so its limit is a limit of servers.

    That of tasks holds one entry for each task of one run, and so needs none.
    """

    flush_interval_s: float = 0.2
    announce_interval_s: float = 5.0
    idle_interval_s: float = 10.0
    sample_frames: int = 64
    statuses: int = 20_000
    tasks_in_frame: int = 1_000
    notices: int = 32
    bus_messages: int = 8192
    reconnects_per_second: int = 500


@dataclass(frozen=True, slots=True)
class Interest:
    """What a browser asked for. `servers` is None for the whole fleet; `detailed` means every series of each."""

    servers: frozenset[str] | None
    detailed: bool
    rate_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Watching:
    """The run whose tasks a browser follows; of all its servers (None), or of those that the actor may see."""

    run_id: str
    servers: frozenset[str] | None

    def shows(self, state: TaskState) -> bool:
        return self.servers is None or state.server_id in self.servers


@dataclass(frozen=True, slots=True)
class Close:
    """The last thing in an outbox: close the connection with this code."""

    code: int
    reason: str


class Browser:
    """The outbox of one connection: filled by the hub, emptied by whoever owns the connection."""

    __slots__ = (
        "_close",
        "_dropped",
        "_limits",
        "_notices",
        "_ready",
        "_samples",
        "_statuses",
        "_tasks",
        "interest",
        "watching",
    )

    def __init__(self, limits: Limits) -> None:
        self.interest: Interest | None = None
        self.watching: Watching | None = None
        self._limits = limits
        self._ready = asyncio.Event()
        self._notices: deque[str] = deque()
        self._statuses: dict[str, str] = {}
        self._tasks: dict[str, TaskState] = {}
        self._samples: deque[str] = deque()
        self._dropped = 0
        self._close: Close | None = None

    def notice(self, frame: str) -> None:
        """Add a frame that must arrive; one that waits already is not added again."""
        if frame in self._notices:
            return
        if len(self._notices) >= self._limits.notices:
            self.close(Close(TRY_AGAIN_LATER, "this connection does not read"))
            return
        self._notices.append(frame)
        self._ready.set()

    def status(self, server_id: str, frame: str) -> None:
        """Add a server's newest state in place of an older one that still waits."""
        if len(self._statuses) >= self._limits.statuses and server_id not in self._statuses:
            self.close(Close(TRY_AGAIN_LATER, "too far behind, fetch the list again"))
            return
        self._statuses[server_id] = frame
        self._ready.set()

    def watch(self, watching: Watching | None) -> None:
        """Follow this run from now on; what still waits of another is of no interest any more."""
        if watching != self.watching:
            self._tasks.clear()
        self.watching = watching

    def tasks(self, states: Mapping[str, TaskState]) -> None:
        """Add the newest states of tasks of the watched run, each in place of an older one that still waits."""
        if self.watching is None or self._close:
            return
        self._tasks.update({task_id: state for task_id, state in states.items() if self.watching.shows(state)})
        self._ready.set()

    def samples(self, frame: str) -> None:
        """Add a frame of samples; the oldest gives way when the outbox is full."""
        if len(self._samples) >= self._limits.sample_frames:
            self._samples.popleft()
            self._dropped += 1
            metrics.live_frames_dropped.inc()
        self._samples.append(frame)
        self._ready.set()

    def close(self, close: Close) -> None:
        """End the connection once the notices before it have been sent; the first reason counts."""
        self._close = self._close or close
        self._statuses.clear()
        self._tasks.clear()
        self._samples.clear()
        self._ready.set()

    async def next(self) -> str | Close:
        """Wait for the next thing to send: notices first, then states, tasks and samples, `Close` last."""
        while True:
            if (item := self._pop()) is not None:
                return item
            self._ready.clear()
            await self._ready.wait()

    def _pop(self) -> str | Close | None:
        if self._notices:
            return self._notices.popleft()
        if self._close:
            return self._close
        if self._statuses:
            return self._statuses.pop(next(iter(self._statuses)))
        if self._tasks:
            return self._pop_tasks()
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            return messages.gap(dropped)
        return self._samples.popleft() if self._samples else None

    def _pop_tasks(self) -> str:
        # Encoded for each browser on its own: few look at the same run, and each may be behind by another amount.
        assert self.watching is not None
        first = list(islice(self._tasks, self._limits.tasks_in_frame))
        return messages.task(self.watching.run_id, [self._tasks.pop(task_id) for task_id in first])


class _Feed:
    """The browsers of one interest and the samples that wait for their next frame."""

    __slots__ = ("at", "browsers", "due_at", "interest", "pending")

    def __init__(self, interest: Interest) -> None:
        self.interest = interest
        self.browsers: set[Browser] = set()
        self.pending: dict[str, Mapping[str, float]] = {}
        self.at = 0.0
        self.due_at = 0.0

    def add(self, at: float, values: Mapping[str, Mapping[str, float]]) -> None:
        """Take what this feed shows of `values`; a newer sample of a server replaces one that still waits."""
        wanted = self.interest.servers
        if wanted is None:
            taken = values
        else:
            few, many = (wanted, values) if len(wanted) < len(values) else (values, wanted)
            taken = {server_id: values[server_id] for server_id in few if server_id in many}
        if taken:
            self.pending.update(taken)
            self.at = max(self.at, at)

    def frame(self, headline: Collection[str]) -> str:
        """Encode what waits, and forget it."""
        pending, self.pending = self.pending, {}
        if self.interest.detailed:
            return messages.samples(self.at, pending)
        rows = {server_id: messages.headline(values, headline) for server_id, values in pending.items()}
        return messages.samples(self.at, rows)


class Hub:
    """All browsers of this console. `run` does the work; the methods are called from the same event loop."""

    def __init__(
        self, bus: Bus, *, watcher: str, headline: Collection[str], explain: Explain, limits: Limits | None = None
    ) -> None:
        self._bus = bus
        self._watcher = watcher
        self._headline = tuple(headline)
        self._explain = explain
        self._limits = limits or Limits()
        self._browsers: set[Browser] = set()
        self._feeds: dict[Interest, _Feed] = {}
        self._everywhere: list[_Feed] = []
        self._by_server: dict[str, list[_Feed]] = {}
        self._by_run: dict[str, set[Browser]] = {}
        self._moved: dict[str, dict[str, TaskState]] = {}  # of watched runs, since the last flush
        self._waiting = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._announced = Watched(watcher, all_servers=False, detailed=frozenset())
        self._stopping = False

    async def run(self) -> None:
        """Carry messages from the bus to the browsers until cancelled."""
        queue_size = self._limits.bus_messages
        with (
            self._bus.subscribe(Subject.SAMPLES, Subject.STOPPING, queue_size=queue_size) as samples,
            self._bus.subscribe(Subject.STATUS, queue_size=queue_size) as states,
            self._bus.subscribe(Subject.TASKS, queue_size=queue_size) as moves,
        ):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._carry_samples(samples))
                tasks.create_task(self._carry_states(states))
                tasks.create_task(self._carry_tasks(moves))
                tasks.create_task(self._flush_for_ever())
                tasks.create_task(self._announce_for_ever())

    def join(self) -> Browser:
        """A new browser, subscribed to nothing."""
        browser = Browser(self._limits)
        self._browsers.add(browser)
        self._empty.clear()
        metrics.live_browsers.set(len(self._browsers))
        if self._stopping:
            self._send_away(browser)
        return browser

    def leave(self, browser: Browser) -> None:
        self._browsers.discard(browser)
        metrics.live_browsers.set(len(self._browsers))
        self.subscribe(browser, None)
        self.watch(browser, None)
        if not self._browsers:
            self._empty.set()

    def subscribe(self, browser: Browser, interest: Interest | None) -> None:
        """Show `interest` to the browser from now on, in place of what it saw before."""
        if browser.interest == interest:
            return
        self._unsubscribe(browser)
        browser.interest = interest
        if interest is not None:
            feed = self._feeds.get(interest) or self._open(interest)
            feed.browsers.add(browser)
        self._announce_when_changed()

    def watch(self, browser: Browser, watching: Watching | None) -> None:
        """Show how the tasks of a run move on from now on, in place of the run before."""
        if browser.watching is not None:
            run_id = browser.watching.run_id
            self._by_run[run_id].discard(browser)
            if not self._by_run[run_id]:
                del self._by_run[run_id]
        browser.watch(watching)
        if watching is not None:
            self._by_run.setdefault(watching.run_id, set()).add(browser)

    def stop(self) -> None:
        """Tell every browser to connect again, and close; those that come later are sent away as well."""
        self._stopping = True
        for browser in self._browsers:
            self._send_away(browser)

    async def emptied(self) -> None:
        """Wait until the last browser has left."""
        await self._empty.wait()

    def _send_away(self, browser: Browser) -> None:
        spread_s = max(1.0, len(self._browsers) / self._limits.reconnects_per_second)
        browser.notice(messages.reconnect(spread_s))
        browser.close(Close(SERVICE_RESTART, "the console is restarting"))

    def _open(self, interest: Interest) -> _Feed:
        feed = self._feeds[interest] = _Feed(interest)
        for feeds in self._indexes(interest):
            feeds.append(feed)
        return feed

    def _unsubscribe(self, browser: Browser) -> None:
        if browser.interest is None:
            return
        feed = self._feeds[browser.interest]
        feed.browsers.discard(browser)
        if feed.browsers:
            return
        del self._feeds[browser.interest]
        for feeds in self._indexes(browser.interest):
            feeds.remove(feed)
        for server_id in browser.interest.servers or ():
            if not self._by_server[server_id]:
                del self._by_server[server_id]

    def _indexes(self, interest: Interest) -> Iterable[list[_Feed]]:
        """The lists that hold the feeds of this interest: one a server, or the one of the whole fleet."""
        if interest.servers is None:
            return (self._everywhere,)
        return [self._by_server.setdefault(server_id, []) for server_id in interest.servers]

    async def _carry_samples(self, subscription: Subscription) -> None:
        async for message in subscription:
            if isinstance(message, SamplesTaken):
                self._take_samples(message)
            elif isinstance(message, Stopping):
                self.stop()

    async def _carry_states(self, subscription: Subscription) -> None:
        """Apart from the samples, because the words for a state are read from the database."""
        async for message in subscription:
            if isinstance(message, StatusChanged):
                await self._take_status(message)

    async def _carry_tasks(self, subscription: Subscription) -> None:
        async for message in subscription:
            if isinstance(message, TasksChanged):
                self._take_tasks(message)

    def _take_tasks(self, message: TasksChanged) -> None:
        for state in message.tasks:
            if state.run_id in self._by_run:
                self._moved.setdefault(state.run_id, {})[state.task_id] = state
        if self._moved:
            self._waiting.set()

    def _take_samples(self, message: SamplesTaken) -> None:
        if not self._feeds:
            return
        if len(message.values) > len(self._feeds):
            feeds: Iterable[_Feed] = self._feeds.values()
        else:
            feeds = self._feeds_of(message.values)
        for feed in feeds:
            feed.add(message.at, message.values)
        self._waiting.set()

    def _feeds_of(self, server_ids: Iterable[str]) -> set[_Feed]:
        found = set(self._everywhere)
        for server_id in server_ids:
            found.update(self._by_server.get(server_id, ()))
        return found

    async def _take_status(self, message: StatusChanged) -> None:
        if not self._feeds_of((message.server_id,)):
            return
        words = await self._words_for(message)
        frame = messages.status(message.server_id, message.status, message.reason, words, message.at)
        for feed in self._feeds_of((message.server_id,)):
            for browser in feed.browsers:
                browser.status(message.server_id, frame)

    async def _words_for(self, message: StatusChanged) -> tuple[str, str] | None:
        if message.reason is None:
            return None
        try:
            return await self._explain(message.server_id, message.reason)
        except Failure as error:
            # The server has just been removed, or the database rests: the state itself still matters.
            log.info("status_not_explained", server_id=message.server_id, code=error.code)
            return None

    async def _flush_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._waiting.wait()
            await asyncio.sleep(self._limits.flush_interval_s)
            self._waiting.clear()
            self.flush(loop.time())

    def flush(self, now_s: float) -> None:
        """Give every feed that is due its frame, and tasks to whom they belong. `now_s` is the event loop's clock."""
        moved, self._moved = self._moved, {}
        for run_id, states in moved.items():
            for browser in self._by_run.get(run_id, ()):
                browser.tasks(states)
        for feed in self._feeds.values():
            if not feed.pending:
                continue
            if feed.due_at > now_s:
                self._waiting.set()
                continue
            feed.due_at = now_s + self._pause_s(feed.interest)
            frame = feed.frame(self._headline)
            metrics.live_frames_encoded.inc()
            for browser in feed.browsers:
                browser.samples(frame)

    def _pause_s(self, interest: Interest) -> float:
        """How long a feed rests after a frame. A rate of 1 s follows the hosts' own ticks and needs no rest."""
        return interest.rate_s - self._limits.flush_interval_s if interest.rate_s > 1 else 0.0

    async def _announce_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._limits.announce_interval_s)
            if self._announced.all_servers or self._announced.detailed:
                self._bus.publish(Subject.WATCHED, self._announced)

    def _announce_when_changed(self) -> None:
        watched = self._watched()
        if watched != self._announced:
            self._announced = watched
            self._bus.publish(Subject.WATCHED, watched)

    def _watched(self) -> Watched:
        """What is on a screen that wants to see it faster than we collect it anyway."""
        looked_at = [one for one in self._feeds if one.rate_s < self._limits.idle_interval_s]
        detailed = [one.servers for one in looked_at if one.detailed and one.servers is not None]
        return Watched(
            self._watcher,
            all_servers=any(not one.detailed for one in looked_at),
            detailed=frozenset().union(*detailed),
        )
