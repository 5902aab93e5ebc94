"""One simple command at the moment it would run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from server_monitor.tasks.policy import paths
from server_monitor.tasks.policy.paths import Place
from server_monitor.tasks.policy.state import State
from server_monitor.tasks.policy.values import Field, Gap, Parts, Source, Span, joined, quoted, rendered, shown

if TYPE_CHECKING:
    from server_monitor.tasks.policy.walk import Walker
# Options after which the next word is a value, for commands that read files named among their operands.
_VALUE_OPTIONS: dict[str, frozenset[str]] = {
    "cut": frozenset(("-d", "-f", "-c", "-b")),
    "head": frozenset(("-n", "-c", "--lines", "--bytes")),
    "tail": frozenset(("-n", "-c", "-s", "--lines", "--bytes", "--pid")),
    "sort": frozenset(("-k", "-t", "-o", "-S", "-T")),
    "uniq": frozenset(("-f", "-s", "-w")),
    "sed": frozenset(("-e", "-f", "-l")),
    "awk": frozenset(("-F", "-v", "-f")),
    "grep": frozenset(("-e", "-f", "-m", "-A", "-B", "-C")),
    "base64": frozenset(("-w",)),
    "xxd": frozenset(("-c", "-l", "-s", "-g", "-o")),
    "fold": frozenset(("-w",)),
    "paste": frozenset(("-d",)),
    "od": frozenset(("-t", "-A", "-N", "-j")),
    "jq": frozenset(("--arg", "--argjson", "-f")),
}
READERS = frozenset(
    [
        "cat",
        "tac",
        "rev",
        "head",
        "tail",
        "cut",
        "sort",
        "uniq",
        "nl",
        "base64",
        "base32",
        "basenc",
        "zcat",
        "gunzip",
        "bzcat",
        "xzcat",
        "strings",
        "xxd",
        "od",
        "hexdump",
        "sed",
        "awk",
        "gawk",
        "mawk",
        "grep",
        "egrep",
        "fgrep",
        "tr",
        "tee",
        "fold",
        "paste",
        "column",
        "rot13",
        "envsubst",
        "openssl",
        "jq",
        "gzip",
        "bzip2",
        "xz",
        "pigz",
    ]
)
PROGRAM_FIRST = frozenset(("sed", "awk", "gawk", "mawk", "grep", "egrep", "fgrep", "jq"))
MAX_VARIANTS = 24
ONLY_STDIN = frozenset(("tr", "tee", "rot13", "envsubst"))
# What wrappers, functions and scripts may stand inside each other. Nobody needs half of it.
MAX_VIA = 12


class Lookup(Enum):
    """Where a shell looks for what a word names. Each kind leaves out what those before it have."""

    FUNCTION = auto()  # Aliases and functions first, as for any command.
    BUILTIN = auto()  # Behind `command` and `builtin`.
    PROGRAM = auto()  # Behind what is no part of the shell, such as sudo.


@dataclass(slots=True)
class Frame:
    """A function or a script that is running: whether it has been left behind in a process of its own since."""

    name: str
    is_forked: bool = False


@dataclass(slots=True)
class Call:
    """A command with everything that decides what it does."""

    name: str  # The program without its directory.
    args: list[Field]
    span: Span
    walker: Walker
    stdin: Parts | None = None
    env: Mapping[str, Parts] = field(default_factory=dict)
    word: Field = field(default_factory=lambda: Field(()))
    is_background: bool = False
    _rendered: str | None = field(default=None, init=False)

    @property
    def line(self) -> str:
        """The command as people are shown it."""
        name = quoted(self.name)
        return f"{name} {self.rendered}" if self.args else name

    @property
    def rendered(self) -> str:
        """The arguments as patterns see them."""
        if self._rendered is None:
            self._rendered = rendered(self.args)
        return self._rendered

    @property
    def state(self) -> State:
        return self.walker.state

    @property
    def is_posix(self) -> bool:
        return self.walker.dialect == "posix"

    @property
    def texts(self) -> list[str]:
        """The arguments as text; what is not known shows as an ellipsis."""
        return [arg.text if arg.text is not None else arg.shown for arg in self.args]

    def place(self, arg: Field) -> Place:
        place = paths.place_of(arg.parts, self.state)
        if not place.is_exact and place.gap is None:
            self.walker.account.pattern()
        return place

    def input(self) -> Parts:
        """What the command reads: the files among its operands, else standard input."""
        files = self.files()
        if not files:
            return self.stdin if self.stdin is not None else (Gap(Source.INPUT),)
        return joined(*(self.walker.content(file) for file in files))

    def written_files(self, arg: Field) -> list[str]:
        """What stands in the files that this argument names, of those that the task wrote itself."""
        if not self.state.files:
            return []
        text = arg.text or ""
        found = []
        for name in dict.fromkeys((text, text.partition("=")[2], text.removeprefix("@"))):
            path = paths.absolute(name, self.state) if name and name[0] != "-" else None
            if path is not None and (file := self.state.files.get(path)) is not None:
                found.append(shown(file.content))
        return list(dict.fromkeys(found))

    def files(self) -> list[Field]:
        """The operands of a program that reads files which it names."""
        if self.name in ONLY_STDIN or self.name not in READERS:
            return []
        if self.name == "openssl":
            return [self.args[i + 1] for i, a in enumerate(self.args[:-1]) if a.text == "-in"]
        found: list[Field] = []
        skip = False
        for arg in self.args:
            if skip:
                skip = False
            elif arg.prefix.startswith("-") and arg.text != "-":
                skip = arg.text in _VALUE_OPTIONS.get(self.name, ())
            else:
                found.append(arg)
        if self.name in PROGRAM_FIRST and not any(a.prefix.startswith(("-e", "-f")) for a in self.args):
            found = found[1:]
        return [file for file in found if file.text != "-"] if any(file.text != "-" for file in found) else []


def again(
    call: Call, fields: list[Field], how: str, *, stdin: Parts | None = None, lookup: Lookup = Lookup.PROGRAM
) -> Parts:
    """Judge the command inside a wrapper."""
    if not fields:
        return ()
    if len(call.walker.via) >= MAX_VIA:
        why = f"nests commands in commands more than {MAX_VIA} deep"
        call.walker.find("opaque.limit", why, _span_of(fields, call))
        return (Gap(Source.OUTPUT),)
    with call.walker.through(how):
        inner = Call("", fields[1:], _span_of(fields, call), call.walker, stdin=stdin, env=call.env, word=fields[0])
        if stdin is None:
            inner.stdin = call.stdin
        return call.walker.invoke(inner, lookup=lookup)


def _span_of(fields: list[Field], call: Call) -> tuple[int, int]:
    begin = fields[0].span[0]
    return (begin, call.span[1]) if call.span[0] <= begin < call.span[1] else call.span


def variants(fields: list[Field]) -> list[list[Field]]:
    """Every command that the words may become, a bounded number of them."""
    found: list[list[Field]] = [[]]
    for item in fields:
        if not item.alts:
            for variant in found:
                variant.append(item)
            continue
        if len(found) * (1 + len(item.alts)) > MAX_VARIANTS:
            # Too many to try each: as operands they are all given at once, which no rule takes for less.
            every = [Field(parts, item.span) for parts in (item.parts, *item.alts)]
            found = [variant + every for variant in found]
            continue
        found = [[*variant, Field(parts, item.span)] for variant in found for parts in (item.parts, *item.alts)]
    return found
