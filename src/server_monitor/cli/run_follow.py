"""Sees a run through to its end: watches a console do it, or does the work where no console runs."""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Final

from server_monitor.bus.contract import Subject
from server_monitor.cli.interrupts import Interrupts
from server_monitor.cli.output import Workplace, say
from server_monitor.cli.run_screen import Screen, Task, Writer, show_stored
from server_monitor.errors import Conflict, Unavailable
from server_monitor.lifecycle.worker import Worker, outputs_of, somebody_works, work
from server_monitor.tasks import cancelling, listing
from server_monitor.tasks.frames import Piece
from server_monitor.tasks.output import STREAMS, Outputs
from server_monitor.tasks.run import OPEN, Status
from server_monitor.tasks.watching import watch

POLL_S: Final = 0.3
POLL_MANY_S: Final = 2.0
MANY: Final = 1_000
NOBODY_S: Final = 10.0  # a console that is started again is back by then


# Reads a stream of a task as it comes, from an offset on; nothing where the task does not run.
Read = Callable[[str, str, int], AsyncGenerator[Piece, None]]


@dataclass(slots=True)
class Shown:
    """How much of what a task prints has been shown."""

    name: str  # of its server
    writers: Mapping[str, Writer]
    bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STREAMS, 0))  # the place in each stream
    gaps: set[str] = field(default_factory=set)  # streams of which a part was left out
    stream: asyncio.Task[None] | None = None  # shows more of it now
    is_all: bool = False

    @property
    def is_streaming(self) -> bool:
        return self.stream is not None and not self.stream.done()

    def show(self, stream: str, piece: Piece) -> None:
        """Show what came next, and say how much is missing before it."""
        missing = piece.at - self.bytes[stream]
        if missing > 0:
            self.writers[stream].end()
            self.gaps.add(stream)
            say(f"{self.name}: {missing:,} bytes of {stream} are left out here: more came than is kept.")
        self.writers[stream].write(piece.data)
        self.bytes[stream] = piece.at + len(piece.data)


