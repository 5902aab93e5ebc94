"""The lines of an OpenSSH client configuration, and which of them apply to a host. Source: ssh_config(5).

Host web-* !web-old      the lines below apply to names that match, until the next Host or Match
    HostName %h.example.com
    User = deploy
"""

import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from server_monitor.errors import FieldError
from server_monitor.fleet.fields import port_mistake, quoted, username_mistake
from server_monitor.fleet.inventory.entries import Skipped, lines_of, port_of

LINE_MAX = 16_384
INCLUDE_DEPTH_MAX = 16  # as in readconf.c
WILDCARD_BLOCKS_MAX = 500  # each is tried for each host
NAMES_ON_A_LINE_MAX = 1_000

Patterns = tuple[str, ...]
Include = Callable[[str], Sequence[tuple[str, str]]]  # a pattern to the names and texts of the files it means

_NEVER: Patterns = ()
_SPACE = re.compile(r"[ \t]*")
_SPACE_OR_END = re.compile(r"[ \t]|$")
_WORD = re.compile(r"""(?:[^ \t"'\\]|\\.|\\$|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')+""")
_PIECE = re.compile(r""""((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|\\([\\"' ])""")
_ESCAPE = re.compile(r"""\\([\\"'])""")
_OPTION = re.compile(r'"?([A-Za-z0-9]+)"?(?:[ \t]*=|[ \t]|$)')


class UnreadableError(ValueError):
    """A line that breaks the grammar; the text says how to mend it."""


@dataclass(frozen=True, slots=True)
class Block:
    """Options under the same conditions. All of `conditions` have to match; a file included in a block adds its own."""

    conditions: tuple[Patterns, ...]
    options: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Named:
    """A name without wildcards on a Host line. `source` is the included file, or None for the text itself."""

    name: str
    line: int
    source: str | None


@dataclass(slots=True)
class Lines:
    """A whole configuration, read once."""

    blocks: list[Block] = field(default_factory=list)
    named: list[Named] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    errors: list[FieldError] = field(default_factory=list)
    wildcard_blocks: int = 0


def read(text: str, include: Include | None = None) -> Lines:
    """Every line in its order; included files stand where they are included when `include` can read them."""
    lines = Lines()
    _read_file(text, lines, conditions=(), source=None, include=include, depth=0)
    return lines


def matches(conditions: Sequence[Patterns], name: str) -> bool:
    return all(_one_matches(patterns, name) for patterns in conditions)


def is_wildcard(pattern: str) -> bool:
    return any(letter in pattern for letter in "*?!")


def words(text: str) -> tuple[str, ...]:
    """The arguments of an option: separated by space, quoted by ' or ", a # where one would start begins a comment."""
    found: list[str] = []
    position = 0
    while (position := _SPACE.match(text, position).end()) < len(text):  # type: ignore[union-attr]
        if text[position] == "#":
            break
        word = _WORD.match(text, position)
        if word is None or _SPACE_OR_END.match(text, word.end()) is None:
            raise UnreadableError("A quotation mark is never closed.")
        found.append(_PIECE.sub(_unquoted, word[0]))
        position = word.end()
    return tuple(found)


def _unquoted(piece: re.Match[str]) -> str:
    inside = piece[1] if piece[1] is not None else piece[2]
    return piece[3] if inside is None else _ESCAPE.sub(r"\1", inside)


def _read_file(
    text: str,
    lines: Lines,
    *,
    conditions: tuple[Patterns, ...],
    source: str | None,
    include: Include | None,
    depth: int,
) -> None:
    block = Block(conditions)
    lines.blocks.append(block)
    for number, line in enumerate(lines_of(text), start=1):
        try:
            option, values = _option(line)
            if option in ("host", "match"):
                patterns = values if option == "host" else _match_patterns(values, number, lines)
                block = Block((*conditions, patterns))
                lines.blocks.append(block)
                _take_names(patterns, number, source, lines)
            elif option == "include":
                _follow(values, number, lines, conditions=block.conditions, include=include, depth=depth)
                block = Block(block.conditions)
                lines.blocks.append(block)
            elif option:
                _require_usable(option, values[0])
                block.options.append((option, values))
        except UnreadableError as refused:
            lines.errors.append(FieldError("text", _from(source) + str(refused), number))


def _option(line: str) -> tuple[str, tuple[str, ...]]:
    stripped = line.strip()
    if not stripped or stripped.startswith("#"):
        return "", ()
    if len(stripped) > LINE_MAX:
        raise UnreadableError(f"At most {LINE_MAX:,} characters on a line.")
    found = _OPTION.match(stripped)
    if found is None:
        raise UnreadableError("This is no ssh_config line. Options look like 'HostName web.example.com'.")
    option = found[1].lower()
    values = words(stripped[found.end() :])
    if not values:
        raise UnreadableError(f"{found[1]} has no value.")
    return option, values


def _require_usable(option: str, value: str) -> None:
    """Refuse here, where the line is known, what would be refused later for every host that it applies to."""
    mistake = None
    if option == "port":
        mistake = port_mistake(port_of(value))
    elif option == "user":
        mistake = username_mistake(value)
    if mistake:
        raise UnreadableError(f"{quoted(value)}: {mistake}")


def _match_patterns(values: tuple[str, ...], number: int, lines: Lines) -> Patterns:
    if [value.lower() for value in values] == ["all"]:
        return ("*",)
    why = "A Match block depends on who connects and from where, so its options were left out."
    lines.skipped.append(Skipped(number, "Match " + " ".join(values)[:80], why))
    return _NEVER


def _take_names(patterns: Patterns, number: int, source: str | None, lines: Lines) -> None:
    if len(patterns) > NAMES_ON_A_LINE_MAX:
        raise UnreadableError(f"At most {NAMES_ON_A_LINE_MAX:,} names on one Host line.")
    lines.named.extend(Named(pattern, number, source) for pattern in patterns if not is_wildcard(pattern))
    lines.wildcard_blocks += any(map(is_wildcard, patterns))
    if lines.wildcard_blocks > WILDCARD_BLOCKS_MAX:
        raise UnreadableError(f"At most {WILDCARD_BLOCKS_MAX} Host lines with wildcards.")


def _follow(
    values: tuple[str, ...],
    number: int,
    lines: Lines,
    *,
    conditions: tuple[Patterns, ...],
    include: Include | None,
    depth: int,
) -> None:
    if include is None:
        why = "Included files are on your machine, not here. Paste them too, or use: server-monitor server import"
        lines.skipped.append(Skipped(number, "Include " + " ".join(values)[:80], why))
        return
    if depth >= INCLUDE_DEPTH_MAX:
        raise UnreadableError(f"Files include each other more than {INCLUDE_DEPTH_MAX} deep.")
    for pattern in values:
        for name, text in include(pattern):
            _read_file(text, lines, conditions=conditions, source=name, include=include, depth=depth + 1)


def _one_matches(patterns: Patterns, name: str) -> bool:
    negated = (pattern[1:] for pattern in patterns if pattern.startswith("!"))
    if any(_like(pattern, name) for pattern in negated):
        return False
    return any(_like(pattern, name) for pattern in patterns if not pattern.startswith("!"))


def _like(pattern: str, name: str) -> bool:
    # OpenSSH knows * and ? only; fnmatch would also take [ for a set.
    return pattern == name or fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))


def _from(source: str | None) -> str:
    return f"{source}: " if source else ""


def distinct(named: Sequence[Named]) -> Iterator[Named]:
    """Each name once, where it is written first."""
    seen: set[str] = set()
    for one in named:
        if one.name not in seen:
            seen.add(one.name)
            yield one
