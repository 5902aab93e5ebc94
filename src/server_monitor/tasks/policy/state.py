"""What a shell remembers between two commands: variables, functions, directory, and files that the task wrote."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from server_monitor.tasks.policy.tree import Stmt
from server_monitor.tasks.policy.values import Field, Gap, Parts, Shape, Source

MAX_ALTERNATIVES = 8
BLANKS = " \t\n"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_USER = re.compile(r"[a-z_][a-z0-9_.-]{0,31}\$?")


@dataclass(frozen=True, slots=True)
class Var:
    """A variable: one of `values`, or an array of `items`, or another name for `ref`."""

    values: tuple[Parts, ...] = ((),)
    items: tuple[tuple[str, Parts], ...] | None = None  # (index or key, value)
    ref: str = ""
    is_integer: bool = False
    is_exported: bool = False

    @classmethod
    def of(cls, text: str) -> Var:
        return cls(((text,) if text else (),))


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file that the task wrote: what it holds, as far as that is known."""

    content: Parts
    is_executable: bool = False


@dataclass(slots=True)
class State:
    """One shell process. `cwd` is None when it cannot be known."""

    home: str = "/home/user"
    cwd: str | None = "/home/user"
    vars: dict[str, Var] = field(default_factory=dict)
    functions: dict[str, Stmt] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    exported: frozenset[str] = frozenset()  # Functions that shells of this shell know too.
    positional: tuple[Field, ...] = ()
    zero: Parts = ("bash",)
    files: dict[str, WrittenFile] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    programs: dict[str, str] = field(default_factory=dict)  # Copies of files, which run as what they were copied from.
    dirs: list[str | None] = field(default_factory=list)

    def copy(self) -> State:
        """A subshell of this shell. Files are shared: a subshell writes to the same disk."""
        return replace(
            self,
            vars=dict(self.vars),
            functions=dict(self.functions),
            aliases=dict(self.aliases),
            dirs=list(self.dirs),
        )

    @property
    def ifs(self) -> str | None:
        found = self.vars.get("IFS")
        if found is None:
            return BLANKS
        value = found.values[0]
        return None if any(isinstance(part, Gap) for part in value) else "".join(map(str, value))


# Variables of the shell and its start whose text is not known, though it is not empty.
_UNKNOWN = ("SSH_CONNECTION", "SSH_CLIENT", "DISPLAY", "FUNCNAME", "BASH_COMMAND", "BASH_EXECUTION_STRING")


def fresh_state(user: str, secret_names: Collection[str] = ()) -> State:
    """The shell that a task starts in: a cleaned environment and the secrets, in the home of the account."""
    name = user if _USER.fullmatch(user) else "user"
    home = "/root" if name == "root" else f"/home/{name}"
    state = State(home=home, cwd=home)
    settled = {"HOME": home, "PWD": home, "USER": name, "LOGNAME": name, "SHELL": "/bin/bash", "PATH": PATH}
    settled |= {"TMPDIR": "/tmp", "LANG": "C.UTF-8", "TERM": "dumb", "OLDPWD": home, "OSTYPE": "linux-gnu"}
    settled |= {"BASH": "/bin/bash", "SHLVL": "1", "IFS": BLANKS}
    state.vars.update({key: Var.of(value) for key, value in settled.items()})
    numbers = ("RANDOM", "SRANDOM", "SECONDS", "EPOCHSECONDS", "LINENO", "BASHPID", "PPID", "UID", "EUID", "COLUMNS")
    names = ("HOSTNAME", "HOSTTYPE", "MACHTYPE", "BASH_VERSION", "EPOCHREALTIME", "LINES")
    state.vars.update({key: Var(((Gap(Source.OUTPUT, Shape.NUMBER),),)) for key in numbers})
    state.vars.update({key: Var(((Gap(Source.OUTPUT, Shape.NAME),),)) for key in names})
    state.vars.update({key: Var(((Gap(Source.PARAMETER),),)) for key in _UNKNOWN})
    secret = Var(((Gap(Source.PARAMETER),),), is_exported=True)
    state.vars.update(dict.fromkeys(secret_names, secret))
    return state


def merged(branches: list[State], into: State) -> None:
    """What is known after one of several branches ran, and nobody knows which."""
    first = branches[0]
    into.functions = {name: body for branch in branches for name, body in branch.functions.items()}
    into.aliases = {name: text for branch in branches for name, text in branch.aliases.items()}
    into.cwd = first.cwd if all(branch.cwd == first.cwd for branch in branches) else _joined_cwd(branches)
    into.positional = first.positional if all(b.positional == first.positional for b in branches) else ()
    if len(branches) == 1:
        into.vars = first.vars
        return
    names = {name for branch in branches for name in branch.vars}
    into.vars = {name: _one_of([branch.vars.get(name, UNSET) for branch in branches]) for name in names}


def _joined_cwd(branches: list[State]) -> str | None:
    """A branch that changes the directory is the one that is meant; two that differ leave it open."""
    places = {branch.cwd for branch in branches[1:]} | {branches[0].cwd}
    changed = [place for place in places if place != branches[0].cwd]
    return changed[0] if len(changed) == 1 else None


def _one_of(vars_: list[Var]) -> Var:
    first = vars_[0]
    if all(var == first for var in vars_[1:]):
        return first
    if any(var.items is not None for var in vars_):
        return next(var for var in reversed(vars_) if var.items is not None)
    values = tuple(dict.fromkeys(value for var in vars_ for value in var.values))
    if len(values) > MAX_ALTERNATIVES:
        return replace(first, values=((Gap(Source.PARAMETER),),))
    return replace(first, values=values)


UNSET = Var()
