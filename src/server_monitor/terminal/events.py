"""What happens in a terminal, as a recording keeps it. Pure."""

from dataclasses import dataclass
from typing import Final

OUTPUT: Final = "o"
RESIZE: Final = "r"
MARKER: Final = "m"
EXIT: Final = "x"
LONGEST_SIZE: Final = len("65535x65535")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened so many microseconds after the beginning. `data` is what the code says about it."""

    at_us: int
    code: str
    data: bytes


def size_of(data: bytes) -> tuple[int, int] | None:
    """The columns and rows that a resize says; None when it says none."""
    cols, _, rows = data.partition(b"x")
    is_size = cols.isdigit() and rows.isdigit() and len(data) <= LONGEST_SIZE
    return (int(cols), int(rows)) if is_size and int(cols) and int(rows) else None
