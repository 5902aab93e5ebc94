"""Which tier and step a chart is drawn from, and the points it gets."""

import math
from dataclasses import dataclass

import numpy as np

from server_monitor.series import rollup
from server_monitor.series.rollup import Rows
from server_monitor.series.tiers import STEP_MS, Tier, Tiers

MAX_POINTS = 10_000
_DAY_S = 86_400
# Steps a person reads easily on an axis; beyond the last one, whole days.
_STEPS_S = (
    *(1, 2, 3, 5, 10, 15, 20, 30),
    *(60, 120, 180, 300, 600, 900, 1200, 1800),
    *(3600, 7200, 10_800, 14_400, 21_600, 43_200, _DAY_S),
)

Point = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Range:
    """A series over time: `(at, min, mean, max)` for each step that has values, oldest first; gaps are left out.

    `at` is the Unix second at which the step begins.
    """

    series: str
    step_s: int
    points: list[Point]


@dataclass(frozen=True, slots=True)
class Choice:
    tier: Tier
    step_s: int


def choose(start_ms: int, end_ms: int, points: int, tiers: Tiers, now_ms: int) -> Choice:
    """The finest step with at most `points` of them, from the coarsest tier that has it and reaches back so far."""
    step_s = next((step for step in _STEPS_S if _steps(start_ms, end_ms, step) <= points), None)
    if step_s is None:
        step_s = math.ceil((end_ms - start_ms) / (points * _DAY_S * 1000)) * _DAY_S
        # A range that begins in the middle of a step touches one more.
        while _steps(start_ms, end_ms, step_s) > points:
            step_s += _DAY_S
    tier = max(tier for tier in Tier if STEP_MS[tier] <= step_s * 1000)
    while tier is not Tier.HOUR and start_ms < now_ms - tiers.kept_ms(tier):
        tier = Tier(tier + 1)
    return Choice(tier, max(step_s, STEP_MS[tier] // 1000))


def _steps(start_ms: int, end_ms: int, step_s: int) -> int:
    """How many steps, counted from the epoch, the range touches."""
    return (end_ms - 1) // (step_s * 1000) - start_ms // (step_s * 1000) + 1


def to_ranges(rows: Rows, names: tuple[str, ...], step_s: int) -> list[Range]:
    rolled = rollup.roll(rows, step_s * 1000)
    return [Range(name, step_s, _points(rolled, index)) for index, name in enumerate(names)]


def _points(rows: Rows, series: int) -> list[Point]:
    there = np.flatnonzero(rows.count[:, series])
    columns = (rows.at_ms[there] / 1000, rows.low[there, series], rows.mean[there, series], rows.high[there, series])
    return list(zip(*(column.tolist() for column in columns), strict=True))
