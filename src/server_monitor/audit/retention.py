"""When a segment of the audit log may leave the database. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class State(StrEnum):
    """How far a segment has come; it never goes back past `verified`."""

    SEALED = "sealed"  # its bytes are decided
    UPLOADED = "uploaded"  # they are in the archive
    VERIFIED = "verified"  # they were read back, and have the root that was signed
    PRUNED = "pruned"  # its records are only there


class Obstacle(StrEnum):
    """Why nothing more may be pruned."""

    FOR_EVER = "kept_for_ever"
    OFF = "cleanup_is_off"
    YOUNG = "too_young"
    UNVERIFIED = "not_verified"
    HELD = "held"
    HOLD_CHANGED = "hold_changed"
    UNANCHORED = "not_anchored"
    CLOCK = "clock_moved"


@dataclass(frozen=True, slots=True)
class Closed:
    """A segment: the records [first_seq, end_seq), the newest of them from `newest_at`."""

    first_seq: int
    end_seq: int
    state: State
    newest_at: datetime


@dataclass(frozen=True, slots=True)
class Held:
    """A hold, and the first record in the database that it covers; None when it covers none."""

    name: str
    first_seq: int | None


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator chose, and what is known of the clock that says how old a segment is.

    `anchored_size` is None when nothing demands that checkpoints have left the house. `changed_hold` names a hold that
    the log states and the database has not any more.
    """

    retention_days: int
    is_on: bool = True
    anchored_size: int | None = None
    is_clock_doubtful: bool = False
    changed_hold: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Segments that may go, oldest first, and what stops the next one; `hold` names the hold that does."""

    prunable: Sequence[Closed]
    obstacle: Obstacle | None = None
    hold: str | None = None


def may_prune(segments: Sequence[Closed], holds: Sequence[Held], policy: Policy, now: datetime) -> Verdict:
    """Which of these may be pruned, given in order: the first obstacle stops all after it."""
    prunable: list[Closed] = []
    for segment in segments:
        if segment.state is State.PRUNED:
            continue
        obstacle, hold = _obstacle(segment, holds, policy, now)
        if obstacle is not None:
            return Verdict(prunable, obstacle, hold)
        prunable.append(segment)
    return Verdict(prunable)


def deletable_at(segment: Closed, policy: Policy) -> datetime | None:
    """When the segment is old enough; None when it is kept for ever."""
    if policy.retention_days == 0 or not policy.is_on:
        return None
    return segment.newest_at + timedelta(days=policy.retention_days)


def old_enough(segments: Sequence[Closed], policy: Policy, now: datetime) -> Sequence[Closed]:
    """Those of the segments that nothing but a hold, the archive or an anchor may keep."""
    return [segment for segment in segments if (at := deletable_at(segment, policy)) is not None and at <= now]


def next_deletion(
    segment: Closed | None, verdict: Verdict, policy: Policy, next_run_at: datetime | None, every: timedelta
) -> datetime | None:
    """The run that will delete the segment, the first that is kept; None when nothing says that one will.

    Without a next run (one is under way, or none is planned) it is when the segment is old enough.
    """
    at = deletable_at(segment, policy) if segment is not None else None
    if at is None or verdict.obstacle not in {None, Obstacle.YOUNG}:
        return None
    if next_run_at is None or at <= next_run_at:
        return next_run_at or at
    return next_run_at + every * -(-(at - next_run_at) // every)


def _obstacle(
    segment: Closed, holds: Sequence[Held], policy: Policy, now: datetime
) -> tuple[Obstacle | None, str | None]:
    obstacle = _age_obstacle(segment, policy, now)
    if obstacle is not None:
        return obstacle, None
    if segment.state is not State.VERIFIED:
        return Obstacle.UNVERIFIED, None
    if policy.changed_hold is not None:
        return Obstacle.HOLD_CHANGED, policy.changed_hold
    holding = next((hold for hold in holds if hold.first_seq is not None and hold.first_seq < segment.end_seq), None)
    if holding is not None:
        return Obstacle.HELD, holding.name
    if policy.anchored_size is not None and policy.anchored_size < segment.end_seq:
        return Obstacle.UNANCHORED, None
    return None, None


def _age_obstacle(segment: Closed, policy: Policy, now: datetime) -> Obstacle | None:
    at = deletable_at(segment, policy)
    if at is None:
        return Obstacle.OFF if policy.retention_days else Obstacle.FOR_EVER
    if now < at:
        return Obstacle.YOUNG
    return Obstacle.CLOCK if policy.is_clock_doubtful else None
