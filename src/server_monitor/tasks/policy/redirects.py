"""Redirections: what a command reads from, and what happens to the files it writes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from server_monitor.tasks.policy import paths, words
from server_monitor.tasks.policy.shell import Write
from server_monitor.tasks.policy.state import Var
from server_monitor.tasks.policy.tree import Redirect
from server_monitor.tasks.policy.values import Field, Gap, Parts, Source, Span, joined
from server_monitor.tasks.policy.writing import write

if TYPE_CHECKING:
    from server_monitor.tasks.policy.walk import Walker
_STANDARD = ("", "0", "1", "2")
WRITES = frozenset((">", ">>", ">|", "&>", "&>>", "<>", ">&", ">!", ">>!", "&>|", "&>!"))


@dataclass(frozen=True, slots=True)
class Target:
    """A file that output goes to."""

    file: Field
    is_appended: bool
    takes_stdout: bool


@dataclass(slots=True)
class Redirections:
    stdin: Parts | None = None
    targets: list[Target] = field(default_factory=list)
    network: str = ""
    is_standard: bool = False  # The network is at standard input, output or error, where a shell listens and answers.
    span: Span = (0, 0)
    is_fifo: bool = False

    def written(self, printed: Parts, walker: Walker) -> Parts:
        """Judge what is written where; what remains on standard output."""
        left = printed
        for target in self.targets:
            goes = printed if target.takes_stdout else ()
            write(target.file, goes, walker, is_appended=target.is_appended, is_redirect=True)
            if target.takes_stdout:
                left = ()
        return left


def redirected(redirects: Sequence[Redirect], walker: Walker) -> Redirections:
    """Resolve the redirections of one statement. Substitutions inside them run."""
    found = Redirections()
    for redirect in redirects:
        span = walker.located(redirect)
        if redirect.op in ("<<", "<<-"):
            quoted = words.is_quoted_delimiter(redirect.word)
            text = words.heredoc(redirect.hdoc, walker, is_quoted=quoted)
            _reads(redirect, _dedented(text) if redirect.op == "<<-" else text, found, walker)
            continue
        choices = walker.value(redirect.word)
        if redirect.op == "<<<":
            _reads(redirect, joined(choices[0], ("\n",)), found, walker)
            continue
        for choice in choices:
            _one(redirect, Field(choice, span), found, walker)
    return found


def _reads(redirect: Redirect, content: Parts, found: Redirections, walker: Walker) -> None:
    """What stands on a descriptor for reading: standard input, or one that a later command names."""
    number = _number(redirect, walker)
    if number in ("", "0"):
        found.stdin = content
    else:
        walker.descriptors[number] = content


def _number(redirect: Redirect, walker: Walker) -> str:
    """The descriptor that is opened. For `{name}` the shell takes a free one and sets the variable."""
    text = redirect.n.value if redirect.n else ""
    if not text.startswith("{"):
        return text
    name = text.strip("{}")
    number = str(10 + len(walker.descriptors) + len(walker.sinks))
    walker.state.vars[name] = Var.of(number)
    return number


def _one(redirect: Redirect, file: Field, found: Redirections, walker: Walker) -> None:
    number = _number(redirect, walker)
    place = paths.place_of(file.parts, walker.state)
    if place.text.startswith(("/dev/tcp/", "/dev/udp/")):
        _network(redirect, number, file, found, walker, path=place.text)
    elif redirect.op in ("<&", ">&") and (file.text or "").strip("-").isdigit():
        _descriptor(redirect, number, file, found, walker)
    elif redirect.op == "<" and number in ("", "0"):
        found.stdin = walker.content(file)
    elif redirect.op == "<":
        walker.descriptors[number] = walker.content(file)
    elif redirect.op in WRITES and file.text != "-":
        found.targets.append(Target(file, ">>" in redirect.op, _takes_stdout(redirect, number)))
        walker.account.writes.append(Write(place.text if place.is_exact else None, file.span))
        if number not in ("", "1", "2"):
            walker.sinks[number] = file


def _takes_stdout(redirect: Redirect, number: str) -> bool:
    return number in ("", "1") or redirect.op.startswith("&")


def _network(redirect: Redirect, number: str, file: Field, found: Redirections, walker: Walker, *, path: str) -> None:
    found.network, found.span = path, file.span
    found.is_standard = found.is_standard or number in _STANDARD
    walker.descriptors[number or "0"] = (Gap(Source.NETWORK, detail=path),)
    if redirect.op in WRITES:
        found.targets.append(Target(file, True, _takes_stdout(redirect, number)))
        if number not in _STANDARD:
            walker.sinks[number] = file
    if redirect.op in ("<", "<>") and number in ("", "0"):
        found.stdin = (Gap(Source.NETWORK, detail=path),)


def _descriptor(redirect: Redirect, number: str, file: Field, found: Redirections, walker: Walker) -> None:
    """`<&5` and `>&5`: what was opened as 5 before. The arrow only says which descriptor is meant without a number."""
    other = (file.text or "").strip("-")
    number = number or ("0" if redirect.op == "<&" else "1")
    if (content := walker.descriptors.get(other)) is not None:
        if any(isinstance(part, Gap) and part.source is Source.NETWORK for part in content):
            found.network, found.span = f"descriptor {other}", file.span
            found.is_standard = found.is_standard or number in _STANDARD
        if number == "0":
            found.stdin = content
        elif number not in _STANDARD:
            walker.descriptors[number] = content
    if other not in walker.sinks:
        return
    if number == "1":
        found.targets.append(Target(walker.sinks[other], True, True))
    elif number not in _STANDARD:
        walker.sinks[number] = walker.sinks[other]


def _dedented(parts: Parts) -> Parts:
    return tuple(
        "\n".join(line.lstrip("\t") for line in part.split("\n")) if isinstance(part, str) else part for part in parts
    )
