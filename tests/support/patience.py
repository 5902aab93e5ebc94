"""How long a test waits for what must happen: a bound for what hangs, and no measure of how fast anything is."""

import asyncio
from collections.abc import Callable
from pathlib import Path

PATIENCE_S = 180.0


async def until(happened: Callable[[], object]) -> None:
    """Wait for something that happens in another process, which tells us nothing."""
    async with asyncio.timeout(PATIENCE_S):
        while not happened():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def is_written(path: Path) -> bool:
    """Whether a shell has put something into this file: it makes an empty one first."""
    return path.exists() and path.stat().st_size > 0
