"""The operator's own patterns: settings `TASK_DENY_PATTERNS` and `TASK_ALLOW_PATTERNS`.

They are regular expressions of RE2, which takes linear time whatever the pattern.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import re2

MAX_MEMORY_BYTES = 8 * 1024 * 1024


class Compiled(Protocol):
    """What is used of a compiled expression."""

    pattern: str

    def search(self, text: str) -> Any: ...

    def fullmatch(self, text: str) -> Any: ...


@dataclass(frozen=True, slots=True)
class BadPattern(Exception):  # noqa: N818  # A value that says which pattern is wrong, and why.
    pattern: str
    problem: str

    def __str__(self) -> str:
        return f"the pattern {self.pattern!r} does not compile: {self.problem}"


@dataclass(frozen=True, slots=True)
class Patterns:
    """Compiled patterns of one setting."""

    texts: tuple[str, ...] = ()
    compiled: tuple[Compiled, ...] = field(default=(), compare=False)

    def found_in(self, text: str) -> tuple[str, tuple[int, int]] | None:
        """The first pattern that is found in the text, and where: characters from and to."""
        for pattern, expression in zip(self.texts, self.compiled, strict=True):
            if (match := expression.search(text)) is not None:
                return pattern, (match.start(), match.end())
        return None

    def match_whole(self, text: str) -> bool:
        return any(expression.fullmatch(text) is not None for expression in self.compiled)


def compiled(texts: Sequence[str]) -> Patterns:
    """Compile patterns. Raises BadPattern for the first that is none."""
    found = []
    for text in texts:
        try:
            found.append(cast(Compiled, re2.compile(text, _options())))
        except re2.error as error:
            reason = error.args[0] if error.args else "not a regular expression"
            raise BadPattern(text, reason.decode() if isinstance(reason, bytes) else str(reason)) from None
    return Patterns(tuple(texts), tuple(found))


def of_command(text: str) -> Compiled | None:
    """A pattern that a command holds, to be tried in linear time whatever it is; None when it does not compile."""
    try:
        return cast(Compiled, re2.compile(text, _options()))
    except re2.error:
        return None


def _options() -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MAX_MEMORY_BYTES
    options.dot_nl = True
    return options
