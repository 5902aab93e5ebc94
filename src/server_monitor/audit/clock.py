"""Whether the wall clock can be believed: it decides which audit records are old enough to leave the database. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

STEP = timedelta(minutes=1)  # a smaller correction is what keeping time looks like
DOUBTED = timedelta(hours=1)  # a clock that has moved further decides nothing
CALM = timedelta(hours=24)  # a clock that has not moved for so long is taken for right


@dataclass(frozen=True, slots=True)
class Step:
    """The wall clock jumped by `moved`, and showed `at` afterwards."""

    at: datetime
    moved: timedelta


class Watch:
    """Holds the wall clock against one that only ever runs forward.

    `ran_s` counts seconds since any moment, and goes on while the machine sleeps.
    """

    def __init__(self) -> None:
        self._offset_s: float | None = None

    def look(self, wall: datetime, ran_s: float) -> Step | None:
        """The step since the last look, if there was one."""
        offset_s = wall.timestamp() - ran_s
        moved = timedelta(seconds=offset_s - (self._offset_s if self._offset_s is not None else offset_s))
        if abs(moved) <= STEP and self._offset_s is not None:
            return None  # Slow corrections add up, so what they are measured against stays.
        self._offset_s = offset_s
        return Step(wall, moved) if abs(moved) > STEP else None


def is_doubtful(steps: Sequence[Step], now: datetime) -> bool:
    """Is the clock far from where it would be without these steps, newest first?

    A step and its correction cancel each other out; what has stood for a day is believed.
    """
    moved, since = timedelta(), now
    for step in steps:
        if since - step.at >= CALM:
            break
        moved += step.moved
        since = step.at - step.moved
    return abs(moved) > DOUBTED
