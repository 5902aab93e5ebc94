"""The tiers of history, and how each keeps its rows in blocks.

    tier     one row is   a full block covers   kept by default
    raw      a sample     1 hour                48 hours
    minute   1 minute     6 hours               30 days
    hour     1 hour       8 days                2 years

A new piece of a tier is a *loose* block; when its period is over, the loose blocks of a period are merged into its one
*settled* block, and what was loose is rolled up into a loose block of the next tier. So each value is rolled up once,
however late it comes, and what is not rolled up yet is exactly what is still loose.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from server_monitor.series import rollup
from server_monitor.series.blocks import Block, Ints, Table
from server_monitor.series.precision import factors, mean_factors, to_numbers, to_values
from server_monitor.series.rollup import Rows

_HOUR_MS = 3_600_000
_COLUMNS_OF_A_ROLLUP = 4  # mean, mean - low, high - mean, count

Names = tuple[str, ...]


class Tier(IntEnum):
    RAW = 0
    MINUTE = 1
    HOUR = 2


STEP_MS = {Tier.RAW: 1, Tier.MINUTE: 60_000, Tier.HOUR: _HOUR_MS}
PERIOD_MS = {Tier.RAW: _HOUR_MS, Tier.MINUTE: 6 * _HOUR_MS, Tier.HOUR: 8 * 24 * _HOUR_MS}


@dataclass(frozen=True, slots=True)
class Tiers:
    """How long each tier is kept."""

    raw_hours: int = 48
    minute_days: int = 30
    hour_days: int = 730

    def kept_ms(self, tier: Tier) -> int:
        return {
            Tier.RAW: self.raw_hours * _HOUR_MS,
            Tier.MINUTE: self.minute_days * 24 * _HOUR_MS,
            Tier.HOUR: self.hour_days * 24 * _HOUR_MS,
        }[tier]


def to_table(tier: Tier, names: Names, rows: Rows) -> Table:
    """Rows as a tier keeps them; the values are rounded as `precision.py` says."""
    if tier is Tier.RAW:
        return Table(rows.at_ms, *to_numbers(rows.mean, factors(names)))
    mean, present = to_numbers(rows.mean, mean_factors(names))
    around = _around(mean, names)
    low, _ = to_numbers(rows.low, factors(names))
    high, _ = to_numbers(rows.high, factors(names))
    numbers = np.hstack((mean, around - low, high - around, rows.count))
    return Table(rows.at_ms, numbers, None if present is None else np.tile(present, _COLUMNS_OF_A_ROLLUP))


def to_rows(tier: Tier, table: Table, names: Names) -> Rows:
    """The rows of a table of that tier with these series."""
    if tier is Tier.RAW:
        return rollup.of_samples(table.at_ms, to_values(table.numbers, table.present, factors(names)))
    mean, below, above, count = np.split(table.numbers, _COLUMNS_OF_A_ROLLUP, axis=1)
    present = None if table.present is None else table.present[:, : len(names)]
    around = _around(mean, names)
    return Rows(
        table.at_ms,
        count if present is None else np.where(present, count, 0),
        to_values(mean, present, mean_factors(names)),
        to_values(around - below, present, factors(names)),
        to_values(around + above, present, factors(names)),
    )


def select(tier: Tier, block: Block, names: Names, wanted: Names) -> Table:
    """The table of a block with `names`, narrowed to those wanted, in their order."""
    places = [names.index(name) for name in wanted]
    if tier is not Tier.RAW:
        places = [part * len(names) + place for part in range(_COLUMNS_OF_A_ROLLUP) for place in places]
    return block.table(places)


def _around(mean: Ints, names: Names) -> Ints:
    """A kept mean as a number of its series' own precision: what lows and highs are kept relative to."""
    return to_numbers(to_values(mean, None, mean_factors(names)), factors(names))[0]
