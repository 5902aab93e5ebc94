"""What the parts of the console tell each other, and what they may rely on.

A message is a hint. It is delivered at most once, may be dropped when a subscriber is slow, and is never the truth:
the database is. Lose every message and nothing is wrong, only late.
"""

from collections.abc import AsyncIterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Subject(StrEnum):
    """What a message is about. The type of each message stands beside its subject."""

    SAMPLES = "samples"  # SamplesTaken
    STATUS = "status"  # StatusChanged
    WATCHED = "watched"  # Watched
    CHANGED = "changed"  # Changed
    TASKS = "tasks"  # TasksChanged
    STOPPING = "stopping"  # Stopping


@dataclass(frozen=True, slots=True)
class SamplesTaken:
    """Values of some servers, `server id -> series name -> value`, taken at `at` (Unix seconds)."""

    at: float
    values: dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """A server came, went, or changed its reason for being away."""

    server_id: str
    status: str
    reason: str | None
    at: float


@dataclass(frozen=True, slots=True)
class Watched:
    """Somebody looks at these servers now. Repeated every 5 s while it holds, and void after 15 s of silence.

    `all_servers` means the whole fleet is on a screen; `detailed` are those whose own page is open.
    """

    watcher: str
    all_servers: bool
    detailed: frozenset[str]


@dataclass(frozen=True, slots=True)
class Changed:
    """Some state changed: the audit log has grown to `size` records. Whoever caches rows reads them again.

    `actions` are those of the new records, None where they are not known.
    """

    size: int
    actions: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class TaskState:
    """Where a task stands now."""

    task_id: str
    run_id: str
    server_id: str
    status: str
    cause: str | None
    exit_code: int | None


@dataclass(frozen=True, slots=True)
class TasksChanged:
    """Tasks have moved on; an empty list says that there are new ones to look for."""

    tasks: tuple[TaskState, ...]


@dataclass(frozen=True, slots=True)
class Stopping:
    """This console is about to stop; browsers are told to reconnect."""


Message = SamplesTaken | StatusChanged | Watched | Changed | TasksChanged | Stopping


class Subscription(AbstractContextManager["Subscription"], AsyncIterable[Message], Protocol):
    """Messages of the subscribed subjects, oldest first, until the context ends."""

    def __aiter__(self) -> "Subscription":
        """Itself: a subscription is read by one reader."""

    async def __anext__(self) -> Message:
        """The next message, when there is one."""


class Bus(Protocol):
    """Carries hints between the parts of one console or of several."""

    def publish(self, subject: Subject, message: Message) -> None:
        """Send without waiting. A subscriber whose queue is full loses its oldest message."""

    def subscribe(self, *subjects: Subject, queue_size: int) -> Subscription:
        """Receive from now on; nothing published earlier is seen."""
