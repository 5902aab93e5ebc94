"""Pieces of a stream on their way to whoever watches it, so that a gap between two of them can be told. Pure.

Before each piece stands a line with where it begins in its stream and how long it is, both in bytes::

    0 6\n
    begin\n
    1048582 4\n
    end\n
"""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a stream, and how many were printed before them: more than came before when some are gone."""

    at: int
    data: bytes


def frame(piece: Piece) -> bytes:
    """A piece behind its line."""
    return b"%d %d\n" % (piece.at, len(piece.data)) + piece.data


class Frames:
    """Reads pieces back, however the bytes were cut on their way."""

    def __init__(self) -> None:
        self._line = b""
        self._at = 0
        self._left = 0

    def feed(self, data: bytes) -> Iterator[Piece]:
        """What has come of pieces: one of them may come as several."""
        while data:
            if self._left == 0:
                line, newline, data = data.partition(b"\n")
                self._line += line
                if newline:
                    self._at, self._left = map(int, self._line.split())
                    self._line = b""
                continue
            piece = Piece(self._at, data[: self._left])
            data = data[self._left :]
            self._at += len(piece.data)
            self._left -= len(piece.data)
            yield piece
