"""How much of our time one host may take.

Every byte a host sends costs us work, and small packets cost the most: 256 KiB of them keep a core busy for a sixth of
a second. So the time spent on a host is counted, drains away at a fixed share, and above a burst the host has to wait.
"""

SHARE = 0.25  # of a core, over time
BURST_S = 0.2  # spent at once before a host has to wait
REST_UNTIL_S = 0.1  # what is left of it when it may go on


class Pace:
    """The account of one host. `share` may change at any time; it counts from then on."""

    __slots__ = ("_at", "_busy_s", "share")

    def __init__(self, share: float = SHARE) -> None:
        self.share = share
        self._busy_s = 0.0
        self._at = 0.0

    def spend(self, cpu_s: float, now: float) -> float:
        """Book CPU seconds; how long the host must wait now, 0.0 when it need not. `now` is a monotonic clock's."""
        drained_s = (now - self._at) * self.share
        self._busy_s = max(0.0, self._busy_s - drained_s) + cpu_s
        self._at = now
        if self._busy_s <= BURST_S:
            return 0.0
        return (self._busy_s - REST_UNTIL_S) / self.share
