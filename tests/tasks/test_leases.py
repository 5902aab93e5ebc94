"""Consoles whose clocks say what they like."""

from datetime import UTC, datetime, timedelta

from server_monitor.tasks.leases import BEATS, Leases

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def test_a_console_is_dead_once_it_was_silent_for_three_of_our_beats_and_not_before() -> None:
    leases = Leases()
    leases.look({"other": NOW})

    said = [leases.look({"other": NOW}) for _ in range(BEATS + 2)]

    assert said == [set(), set(), {"other"}, set(), set()]
    assert leases.dead == {"other"}


def test_a_clock_that_is_wrong_or_jumps_is_no_sign_of_death() -> None:
    leases = Leases()
    for year in (1990, 2090, 1990, 2026, 2025, 2024, 2026):
        leases.look({"other": NOW.replace(year=year)})

    assert leases.dead == set()


def test_whoever_beats_again_lives() -> None:
    leases = Leases()
    for _ in range(BEATS + 1):
        leases.look({"other": NOW})
    leases.look({"other": NOW + timedelta(seconds=1)})

    assert leases.dead == set()


def test_whoever_was_never_seen_to_be_silent_is_not_dead_at_our_start() -> None:
    assert Leases().look({"other": NOW - timedelta(days=365)}) == set()


def test_whoever_is_forgotten_is_not_dead_any_more() -> None:
    leases = Leases()
    for _ in range(BEATS + 1):
        leases.look({"other": NOW})
    leases.look({})

    assert leases.dead == set()
