"""Which consoles are dead, whatever any clock says. Pure.

A console says that it lives by changing its row every few seconds. What it writes there is the time, but nobody
compares that with a clock of their own, which may be wrong or be put right. Whoever watches counts how often a row was
still the same at its own signs of life: three times says that it has not been changed for three beats.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

BEATS: Final = 3


class Leases:
    """What this console has seen of the others' signs of life since it started."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[datetime, int]] = {}

    @property
    def dead(self) -> frozenset[str]:
        return frozenset(owner for owner, (_, same) in self._seen.items() if same >= BEATS)

    def look(self, beats: Mapping[str, datetime]) -> frozenset[str]:
        """Take in the last sign of life of every console, at a sign of our own; returns those that are dead since."""
        before = self.dead
        self._seen = {owner: (beat, self._times_same(owner, beat)) for owner, beat in beats.items()}
        return self.dead - before

    def _times_same(self, owner: str, beat: datetime) -> int:
        last, same = self._seen.get(owner, (None, 0))
        return same + 1 if beat == last else 0
