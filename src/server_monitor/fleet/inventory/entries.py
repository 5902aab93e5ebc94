"""What every import format is read into, before anything is compared with the servers that exist."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from server_monitor.errors import FieldError

ENTRIES_MAX = 10_000  # servers in one import; a range such as [0:999999999] must not fill the memory
IMPLIED_NOTE = "Added because others are reached through it."


@dataclass(frozen=True, slots=True)
class Entry:
    """One server as a text describes it. Texts are tidied, not yet checked; `None` means the text does not say.

    `jump` is the name of the server it is reached through; `notes` tell a person what was not taken over as written.
    An `implied` server is only named as a way to others: one of that name that exists already will do as it is.
    """

    line: int
    name: str
    host: str
    port: int = 22
    username: str | None = None
    auth: str = "agent"
    identity_file: str | None = None
    key_fingerprint: str | None = None
    jump: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    capability: str = "observe"
    notes: tuple[str, ...] = ()
    implied: bool = False


@dataclass(frozen=True, slots=True)
class Skipped:
    """A part of the text that was understood and is not for us."""

    line: int
    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """A whole text: what it adds, what it names and does not add, and every mistake in it."""

    entries: tuple[Entry, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    errors: tuple[FieldError, ...] = ()


def too_many(line: int | None) -> FieldError:
    return FieldError("text", f"An import holds at most {ENTRIES_MAX:,} servers. Split it.", line)


def port_of(text: str) -> int:
    """The port that a text names; 0, which is refused with the right sentence later, when it is no number."""
    digits = text.strip()
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 5 else 0


def unique(words: Iterable[str]) -> tuple[str, ...]:
    """The words in their order, each once, none empty."""
    return tuple(dict.fromkeys(word for word in words if word))


def lines_of(text: str) -> list[str]:
    """The lines as an editor counts them; `splitlines` would also end a line at rarer characters."""
    return text.replace("\r\n", "\n").split("\n")
