"""Shrinks rows of values to a coarser step, keeping count, mean, minimum and maximum of each series.

Rows of two pieces of the same bucket join without loss, so a bucket may be rolled up in as many pieces as it arrives
in, as long as each value is in one of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server_monitor.series.blocks import Ints
from server_monitor.series.precision import Values


@dataclass(frozen=True, slots=True)
class Rows:
    """What happened to some series from each instant on, ordered by time: arrays of one row an instant.

    Where `count` is 0 the other three are NaN.
    """

    at_ms: Ints
    count: Ints
    mean: Values
    low: Values
    high: Values

    def __len__(self) -> int:
        return len(self.at_ms)


def of_samples(at_ms: Ints, values: Values) -> Rows:
    """Samples as rows of one value each; NaN is no value."""
    return Rows(at_ms, (~np.isnan(values)).astype(np.int64), values, values, values)


def empty(series: int) -> Rows:
    nothing = np.empty((0, series))
    return Rows(np.empty(0, np.int64), np.empty((0, series), np.int64), nothing, nothing, nothing)


def join(parts: Sequence[Rows]) -> Rows:
    """All rows in the order of time; equal instants stay apart."""
    if len(parts) == 1:
        return parts[0]
    at_ms = np.concatenate([part.at_ms for part in parts])
    order = np.argsort(at_ms, kind="stable")

    def ordered(arrays: list[Values]) -> Values:
        return np.concatenate(arrays)[order]

    mean = ordered([part.mean for part in parts])
    count = np.concatenate([part.count for part in parts])[order]
    if all(part.low is part.mean and part.high is part.mean for part in parts):
        return Rows(at_ms[order], count, mean, mean, mean)
    return Rows(
        at_ms[order], count, mean, ordered([part.low for part in parts]), ordered([part.high for part in parts])
    )


def in_order(rows: Rows) -> Rows:
    """The same rows, ordered by time."""
    if bool((np.diff(rows.at_ms) >= 0).all()):
        return rows
    order = np.argsort(rows.at_ms, kind="stable")
    mean = rows.mean[order]
    is_plain = rows.low is rows.mean and rows.high is rows.mean
    low, high = (mean, mean) if is_plain else (rows.low[order], rows.high[order])
    return Rows(rows.at_ms[order], rows.count[order], mean, low, high)


def widen(rows: Rows, names: tuple[str, ...], wanted: tuple[str, ...]) -> Rows:
    """The rows with the series `wanted`, in that order; one they do not have is missing in each."""
    if names == wanted:
        return rows
    place = {name: index for index, name in enumerate(names)}
    source = np.array([place.get(name, len(names)) for name in wanted], np.intp)

    def chosen(array: NDArray[Any], missing: float) -> NDArray[Any]:
        filler = np.full((len(array), 1), missing, array.dtype)
        return np.hstack((array, filler))[:, source]

    mean = chosen(rows.mean, np.nan)
    if rows.low is rows.mean and rows.high is rows.mean:
        return Rows(rows.at_ms, chosen(rows.count, 0), mean, mean, mean)
    return Rows(rows.at_ms, chosen(rows.count, 0), mean, chosen(rows.low, np.nan), chosen(rows.high, np.nan))


def first_of_each(samples: Rows) -> Rows:
    """Samples without repeated instants: where two give the same series, the earlier in order counts."""
    at_ms = samples.at_ms
    repeats = np.flatnonzero(np.diff(at_ms) == 0) + 1
    if not len(repeats):
        return samples
    values = samples.mean.copy()
    for row in repeats[::-1]:
        values[row - 1] = np.where(np.isnan(values[row - 1]), values[row], values[row - 1])
    kept = np.delete(values, repeats, axis=0)
    return of_samples(np.delete(at_ms, repeats), kept)


def without(samples: Rows, known: Rows) -> Rows:
    """Samples less what `known` has at the same instants. Both are free of repeated instants."""
    if not len(known) or not len(samples):
        return samples
    places = np.minimum(np.searchsorted(known.at_ms, samples.at_ms), len(known) - 1)
    same = known.at_ms[places] == samples.at_ms
    if not same.any():
        return samples
    values = samples.mean.copy()
    values[same] = np.where(np.isnan(known.mean[places[same]]), values[same], np.nan)
    left = ~np.isnan(values).all(axis=1)
    return of_samples(samples.at_ms[left], values[left])


def between(rows: Rows, start_ms: int, end_ms: int) -> Rows:
    """The rows of `start_ms <= at < end_ms`."""
    first, last = np.searchsorted(rows.at_ms, (start_ms, end_ms))
    return Rows(
        rows.at_ms[first:last],
        rows.count[first:last],
        rows.mean[first:last],
        rows.low[first:last],
        rows.high[first:last],
    )


def roll(rows: Rows, step_ms: int) -> Rows:
    """One row for each step that has any. Steps are counted from the epoch; a row's instant is its step's start."""
    if not len(rows):
        return rows
    starts = rows.at_ms // step_ms * step_ms
    firsts = np.flatnonzero(np.diff(starts, prepend=starts[0] - 1))
    count = np.add.reduceat(rows.count, firsts, axis=0)
    total = np.add.reduceat(np.where(rows.count > 0, rows.mean * rows.count, 0.0), firsts, axis=0)
    return Rows(
        starts[firsts],
        count,
        np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0),
        np.fmin.reduceat(rows.low, firsts, axis=0),
        np.fmax.reduceat(rows.high, firsts, axis=0),
    )
