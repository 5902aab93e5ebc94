"""What the rules ask of a parser, and how one may fail. The parser itself runs elsewhere: it is a program."""

from collections.abc import Callable
from typing import Literal

from server_monitor.tasks.policy.tree import File

Dialect = Literal["bash", "posix"]
Parse = Callable[[str, Dialect], File]


class NotParsed(Exception):  # noqa: N818  # Outcomes that the engine acts on, and read as such.
    """There is no tree for this text. `str()` is a sentence for a person."""


class SyntaxWrong(NotParsed):
    """No shell would run the text. `offset` is the byte where the parser gave up, when it said so."""

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset


class TooComplex(NotParsed):
    """The text is beyond the limits within which an analysis is worth anything."""


class ParserFailed(NotParsed):
    """The parser is absent, of another version, crashed, hung, or wrote what is not a tree."""
