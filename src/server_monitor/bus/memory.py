"""The bus inside one process: a bounded queue for each subscriber."""

import asyncio
from collections import deque
from types import TracebackType

from server_monitor.bus.contract import Message, Subject
from server_monitor.telemetry import metrics


class MemoryBus:
    """Delivers in order to everyone who listens; a slow listener loses its oldest messages, nobody waits."""

    def __init__(self) -> None:
        self._listeners: dict[Subject, list[MemorySubscription]] = {subject: [] for subject in Subject}

    def publish(self, subject: Subject, message: Message) -> None:
        for listener in self._listeners[subject]:
            listener.put(message)

    def subscribe(self, *subjects: Subject, queue_size: int) -> "MemorySubscription":
        return MemorySubscription([self._listeners[subject] for subject in subjects], queue_size)


class MemorySubscription:
    """Receives from the moment it is made until its context ends."""

    def __init__(self, listeners: "list[list[MemorySubscription]]", queue_size: int) -> None:
        self._joined = listeners
        self._queue: deque[Message] = deque(maxlen=queue_size)
        self._arrived = asyncio.Event()
        for joined in listeners:
            joined.append(self)

    def put(self, message: Message) -> None:
        if len(self._queue) == self._queue.maxlen:
            metrics.bus_dropped.inc()
        self._queue.append(message)
        self._arrived.set()

    def __enter__(self) -> "MemorySubscription":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for joined in self._joined:
            joined.remove(self)

    def __aiter__(self) -> "MemorySubscription":
        return self

    async def __anext__(self) -> Message:
        while not self._queue:
            self._arrived.clear()
            await self._arrived.wait()
        return self._queue.popleft()
