"""Rolling up keeps count, mean, minimum and maximum, in however many pieces."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from server_monitor.series import rollup
from server_monitor.series.blocks import Block, Effort, encode
from server_monitor.series.rollup import Rows
from server_monitor.series.tiers import Tier, select, to_rows, to_table

_NAMES = ("cpu_percent", "memory_used_bytes", "load1")
_VALUES = st.floats(0, 1e9) | st.just(np.nan)


@st.composite
def samples(draw: st.DrawFn) -> Rows:
    count = draw(st.integers(1, 60))
    at_ms = np.cumsum(draw(hnp.arrays(np.int64, count, elements=st.integers(1, 40_000))))
    return rollup.of_samples(at_ms, draw(hnp.arrays(np.float64, (count, 3), elements=_VALUES)))


def recomputed(rows: Rows, step_ms: int) -> dict[tuple[int, int], tuple[int, float, float, float]]:
    """The same without any of our code: for each step and series, count, mean, minimum and maximum."""
    found: dict[tuple[int, int], list[float]] = {}
    for at_ms, values in zip(rows.at_ms.tolist(), rows.mean.tolist(), strict=True):
        for series, value in enumerate(values):
            if not np.isnan(value):
                found.setdefault((at_ms // step_ms * step_ms, series), []).append(value)
    return {key: (len(v), float(np.mean(v)), min(v), max(v)) for key, v in found.items()}


def cells(rows: Rows) -> dict[tuple[int, int], tuple[int, float, float, float]]:
    return {
        (int(rows.at_ms[row]), int(series)): (
            int(rows.count[row, series]),
            float(rows.mean[row, series]),
            float(rows.low[row, series]),
            float(rows.high[row, series]),
        )
        for row, series in np.argwhere(rows.count > 0)
    }


def agree(one: dict, other: dict, *, within: float = 1e-9) -> bool:
    return one.keys() == other.keys() and all(
        np.allclose(one[key], other[key], rtol=within, atol=within) for key in one
    )


@given(samples(), st.sampled_from([1, 60_000, 3_600_000]))
def test_a_step_holds_what_happened_in_it(rows: Rows, step_ms: int) -> None:
    assert agree(cells(rollup.roll(rows, step_ms)), recomputed(rows, step_ms))


@given(samples(), st.integers(0, 60))
def test_pieces_of_a_step_join_without_loss(rows: Rows, cut: int) -> None:
    middle = int(rows.at_ms[min(cut, len(rows) - 1)])
    pieces = [rollup.between(rows, 0, middle), rollup.between(rows, middle, 2**60)]
    rolled = [rollup.roll(piece, 60_000) for piece in pieces]
    assert agree(cells(rollup.roll(rollup.join(rolled), 60_000)), recomputed(rows, 60_000))


@given(samples())
def test_hours_of_minutes_are_hours_of_samples(rows: Rows) -> None:
    minutes = rollup.roll(rows, 60_000)
    assert agree(cells(rollup.roll(minutes, 3_600_000)), recomputed(rows, 3_600_000))


@given(samples())
def test_a_rollup_survives_its_block(rows: Rows) -> None:
    """Up to the declared precision: means of percents to 0.01, of bytes to 0.1."""
    rolled = rollup.roll(rows, 60_000)
    block = Block(encode(to_table(Tier.MINUTE, _NAMES, rolled), Effort.SETTLED))
    back = to_rows(Tier.MINUTE, block.table(), _NAMES)
    assert np.array_equal(back.at_ms, rolled.at_ms)
    assert np.array_equal(back.count, rolled.count)
    for ours, theirs in ((back.mean, rolled.mean), (back.low, rolled.low), (back.high, rolled.high)):
        assert np.allclose(ours, theirs, rtol=0, atol=0.501, equal_nan=True)
        assert np.allclose(ours[:, [0, 2]], theirs[:, [0, 2]], rtol=1e-12, atol=0.00501, equal_nan=True)


@given(samples(), st.sampled_from([("load1", "cpu_percent"), ("memory_used_bytes",)]))
def test_some_series_of_a_rollup_are_those_of_the_whole(rows: Rows, wanted: tuple[str, ...]) -> None:
    block = Block(encode(to_table(Tier.MINUTE, _NAMES, rollup.roll(rows, 60_000)), Effort.LOOSE))
    whole = to_rows(Tier.MINUTE, block.table(), _NAMES)
    part = to_rows(Tier.MINUTE, select(Tier.MINUTE, block, _NAMES, wanted), wanted)
    places = [_NAMES.index(name) for name in wanted]
    for field in ("count", "mean", "low", "high"):
        assert np.array_equal(getattr(part, field), getattr(whole, field)[:, places], equal_nan=field != "count")


def test_of_repeated_instants_the_first_counts_and_gaps_are_filled() -> None:
    nan = np.nan
    rows = rollup.of_samples(np.array([5, 7, 7, 7, 9]), np.array([[1, 1], [2, nan], [3, 4], [5, 6], [7, 7]]))
    kept = rollup.first_of_each(rows)
    assert kept.at_ms.tolist() == [5, 7, 9]
    assert kept.mean.tolist() == [[1, 1], [2, 4], [7, 7]]


def test_what_is_known_is_left_out() -> None:
    nan = np.nan
    known = rollup.of_samples(np.array([5, 7]), np.array([[1, nan], [2, 2]]))
    late = rollup.of_samples(np.array([4, 5, 7]), np.array([[9.0, 9], [9, 9], [9, 9]]))
    left = rollup.without(late, known)
    assert left.at_ms.tolist() == [4, 5]
    assert np.array_equal(left.mean, [[9, 9], [nan, 9]], equal_nan=True)
