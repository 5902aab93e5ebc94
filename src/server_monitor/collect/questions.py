"""What to ask a probe, and when: what changes every second always, the rest as often as it is worth.

Pure: `now` is monotonic seconds. docs/reference/probe-protocol.md names the letters.
"""

from typing import Final

SLOW_GAUGES_EVERY_S: Final = 10
FILESYSTEMS_EVERY_S: Final = 300
# What is nearly full is watched more closely, and so is what somebody looks at: asking costs as much as seven samples.
FILESYSTEMS_OFTEN_S: Final = 60
# An unanswered question about filesystems means that one hangs: asking again would leave another process hanging.
FILESYSTEMS_ASK_AGAIN_S: Final = 600
FILESYSTEM_LIMIT: Final = 64
TOP_EVERY_S: Final = 5
HELLO_EVERY_S: Final = 3600
HELLO_WHILE_SKEWED_EVERY_S: Final = 60
# Half a second of grace keeps the rare questions on the same beats.
_GRACE_S: Final = 0.5
_NEVER: Final = float("-inf")


class Questions:
    """Remembers when each part was asked for, and which answers are still to come."""

    __slots__ = (
        "_filesystems_at",
        "_greeted_at",
        "_lines_expected",
        "_slow_at",
        "_top_at",
        "expects_filesystems",
        "expects_hello",
    )

    def __init__(self) -> None:
        self._filesystems_at = _NEVER
        self.expects_filesystems = False
        self.begin()

    def begin(self) -> None:
        """A new probe. One that was lost while filesystems were asked for may have left a process hanging."""
        if not self.expects_filesystems:
            self._filesystems_at = _NEVER
        self.expects_filesystems = False
        self.expects_hello = True
        self._lines_expected = 0
        self._slow_at = _NEVER
        self._top_at = _NEVER
        self._greeted_at = _NEVER

    def greeted(self, now: float) -> None:
        self.expects_hello = False
        self._greeted_at = now

    def expects_background_line(self) -> bool:
        """May one more line about filesystems or processes come? Counts it."""
        if self._lines_expected == 0:
            return False
        self._lines_expected -= 1
        return True

    def next(self, now: float, *, detailed: bool, skewed: bool, filling: bool) -> bytes:
        """The question to ask now. `filling`: a filesystem has little room left, or none is known yet."""
        letters = b"t"
        if now - self._slow_at > SLOW_GAUGES_EVERY_S - _GRACE_S:
            self._slow_at = now
            letters += b"m"
        if detailed:
            letters += b"c"
            if now - self._top_at > TOP_EVERY_S - _GRACE_S:
                self._top_at = now
                letters += b"p"
        if now - self._filesystems_at > self._patience_s(often=detailed or filling) - _GRACE_S:
            self._filesystems_at = now
            self.expects_filesystems = True
            self._lines_expected = FILESYSTEM_LIMIT + 1
            letters += b"f"
        if now - self._greeted_at > (HELLO_WHILE_SKEWED_EVERY_S if skewed else HELLO_EVERY_S) - _GRACE_S:
            self._greeted_at = now
            self.expects_hello = True
            letters += b"h"
        return letters + b"\n"

    def _patience_s(self, *, often: bool) -> int:
        """How long what was heard of filesystems counts."""
        if self.expects_filesystems:
            return FILESYSTEMS_ASK_AGAIN_S
        return FILESYSTEMS_OFTEN_S if often else FILESYSTEMS_EVERY_S
