"""Work that a task cannot do without, while the database takes nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from server_monitor.errors import Unavailable
from server_monitor.telemetry.logs import logger

log = logger(__name__)

RETRY_S: Final = 1.0

Done = TypeVar("Done")


async def insist(work: Callable[[], Awaitable[Done]]) -> Done:
    """Do it, again and again until the database is there."""
    while True:
        try:
            return await work()
        except Unavailable as error:
            log.warning("task_waits_for_the_database", cause=str(error))
            await asyncio.sleep(RETRY_S)