class Follower:
    """Follows one run. `is_left` says that the person did not want to wait for its end."""

    def __init__(self, place: Workplace, run_id: str, screen: Screen, interrupts: Interrupts) -> None:
        self.tasks: Sequence[Task] = ()
        self.is_left = False
        self._place = place
        self._run_id = run_id
        self._screen = screen
        self._interrupts = interrupts
        self._outputs = outputs_of(place.settings)
        self._shown: dict[str, Shown] = {}
        self._interrupted = False
        self._cancels = False
        self._news = asyncio.Event()
        self._wake_worker: Callable[[], None] = lambda: None  # where this command does the work

    @property
    def is_over(self) -> bool:
        return bool(self.tasks) and all(task.status not in OPEN for task in self.tasks)

    async def see_through(self) -> None:
        """Return when the run is over, when it waits for a second person, or when we are interrupted twice."""
        settings, db = self._place.settings, self._place.db
        with self._interrupts.heard_by(self._interrupt):
            while not await self._look():
                if await somebody_works(settings, db):
                    await self._watch()
                else:
                    with suppress(Conflict):  # A console, or another command like this one, was quicker.
                        await work(settings, db, self._work)

    async def _watch(self) -> None:
        """Until the run is over, or nobody works any more."""
        loop = asyncio.get_running_loop()
        nobody_since: float | None = None
        async with self._streaming(self._from_the_console) as look:
            while not await look():
                if await self._somebody_works():
                    nobody_since = None
                elif nobody_since is None:
                    nobody_since = loop.time()
                elif loop.time() - nobody_since > NOBODY_S:
                    return
                await self._pause()

    async def _somebody_works(self) -> bool:
        """While the database does not answer, nobody is said to be gone."""
        try:
            return await somebody_works(self._place.settings, self._place.db)
        except Unavailable:
            return True

    def _from_the_console(self, task_id: str, stream: str, offset: int) -> AsyncGenerator[Piece, None]:
        return watch(self._place.settings.data_dir, task_id, stream, offset)

    async def _work(self, worker: Worker) -> None:
        self._wake_worker = worker.wake
        with worker.bus.subscribe(Subject.TASKS, queue_size=1) as moves:
            async with asyncio.TaskGroup() as tasks:
                hearing = tasks.create_task(self._hear(moves))
                async with self._streaming(partial(_from_here, worker.outputs)) as look:
                    while not await look():
                        await self._pause()
                hearing.cancel()

    @asynccontextmanager
    async def _streaming(self, read: Read) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
        """A `_look` that also shows what running tasks print. At the end what was begun is shown, unless we leave."""
        async with asyncio.TaskGroup() as streams:

            async def look() -> bool:
                is_done = await self._look()
                if self._screen.is_live and not is_done:
                    self._stream_more(read, streams)
                return is_done

            yield look
            if self.is_left:
                for shown in self._shown.values():
                    if shown.stream is not None:
                        shown.stream.cancel()

    async def _hear(self, moves: AsyncIterable[object]) -> None:
        async for _ in moves:
            self._news.set()

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_MANY_S if len(self.tasks) > MANY else POLL_S):
                await self._news.wait()
        self._news.clear()

    async def _look(self) -> bool:
        """Learn what is new, and show what has ended. True when there is nothing more to wait for."""
        if self._cancels:
            await self._cancel()
        try:
            async with self._place.db.reading() as conn:
                self.tasks = await listing.tasks_of(conn, self._run_id, actor=self._place.actor)
            await self._show_rest()
        except Unavailable as error:
            say(f"{error} Trying again.")
            return False
        self._screen.moved(self.tasks)
        waits = any(task.status == Status.AWAITING_APPROVAL for task in self.tasks)
        return self.is_over or self.is_left or waits

    async def _show_rest(self) -> None:
        """Show what has not been seen of the tasks that are over and of which nothing more comes."""
        if not self._screen.is_live:
            return
        for task in self.tasks:
            shown = self._shown_of(task)
            if task.status not in OPEN and not shown.is_all and not shown.is_streaming:
                # Of a stream with a gap nobody knows any more how much of its end has been shown.
                rest = [stream for stream in STREAMS if stream not in shown.gaps]
                await show_stored(self._place, self._outputs, task, shown.writers, shown.bytes, streams=rest)
                shown.is_all = True

    def _stream_more(self, read: Read, streams: asyncio.TaskGroup) -> None:
        """Go on showing the tasks that run. Where none of it is to be had, the next look tries again."""
        for task in self.tasks:
            shown = self._shown_of(task)
            if task.status == Status.RUNNING and not shown.is_streaming:
                shown.stream = streams.create_task(_stream(read, task.id, shown))

    def _shown_of(self, task: Task) -> Shown:
        if task.id not in self._shown:
            self._shown[task.id] = Shown(task.server_name, self._screen.writers(task.server_name))
        return self._shown[task.id]

    def _interrupt(self) -> None:
        self.is_left = self._interrupted
        self._interrupted = self._cancels = True
        self._news.set()

    async def _cancel(self) -> None:
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
        self._wake_worker()


async def _stream(read: Read, task_id: str, shown: Shown) -> None:
    async def carry(stream: str) -> None:
        async with aclosing(read(task_id, stream, shown.bytes[stream])) as pieces:
            async for piece in pieces:
                shown.show(stream, piece)

    async with asyncio.TaskGroup() as both:
        for stream in STREAMS:
            both.create_task(carry(stream))


async def _from_here(outputs: Outputs, task_id: str, stream: str, offset: int) -> AsyncGenerator[Piece, None]:
    live = outputs.live(task_id)
    if live is not None:
        async with aclosing(live.read_on(stream, offset)) as pieces:
            async for piece in pieces:
                yield piece
