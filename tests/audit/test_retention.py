"""What may leave the database when: decided from rows and a clock that can be believed."""

from datetime import UTC, datetime, timedelta

import pytest

from server_monitor.audit.retention import (
    Closed,
    Held,
    Obstacle,
    Policy,
    State,
    Verdict,
    may_prune,
    next_deletion,
    old_enough,
)

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
OLD = Closed(0, 100, State.VERIFIED, NOW - 100 * DAY)
YOUNG = Closed(100, 200, State.VERIFIED, NOW - 80 * DAY)
POLICY = Policy(90)


def test_a_clock_that_moved_deletes_nothing() -> None:
    doubtful = Policy(90, is_clock_doubtful=True)

    assert may_prune([OLD, YOUNG], [], POLICY, NOW) == Verdict([OLD], Obstacle.YOUNG)
    assert may_prune([OLD, YOUNG], [], doubtful, NOW) == Verdict([], Obstacle.CLOCK)
    assert may_prune([YOUNG], [], doubtful, NOW) == Verdict([], Obstacle.YOUNG)


def test_only_what_is_old_enough_is_searched_for_holds() -> None:
    assert old_enough([OLD, YOUNG], POLICY, NOW) == [OLD]
    assert old_enough([OLD, YOUNG], Policy(0), NOW) == []
    assert old_enough([OLD, YOUNG], Policy(90, is_on=False), NOW) == []


@pytest.mark.parametrize(
    ("newest_at", "next_run_at", "expected"),
    [
        (NOW - 100 * DAY, NOW + DAY / 2, NOW + DAY / 2),  # due: with the next run, and not in the past
        (NOW - 90 * DAY + DAY / 2, NOW + DAY / 2, NOW + DAY / 2),
        (NOW - 89 * DAY, NOW + DAY / 2, NOW + DAY * 3 / 2),  # old enough between two runs
        (NOW - 80 * DAY, NOW, NOW + 10 * DAY),
        (NOW - 80 * DAY, None, NOW + 10 * DAY),
    ],
)
def test_the_next_deletion_is_the_run_that_deletes(
    newest_at: datetime, next_run_at: datetime | None, expected: datetime
) -> None:
    segment = Closed(0, 100, State.VERIFIED, newest_at)
    verdict = may_prune([segment], [], POLICY, NOW)

    assert next_deletion(segment, verdict, POLICY, next_run_at, DAY) == expected


def test_no_deletion_is_announced_that_something_prevents() -> None:
    held = may_prune([OLD], [Held("case 7", 3)], POLICY, NOW)

    assert held.obstacle is Obstacle.HELD
    assert next_deletion(OLD, held, POLICY, NOW + DAY, DAY) is None
    assert next_deletion(None, Verdict([]), POLICY, NOW + DAY, DAY) is None
    assert next_deletion(OLD, may_prune([OLD], [], Policy(0), NOW), Policy(0), NOW + DAY, DAY) is None
