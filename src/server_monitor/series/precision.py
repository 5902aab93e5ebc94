"""How exactly history keeps a value: the one place where precision is declared.

A value becomes a whole number before it is stored: `round(value * 10**decimals)`, with the decimals of its unit. That
is finer than any screen shows and several times smaller than a float. A series with a unit that is not listed here, or
that is not in the catalogue, is kept bit for bit.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from server_monitor.series.blocks import Ints, Mask
from server_monitor.series.sample import METRICS, split_series

Values = NDArray[np.float64]

# Decimals kept, by unit.
DECIMALS: Mapping[str, int] = {
    "%": 2,
    "B": 0,
    "B/s": 0,
    "1/s": 1,
    "ms": 2,
    "s": 0,
    "°C": 1,
    "processes": 2,  # Load averages are in it too.
    "threads": 0,
    "files": 0,
}
# A whole number this large no longer fits beside its neighbours' differences; nothing real comes near it.
LARGEST = float(1 << 60)
# A mean of whole things is worth a fraction: 2.5 threads running.
_MEAN_DECIMALS_AT_LEAST = 1
_BIT_FOR_BIT = 0.0


def decimals(series: str) -> int | None:
    """Decimals kept of a series; None when it is kept bit for bit."""
    metric = METRICS.get(split_series(series)[0])
    return None if metric is None else DECIMALS.get(metric.unit)


@lru_cache(maxsize=4096)
def factors(names: tuple[str, ...]) -> Values:
    """What the values of these series are multiplied by to become whole; 0 for one that is kept bit for bit."""
    return np.array([_factor(decimals(name), 0) for name in names])


@lru_cache(maxsize=256)
def mean_factors(names: tuple[str, ...]) -> Values:
    """The same for means of these series."""
    return np.array([_factor(decimals(name), _MEAN_DECIMALS_AT_LEAST) for name in names])


def _factor(kept: int | None, at_least: int) -> float:
    return _BIT_FOR_BIT if kept is None else 10.0 ** max(kept, at_least)


def to_numbers(values: Values, by: Values) -> tuple[Ints, Mask | None]:
    """Whole numbers, and which cells hold one, None when all do: NaN, infinity and the absurdly large do not."""
    exact = by == _BIT_FOR_BIT
    scaled = values * by
    present = np.isfinite(scaled) & (np.abs(scaled) < LARGEST)
    complete = bool(present.all())
    numbers = np.rint(scaled if complete else np.where(present, scaled, 0.0)).astype(np.int64)
    if exact.any():
        numbers = np.where(exact & present, np.ascontiguousarray(values).view(np.int64), numbers)
    return numbers, None if complete else present


def to_values(numbers: Ints, present: Mask | None, by: Values) -> Values:
    """The values again, NaN where there is none."""
    exact = by == _BIT_FOR_BIT
    values = numbers / np.where(exact, 1.0, by)
    if exact.any():
        values = np.where(exact, np.ascontiguousarray(numbers).view(np.float64), values)
    return values if present is None else np.where(present, values, np.nan)
