"""Merges the loose blocks of a period that is over, and rolls them up into the next tier."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from server_monitor.series import file, rollup
from server_monitor.series.blocks import Block, Damaged, Effort, encode
from server_monitor.series.file import Stored
from server_monitor.series.layouts import Layouts
from server_monitor.series.rollup import Rows
from server_monitor.series.tiers import PERIOD_MS, STEP_MS, Names, Tier, to_rows, to_table


@dataclass(frozen=True, slots=True)
class Part:
    """A block's rows and what they are about."""

    names: Names
    rows: Rows


@dataclass(frozen=True, slots=True)
class Period:
    """A stretch of one tier of one server. `server` is the file's own short id."""

    server: int
    tier: Tier
    number: int


def settle(conn: sqlite3.Connection, layouts: Layouts, period: Period) -> int:
    """Settle a period; the number of damaged blocks that were left out and removed."""
    old: list[Part] = []
    loose: list[Part] = []
    damaged: list[int] = []
    read: list[int] = []
    for id_, settled, layout, data in file.blocks_between(
        conn, period.server, period.tier, (period.number, period.number)
    ):
        try:
            names = layouts.names(conn, layout)
            (old if settled else loose).append(Part(names, to_rows(period.tier, Block(data).table(), names)))
            read.append(id_)
        except Damaged:
            damaged.append(id_)
    written = _merge(conn, layouts, period, old, loose) if loose else []
    with file.transaction(conn):
        # When all that was loose is damaged, an intact settled block stays as it is.
        file.remove_blocks(conn, [*damaged, *(read if loose else [])])
        file.add_blocks(conn, written)
    return len(damaged)


def _merge(
    conn: sqlite3.Connection, layouts: Layouts, period: Period, old: Sequence[Part], loose: Sequence[Part]
) -> list[Stored]:
    names = tuple(dict.fromkeys(name for part in (*old, *loose) for name in part.names))
    layout = layouts.id(conn, names)
    kept, fresh = _joined(old, names), _joined(loose, names)
    if period.tier is Tier.RAW:
        fresh = rollup.without(rollup.first_of_each(fresh), kept)
        rows = rollup.first_of_each(rollup.join([kept, fresh])) if len(kept) else fresh
    else:
        rows = rollup.roll(rollup.join([kept, fresh]), STEP_MS[period.tier])
    written = [_stored(period, names, layout, rows, settled=True)]
    if period.tier is not Tier.HOUR and len(fresh):
        above = Tier(period.tier + 1)
        rolled = rollup.roll(fresh, STEP_MS[above])
        number = int(rolled.at_ms[0]) // PERIOD_MS[above]
        written.append(_stored(Period(period.server, above, number), names, layout, rolled, settled=False))
    return written


def _joined(parts: Sequence[Part], names: Names) -> Rows:
    if not parts:
        return rollup.empty(len(names))
    return rollup.join([rollup.widen(part.rows, part.names, names) for part in parts])


def _stored(period: Period, names: Names, layout: int, rows: Rows, *, settled: bool) -> Stored:
    data = encode(to_table(period.tier, names, rows), Effort.SETTLED)
    return Stored(period.server, period.tier, period.number, settled, len(rows), layout, data)
