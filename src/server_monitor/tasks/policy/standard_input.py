"""Standard input as a shell reads it: a line at a time."""

from __future__ import annotations

from dataclasses import dataclass

from server_monitor.tasks.policy.values import Gap, Parts, Source, text_of


@dataclass(slots=True)
class Input:
    """Standard input, read a line at a time by `read`."""

    parts: Parts | None

    def line(self) -> Parts | None:
        """The next line; None at the end of what is known."""
        if self.parts is None:
            return (Gap(Source.INPUT),)
        if not self.parts:
            return None
        first = self.parts[0]
        if not isinstance(first, str):
            return (first,)
        head, newline, rest = first.partition("\n")
        if newline:
            self.parts = (rest, *self.parts[1:]) if rest else self.parts[1:]
            return (head,) if head else ()
        taken = self.parts
        if len(self.parts) == 1:
            self.parts = ()
            return taken
        return taken

    @property
    def is_known(self) -> bool:
        return self.parts is not None and text_of(self.parts) is not None
