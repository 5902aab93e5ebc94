"""What the rules ask of a parser, and how one may fail. The parser itself runs elsewhere: it is a program."""

import re
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


# Words, lists, plain redirections, quotes and simple variables: all that both dialects have, and nothing that one of
# them reads otherwise. What is not here is parsed by each: `((…))`, a sum to bash, starts a command in two subshells
# elsewhere, and `&>` is one redirection to bash and to others a command in the background.
_VARIABLE = r"\$(?:[A-Za-z_]\w*|\{[A-Za-z_]\w*\}|[?#@1-9])"
_ALIKE = re.compile(
    r"(?:[\w./:@%,*?~ \t\n;-]|\+(?!=)|=|&&|\|\||\|(?![&|])"
    r"|>>?(?=[ \w./$\"'])|<(?=[ \w./$\"'])|>&(?=\d)"
    rf"|{_VARIABLE}|'[^']*'|\"(?:[^\"\\`$]|\\.|{_VARIABLE})*\")++",
    re.DOTALL | re.ASCII,
)
_WORDS_OF_ONE = re.compile(
    r"\b(?:function|select|coproc|time|declare|typeset|local|export|readonly|nameref|let)\b", re.ASCII
)


def reads_alike(text: str) -> bool:
    """Is this text one of which every dialect makes the same tree? No for some of which they do."""
    return _ALIKE.fullmatch(text) is not None and _WORDS_OF_ONE.search(text) is None


def once_for_all(parse: Parse) -> Parse:
    """The same parser, asked once about a text that every dialect reads alike."""
    trees: dict[str, File] = {}

    def parsed(text: str, dialect: Dialect) -> File:
        if not reads_alike(text):
            return parse(text, dialect)
        if text not in trees:
            trees[text] = parse(text, dialect)
        return trees[text]

    return parsed
