"""What a rule is made of. The rules themselves are the tables beside this file."""

import re
from dataclasses import dataclass
from typing import Literal

Severity = Literal["critical", "high", "medium"]
Ruling = Literal["deny", "needs_approval"]


@dataclass(frozen=True, slots=True)
class Match:
    """A command that a rule is about: one of `programs` whose arguments hold `pattern` and do not hold `unless`.

    Both are regular expressions searched in the resolved arguments, one blank between them.
    """

    programs: frozenset[str]
    pattern: re.Pattern[str]
    why: str
    unless: re.Pattern[str] | None = None


def match(programs: str, pattern: str, why: str, *, unless: str = "") -> Match:
    """A row of a table. In patterns, `{w}` stands for the beginning of a word and `{e}` for its end."""
    return Match(
        frozenset(programs.split()),
        re.compile(_words(pattern)),
        why,
        re.compile(_words(unless)) if unless else None,
    )


def _words(pattern: str) -> str:
    return pattern.replace("{w}", r"(?:^|(?<= ))").replace("{e}", r"(?= |$)")


@dataclass(frozen=True, slots=True)
class Rule:
    """A built-in rule. `stops` and `passes` are examples that the tests run."""

    id: str
    category: str
    severity: Severity
    text: str
    hint: str
    stops: tuple[str, ...]
    passes: tuple[str, ...]
    ruling: Ruling = "deny"
    references: tuple[str, ...] = ()
    matches: tuple[Match, ...] = ()
