"""Sees a run through to its end: watches a console do it, or does the work where no console runs."""

import asyncio
import signal
from collections.abc import AsyncIterable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Final

from server_monitor.bus.contract import Subject
from server_monitor.cli.output import Workplace, say
from server_monitor.cli.run_screen import Screen, Task, show_stored
from server_monitor.errors import Conflict, Unavailable
from server_monitor.lifecycle.worker import Worker, outputs_of, somebody_works, work
from server_monitor.tasks import cancelling, listing
from server_monitor.tasks.output import STREAMS, LiveOutput
from server_monitor.tasks.run import OPEN, Status

POLL_S: Final = 0.3
POLL_MANY_S: Final = 2.0
MANY: Final = 1_000
NOBODY_S: Final = 10.0  # a console that is started again is back by then


class Follower:
    """Follows one run. `is_left` says that the person did not want to wait for its end."""

    def __init__(self, place: Workplace, run_id: str, screen: Screen) -> None:
        self.tasks: Sequence[Task] = ()
        self.is_left = False
        self._place = place
        self._run_id = run_id
        self._screen = screen
        self._outputs = outputs_of(place.settings)
        self._shown: set[str] = set()  # tasks whose output has been shown, or is being shown
        self._streams: list[asyncio.Task[None]] = []
        self._interrupted = False
        self._cancels = False
        self._news = asyncio.Event()

    @property
    def is_over(self) -> bool:
        return bool(self.tasks) and all(task.status not in OPEN for task in self.tasks)

    async def see_through(self) -> None:
        """Return when the run is over, when it waits for a second person, or when we are interrupted twice."""
        settings, db = self._place.settings, self._place.db
        with _on_interrupt(self._interrupt):
            while not await self._look(None, None):
                if await somebody_works(settings, db):
                    await self._watch()
                else:
                    with suppress(Conflict):  # A console, or another command like this one, was quicker.
                        await work(settings, db, self._work)

    async def _watch(self) -> None:
        """Until the run is over, or nobody works any more."""
        loop = asyncio.get_running_loop()
        nobody_since: float | None = None
        while not await self._look(None, None):
            if await somebody_works(self._place.settings, self._place.db):
                nobody_since = None
            elif nobody_since is None:
                nobody_since = loop.time()
            elif loop.time() - nobody_since > NOBODY_S:
                return
            await self._pause()

    async def _work(self, worker: Worker) -> None:
        with worker.bus.subscribe(Subject.TASKS, queue_size=1) as moves:
            async with asyncio.TaskGroup() as tasks:
                hearing = tasks.create_task(self._hear(moves))
                async with asyncio.TaskGroup() as streams:
                    while not await self._look(worker, streams):
                        await self._pause()
                    if self.is_left:
                        for stream in self._streams:
                            stream.cancel()
                hearing.cancel()

    async def _hear(self, moves: AsyncIterable[object]) -> None:
        async for _ in moves:
            self._news.set()

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_MANY_S if len(self.tasks) > MANY else POLL_S):
                await self._news.wait()
        self._news.clear()

    async def _look(self, worker: Worker | None, streams: asyncio.TaskGroup | None) -> bool:
        """Show what is new. True when there is nothing more to wait for."""
        if self._cancels:
            await self._cancel(worker)
        try:
            async with self._place.db.reading() as conn:
                self.tasks = await listing.tasks_of(conn, self._run_id, actor=self._place.actor)
        except Unavailable as error:
            say(f"{error} Trying again.")
            return False
        if self._screen.is_live:
            await self._show(worker, streams)
        self._screen.moved(self.tasks)
        waits = any(task.status == Status.AWAITING_APPROVAL for task in self.tasks)
        return self.is_over or self.is_left or waits

    async def _show(self, worker: Worker | None, streams: asyncio.TaskGroup | None) -> None:
        for task in self.tasks:
            if task.id in self._shown:
                continue
            live = worker.outputs.live(task.id) if worker is not None else None
            if live is not None and streams is not None:
                self._shown.add(task.id)
                self._streams.append(streams.create_task(self._stream(task, live)))
            elif task.status not in OPEN:
                self._shown.add(task.id)
                await show_stored(self._place, self._outputs, task, self._screen.writers(task.server_name))

    async def _stream(self, task: Task, live: LiveOutput) -> None:
        writers = self._screen.writers(task.server_name)

        async def carry(stream: str) -> None:
            async for data in live.read_on(stream, 0):
                writers[stream].write(data)
            writers[stream].end()

        async with asyncio.TaskGroup() as both:
            for stream in STREAMS:
                both.create_task(carry(stream))

    def _interrupt(self) -> None:
        self.is_left = self._interrupted
        self._interrupted = self._cancels = True
        self._news.set()

    async def _cancel(self, worker: Worker | None) -> None:
        """Ask for the end of the run, once; what has begun is over when its host confirms it."""
        self._cancels = False
        if self.is_left:
            say(f"Left it to itself. See what becomes of it: server-monitor runs follow {self._run_id}")
            return
        say("Ending it on every server. Interrupt once more to leave it to itself.")
        try:
            async with self._place.db.transaction() as conn:
                await cancelling.cancel_run(conn, self._run_id, actor=self._place.actor, now=datetime.now(UTC))
        except Conflict:
            return  # It was over meanwhile.
        except Unavailable as error:
            say(f"{error} Interrupt again to try again.")
            self._interrupted = False
        if worker is not None:
            worker.wake()


@contextmanager
def _on_interrupt(act: Callable[[], None]) -> Iterator[None]:
    """Ctrl+C does this instead of ending the program."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, act)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
