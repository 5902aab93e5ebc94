"""What a session can be in, how large its terminal may be, and for every cause of its end a sentence. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

COLS_MAX: Final = 1_000
ROWS_MAX: Final = 500


class Status(StrEnum):
    ACTIVE = "active"
    CLOSED = "closed"
    INTERRUPTED = "interrupted"
    TIMEOUT = "timeout"
    STOPPED = "stopped"


class Kept(StrEnum):
    """What can be said of the file of a recording."""

    OPEN = "open"
    UNVERIFIED = "unverified"
    VERIFIED = "verified"
    DAMAGED = "damaged"
    MISSING = "missing"
    ARCHIVED = "archived"


class Purpose(StrEnum):
    """What a ticket is for."""

    ATTACH = "attach"  # to type: the person who opened the session
    WATCH = "watch"  # to look on


@dataclass(frozen=True, slots=True)
class Size:
    """Of a terminal, in characters."""

    cols: int
    rows: int

    @property
    def is_possible(self) -> bool:
        return 0 < self.cols <= COLS_MAX and 0 < self.rows <= ROWS_MAX


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a session ends. The cause is a code of `CAUSES` or of `fleet/reasons.py`; `detail` are the plain facts."""

    status: Status
    cause: str
    exit_status: int | None = None
    detail: str | None = None


CAUSES: Mapping[str, str] = MappingProxyType(
    {
        "exited": "The shell ended.",
        "closed": "Whoever opened it closed it.",
        "not_opened": "Nobody used the ticket in time, so no shell was opened.",
        "idle": "Nobody typed for the time that is set.",
        "max_time": "It reached the longest time that is set for a session.",
        "stopped": "Somebody who may do so stopped it.",
        "logged_out": "The login or the token that it was opened with has ended.",
        "not_permitted": "Whoever opened it may not open terminals on this server any more.",
        "server_unfit": "The server was removed, switched off, changed, or is not at capability terminal any more.",
        "browser_gone": "The browser went away and did not come back in time.",
        "connection_lost": "The connection to the server was lost.",
        "not_recorded": "It could not be recorded any more, and what is not recorded does not run.",
        "console_stopped": "The console was stopped.",
        "console_died": "The console died.",
    }
)
