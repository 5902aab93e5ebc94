"""What Ctrl+C does to a command that sees a run through."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Interrupts:
    """Keeps the first Ctrl+C for whoever follows the run: what was placed a moment before must not run on unseen.

    A second one that finds nobody who follows ends the program, as everywhere else.
    """

    def __init__(self) -> None:
        self._act: Callable[[], None] | None = None
        self.is_kept = False

    def press(self) -> None:
        if self._act is not None:
            self._act()
        elif self.is_kept:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        else:
            self.is_kept = True

    @contextmanager
    def heard_by(self, act: Callable[[], None]) -> Iterator[None]:
        """Each does this from here on, and so does one that came before."""
        self._act = act
        if self.is_kept:
            act()
        try:
            yield
        finally:
            self._act, self.is_kept = None, False


@contextmanager
def kept() -> Iterator[Interrupts]:
    loop, interrupts = asyncio.get_running_loop(), Interrupts()
    loop.add_signal_handler(signal.SIGINT, interrupts.press)
    try:
        yield interrupts
    finally:
        loop.remove_signal_handler(signal.SIGINT)
