"""Keeps a thousand small steps from holding up everybody else."""

import asyncio
from collections import deque


class Turnstile:
    """Lets `at_once` callers pass in one turn of the event loop; what has arrived is read between two turns."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._left = at_once
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_turning = False

    async def passed(self) -> None:
        """Wait for one's turn: not at all as long as few come."""
        self._turn_soon()
        if self._left > 0:
            self._left -= 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def _turn_soon(self) -> None:
        if not self._is_turning:
            self._is_turning = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._is_turning = False
        self._left = self._at_once
        while self._left > 0 and self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():  # Whoever waited may have been told to stop.
                waiter.set_result(None)
                self._left -= 1
        if self._waiting:
            self._turn_soon()
