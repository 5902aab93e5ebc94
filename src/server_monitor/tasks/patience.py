"""Whoever asked for a run may wait for its end, instead of asking for it again and again."""

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Final

from server_monitor.auth.actor import Actor
from server_monitor.bus.contract import Bus, Message, Stopping, Subject, Subscription, TasksChanged
from server_monitor.db.engine import Database
from server_monitor.tasks.rows import get_run
from server_monitor.tasks.run import OPEN, Status

WAITING_MAX: Final = 200  # at once; whoever comes after them does not wait
WAITING_EACH: Final = 20  # of them for one person: whoever leaves keeps their place until their time is up
LOOK_AGAIN_S: Final = 1.0  # a hint may be lost
NEWS_SIZE: Final = 64


class Patience:
    """Lets so many wait at once, and of each person a few."""

    def __init__(self, db: Database, bus: Bus, waiting_max: int = WAITING_MAX) -> None:
        self._db = db
        self._bus = bus
        self._waiting_max = waiting_max
        self._waiting = Counter[str]()  # by the ids of those who wait

    async def until_over(self, run_id: str, within_s: float, *, actor: Actor) -> None:
        """Return when the run is over, at the latest after so many seconds, and before when the console stops.

        Raises NotFound.
        """
        who = str(actor.id)
        if self._waiting.total() >= self._waiting_max or self._waiting[who] >= WAITING_EACH:
            return
        self._waiting[who] += 1
        try:
            with self._bus.subscribe(Subject.TASKS, Subject.STOPPING, queue_size=NEWS_SIZE) as news:
                await self._watched(news, run_id, within_s, actor)
        finally:
            self._waiting[who] -= 1
            self._waiting += Counter()  # forgets who waits no more

    async def _watched(self, news: Subscription, run_id: str, within_s: float, actor: Actor) -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + within_s
        while not await self._is_over(run_id, actor):
            left_s = until_s - loop.time()
            if left_s <= 0 or not await _may_be_over(news, run_id, min(left_s, LOOK_AGAIN_S)):
                return

    async def _is_over(self, run_id: str, actor: Actor) -> bool:
        async with self._db.reading() as conn:
            return (await get_run(conn, run_id, actor=actor)).finished_at is not None


async def _may_be_over(news: Subscription, run_id: str, within_s: float) -> bool:
    """Wait until a task of the run has ended, or for so long; False when the console stops."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            async for message in news:
                if isinstance(message, Stopping):
                    return False
                if _ends_one_of(run_id, message):
                    break
    return True


def _ends_one_of(run_id: str, message: Message) -> bool:
    return isinstance(message, TasksChanged) and any(
        task.run_id == run_id and Status(task.status) not in OPEN for task in message.tasks
    )
