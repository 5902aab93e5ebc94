"""How large the history becomes when the fleet stays as it is."""

from collections.abc import Mapping

from server_monitor.series.file import TierSize
from server_monitor.series.tiers import PERIOD_MS, STEP_MS, Tier, Tiers

_OVERHEAD_MAX = 1.5  # What a small file has more than that is fixed and does not grow.


def full_size_bytes(sizes: Mapping[Tier, TierSize], tiers: Tiers, used_bytes: int, now_ms: int) -> int | None:
    """The file's size once every tier is as old as it gets; None before the first hour has been rolled up.

    `used_bytes` is what the file holds now, indexes and half-filled pages included.
    """
    raw, minute = sizes[Tier.RAW], sizes[Tier.MINUTE]
    if not raw.data_bytes or not minute.rows:
        return None
    minutes_a_ms = minute.rows / _covered_ms(Tier.MINUTE, minute, now_ms)
    # An hour is stored like a minute: mean, minimum, maximum and count of each series.
    row_bytes = minute.data_bytes / minute.rows
    hours_a_ms = minutes_a_ms * STEP_MS[Tier.MINUTE] / STEP_MS[Tier.HOUR]
    stored = (
        raw.data_bytes / _covered_ms(Tier.RAW, raw, now_ms) * tiers.kept_ms(Tier.RAW)
        + minutes_a_ms * tiers.kept_ms(Tier.MINUTE) * row_bytes
        + hours_a_ms * tiers.kept_ms(Tier.HOUR) * row_bytes
    )
    overhead = used_bytes / sum(size.data_bytes for size in sizes.values())
    return round(stored * min(overhead, _OVERHEAD_MAX))


def _covered_ms(tier: Tier, size: TierSize, now_ms: int) -> float:
    """How much time a tier's rows stand for: from its oldest period's start, or from less when that is mostly empty."""
    assert size.oldest_period is not None, "a tier with rows has a period"
    since_ms = max(now_ms - size.oldest_period * PERIOD_MS[tier], STEP_MS[Tier.HOUR])
    if tier is Tier.MINUTE and size.servers:
        # A day that began to be watched at noon is half empty: each minute of a server is one row.
        return min(since_ms, size.rows / size.servers * STEP_MS[tier])
    return since_ms
