"""What is known of a piece of text before the command runs: all of it, its shape, or where it will come from.

A value is a tuple of parts. Text stands for itself, `Glob` is a pattern that the shell will match against files, and
`Gap` is text that exists only once the command runs.
"""

import re
import shlex
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

MAX_TEXT = 64 * 1024
MAX_JOINED = 16 * 1024
MAX_PARTS = 64


class Source(StrEnum):
    """Where unknown text comes from. What follows a download is not what follows a clock."""

    OUTPUT = "the output of a command"
    NETWORK = "a download"
    FILE = "a file"
    INPUT = "input"
    PARAMETER = "a parameter"
    ALL_PROCESSES = "the list of all processes"
    SOME_PROCESSES = "a list of processes"
    SECRET = "a secret"
    TRUSTED = "a program that prints settings for the shell"
    ENDLESS = "an endless source"
    RANDOM = "random data"
    TOO_LONG = "more text than is looked at"


class Shape(StrEnum):
    ANY = "any"
    NAME = "name"  # One component of a path: no slash, no blank, not `.` or `..`, no leading dash.
    PATH = "path"  # No blank and no leading dash.
    NUMBER = "number"


@dataclass(frozen=True, slots=True)
class Gap:
    """Text that is not known yet. `splits` when it stands unquoted and may become any number of words."""

    source: Source = Source.OUTPUT
    shape: Shape = Shape.ANY
    splits: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Glob:
    """A pattern character or bracket that is active."""

    text: str


Part: TypeAlias = str | Gap | Glob
Parts: TypeAlias = tuple[Part, ...]
Span: TypeAlias = tuple[int, int]


class CarriedSpan(tuple[int, int]):  # noqa: SLOT001  # A tuple with another field cannot have slots.
    """The place of what carries a text that does not stand in the command itself, such as a decoded one.

    `payload` is the place inside that text.
    """

    payload: Span

    def __new__(cls, carrier: Span, payload: Span) -> "CarriedSpan":
        found = super().__new__(cls, carrier)
        found.payload = payload
        return found


@dataclass(frozen=True, slots=True)
class Field:
    """One word of a command after all expansions. `alts` are other values that it may have instead."""

    parts: Parts
    span: Span = (0, 0)
    alts: tuple[Parts, ...] = ()

    @property
    def text(self) -> str | None:
        """The whole text, when it is known."""
        # As `text_of`, without the call: this is asked of every word many times.
        parts = self.parts
        if len(parts) == 1:
            return parts[0] if isinstance(parts[0], str) else None
        return None if parts else ""

    @property
    def shown(self) -> str:
        return shown(self.parts)

    @property
    def prefix(self) -> str:
        """What it is known to begin with."""
        return self.parts[0] if self.parts and isinstance(self.parts[0], str) else ""

    @property
    def gap(self) -> Gap | None:
        return gap_of(self.parts)


def known(text: str, span: Span = (0, 0)) -> Field:
    return Field((text,) if text else (), span)


def text_of(parts: Parts) -> str | None:
    if len(parts) == 1:
        return parts[0] if isinstance(parts[0], str) else None
    return "" if not parts else None


def gap_of(parts: Parts) -> Gap | None:
    """The most telling gap in it."""
    gaps = [part for part in parts if isinstance(part, Gap)]
    telling = (Source.SECRET, Source.NETWORK, Source.ALL_PROCESSES)
    return next((gap for gap in gaps if gap.source in telling), gaps[0] if gaps else None)


def is_endless(gap: Gap) -> bool:
    """Would reading it never end?"""
    return gap.source is Source.ENDLESS or (gap.source is Source.RANDOM and gap.detail.startswith("/dev/"))


def joined(*pieces: Parts) -> Parts:
    """The pieces one after another; neighbouring texts become one."""
    found: list[Part] = []
    size = 0
    for piece in pieces:
        for part in piece:
            if isinstance(part, str):
                size += len(part)
                if found and isinstance(found[-1], str):
                    found[-1] += part
                    continue
            elif found and found[-1] == part:
                continue  # One unknown after another is one unknown; and `**` is `*`.
            found.append(part)
            if size > MAX_JOINED or len(found) > MAX_PARTS:
                return (Gap(Source.TOO_LONG),)
    if size > MAX_JOINED:
        return (Gap(Source.TOO_LONG),)
    return tuple(found)


def shown(parts: Parts) -> str:
    """For people: gaps as an ellipsis."""
    return "".join(part if isinstance(part, str) else part.text if isinstance(part, Glob) else "…" for part in parts)


def rendered(fields: list[Field]) -> str:
    """The command as patterns see it: one blank between words, quotes only where a shell needs them."""
    return " ".join(_rendered(field.parts) for field in fields)


_PLAIN = re.compile(r"[\w@%+=:,./~^-]+")


def quoted(text: str) -> str:
    """A word as patterns see it."""
    return text if _PLAIN.fullmatch(text) else shlex.quote(text)


def _rendered(parts: Parts) -> str:
    if len(parts) == 1 and isinstance(parts[0], str):  # Nearly all words are; the rest says the same of them.
        return quoted(parts[0])
    if not parts:
        return "''"
    if any(isinstance(part, str) and not _PLAIN.fullmatch(part) for part in parts):
        whole = shown(parts)
        return shlex.quote(whole)
    return shown(parts)


_GLOB = re.compile(r"\*+|\?|\[[!^]?\]?[^]/]*\]")


def globbed(text: str) -> Parts:
    """Unquoted text with its active pattern characters."""
    found: list[Part] = []
    position = 0
    for match in _GLOB.finditer(text):
        if match.start() > position:
            found.append(text[position : match.start()])
        found.append(Glob(match[0]))
        position = match.end()
    if position < len(text):
        found.append(text[position:])
    return tuple(found)


def flat(parts: Parts) -> Parts:
    """The same with patterns taken as the text they are written in, as assignments and quotes do."""
    if not any(isinstance(part, Glob) for part in parts):
        return parts
    return joined(tuple(part.text if isinstance(part, Glob) else part for part in parts))


def unsplit(parts: Parts) -> Parts:
    """The same inside quotes: its gaps stay one word."""
    if not any(isinstance(part, Gap) and part.splits for part in parts):
        return parts
    return tuple(Gap(p.source, p.shape, False, p.detail) if isinstance(p, Gap) else p for p in parts)
