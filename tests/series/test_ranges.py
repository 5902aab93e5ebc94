"""A chart never gets more points than asked for, and comes from the tier that suits its span."""

from hypothesis import given
from hypothesis import strategies as st

from server_monitor.series.ranges import choose
from server_monitor.series.tiers import STEP_MS, Tier, Tiers

_NOW_MS = 1_700_000_000_000
_HOUR_MS = 3_600_000


def test_short_spans_show_samples_and_long_ones_hours() -> None:
    def chosen(hours: float) -> tuple[Tier, int]:
        choice = choose(_NOW_MS - round(hours * _HOUR_MS), _NOW_MS, 300, Tiers(), _NOW_MS)
        return choice.tier, choice.step_s

    assert chosen(0.05) == (Tier.RAW, 1)
    assert chosen(1) == (Tier.RAW, 15)
    assert chosen(24) == (Tier.MINUTE, 300)
    assert chosen(24 * 30) == (Tier.HOUR, 10_800)
    assert chosen(24 * 365) == (Tier.HOUR, 2 * 86_400)


def test_a_short_span_long_ago_comes_from_the_tier_that_still_has_it() -> None:
    start_ms = _NOW_MS - 10 * 24 * _HOUR_MS
    assert choose(start_ms, start_ms + _HOUR_MS, 300, Tiers(), _NOW_MS).tier is Tier.MINUTE
    assert choose(start_ms, start_ms + _HOUR_MS, 300, Tiers(minute_days=3), _NOW_MS).tier is Tier.HOUR


@given(st.integers(0, 7 * 10**12), st.integers(1, 10**13), st.integers(1, 10_000))
def test_there_are_never_more_steps_than_points(start_ms: int, span_ms: int, points: int) -> None:
    end_ms = start_ms + span_ms
    choice = choose(start_ms, end_ms, points, Tiers(), _NOW_MS)
    step_ms = choice.step_s * 1000
    assert (end_ms - 1) // step_ms - start_ms // step_ms + 1 <= points
    assert step_ms % max(STEP_MS[choice.tier], 1000) == 0
