"""The words of a command, and which values in them are worth masking."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from server_monitor.telemetry.secret_shapes import Span

_SAYS_NOTHING: Final = re.compile(
    r"""
      \$[A-Z_][A-Z0-9_]* | \$\{[^}]*\} | \$[0-9@*]? | \$\(.* | \{\{\w+\}\}              # what will stand there
    | true | false | yes | no | on | off | none | null | [0-9] | \.?\**
    | \[redacted\] | \[secret\]
    | (?:~|\.{1,2}|/(?:etc|var|run|home|root|usr|opt|tmp|srv|mnt|proc|sys|dev|boot|lib|s?bin|data|secrets?))/.*  # where
    | (?:file|env|fd|prompt):.* | (?:id|src|source|type)=.*
    | [\w./-]+\.(?:pem|key|crt|p12|pfx|jks|json|txt|ya?ml|conf)
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Word:
    """A word with its place; `bare` is what is left of it without quotes."""

    start: int
    text: str
    bare: str

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def says_nothing(value: str) -> bool:
    """Whether a value stands for a secret, or says where it is, and is none itself: `$PASSWORD`, `/run/secrets/db`."""
    return _SAYS_NOTHING.fullmatch(value) is not None


def whole(word: Word) -> Iterator[Span]:
    return value_in(word, 0, len(word.text))


def value_in(word: Word, start: int, end: int) -> Iterator[Span]:
    value = word.text[start:end]
    is_literal = value.startswith("'")
    bare = value.strip("\"'")
    if bare and (not says_nothing(bare) or (is_literal and bare.startswith("$"))):
        yield word.start + start, word.start + end
