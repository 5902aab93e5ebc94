"""What a shell has printed last, by position, and how a browser that comes new to it gets the same screen. Pure.

Positions count the bytes of the shell from its start. The backlog begins somewhere in the middle of them, after what it
has forgotten; which modes the terminal was in at that place (the alternate screen, a hidden cursor, bracketed paste) is
remembered, because a screen drawn without them is another screen.
"""

import re
from typing import Final

SKIPPED_MOST: Final = 4_096  # bytes that may be left out so that a screen does not begin in the middle of a line

_SWITCHED = re.compile(rb"\x1b\[\?([0-9;]{1,40})([hl])|\x1bc|\x1b\[!p")
_BEGUN = re.compile(rb"\x1b(?:\[(?:\?[0-9;]{0,40}|!)?)?\Z")
_ALTERNATE: Final = frozenset({47, 1047, 1049})
# Private modes that draw or type differently; what is not among them is not switched on for anybody.
_RESTORED: Final = frozenset({1, 5, 6, 9, 66, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 2004}) | _ALTERNATE
# On from the beginning: these are remembered when they are off.
_ON: Final = frozenset({7, 25})


class Modes:
    """The private modes of a terminal, followed through its output."""

    __slots__ = ("_begun", "_changed")

    def __init__(self) -> None:
        self._changed: dict[int, bool] = {}
        self._begun = b""

    @property
    def is_alternate(self) -> bool:
        """Does a program have the whole screen to itself?"""
        return any(self._changed.get(mode, False) for mode in _ALTERNATE)

    def feed(self, data: bytes) -> None:
        data = self._begun + data
        if b"\x1b" not in data:
            self._begun = b""
            return
        for found in _SWITCHED.finditer(data):
            if found[1] is None:
                self._changed.clear()
            else:
                self._switch(found[1], is_on=found[2] == b"h")
        unfinished = _BEGUN.search(data, max(0, len(data) - 48))
        self._begun = unfinished[0] if unfinished else b""

    def restored(self) -> str:
        """What to write to a fresh terminal to put it into these modes."""
        return "".join(f"\x1b[?{mode}{'h' if is_on else 'l'}" for mode, is_on in sorted(self._changed.items()))

    def _switch(self, modes: bytes, *, is_on: bool) -> None:
        for mode in (int(part) for part in modes.split(b";") if part):
            if mode in _RESTORED | _ON:
                self._changed[mode] = is_on
                if is_on == (mode in _ON):
                    del self._changed[mode]


class Backlog:
    """The last bytes of a shell. It holds at least `keep_bytes` of them, and more while somebody has not seen them."""

    __slots__ = ("_data", "_keep_bytes", "end", "modes", "start")

    def __init__(self, keep_bytes: int) -> None:
        self._keep_bytes = keep_bytes
        self._data = bytearray()
        self.start = 0
        self.end = 0
        self.modes = Modes()  # at the start of what is held

    def add(self, data: bytes) -> None:
        self._data += data
        self.end += len(data)

    def forget(self, before: int) -> None:
        """Let go of what lies before this position and before the last `keep_bytes`."""
        start = min(before, self.end - self._keep_bytes)
        # Not for a few bytes at a time: each time all that is left has to be moved.
        if start - self.start >= self._keep_bytes // 4:
            self._forget(start)

    def read(self, at: int, most_bytes: int) -> bytes:
        """Up to so many bytes from this position on, which must be held."""
        assert self.start <= at <= self.end
        place = at - self.start
        return bytes(self._data[place : place + most_bytes])

    def beginning(self) -> int:
        """Where a fresh screen begins to draw: at the start, or where the first line that is held whole begins."""
        if self.start == 0:
            return 0
        line_end = self._data.find(b"\n", 0, SKIPPED_MOST)
        return self.start + line_end + 1

    def _forget(self, start: int) -> None:
        count = start - self.start
        self.modes.feed(bytes(self._data[:count]))
        del self._data[:count]
        self.start = start
