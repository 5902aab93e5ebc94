"""How often somebody may do something: bursts are fine, going on like that is not."""

import time


class Bucket:
    """A rate: `take` is true while the sender keeps to it."""

    __slots__ = ("_burst", "_last_s", "_per_second", "_tokens")

    def __init__(self, burst: int, per_second: float) -> None:
        self._burst = float(burst)
        self._per_second = per_second
        self._tokens = float(burst)
        self._last_s = time.monotonic()

    def take(self) -> bool:
        now_s = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now_s - self._last_s) * self._per_second)
        self._last_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
