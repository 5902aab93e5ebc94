"""What the parts of the analysis share: the shell they all look at, and the account of what was found in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from server_monitor.tasks.policy.parsing import Dialect, Parse, SyntaxWrong, TooComplex
from server_monitor.tasks.policy.plain import plain_tree
from server_monitor.tasks.policy.state import State
from server_monitor.tasks.policy.tree import File, Node, ProcSubst, Stmt, Word
from server_monitor.tasks.policy.values import Parts, Span

MAX_COMMANDS = 512
MAX_STEPS = 2_000
MAX_PARSES = 8
# Characters of all simple commands, those in wrappers counted each time, and twice those of scripts inside.
MAX_LOOKED_AT = 16_000
MAX_DEPTH = 12
MAX_PATTERNS = 50
MAX_OF_ONE_RULE = 64  # More of a kind than that say nothing new.
MAX_PAYLOAD = 10_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a rule has against the command. Spans are bytes; `payload_span` is inside decoded text."""

    rule: str
    why: str
    span: Span
    via: tuple[str, ...] = ()
    resolved: str = ""
    payload_span: Span | None = None


@dataclass(frozen=True, slots=True)
class SimpleCommand:
    """A simple command as patterns see it. `is_opaque` when a part of it is not known before it runs.

    `called` is the same with the program as it was called: with its directory, unless that is one of the system's.
    """

    rendered: str
    span: Span
    via: tuple[str, ...]
    is_opaque: bool
    name: str = ""
    called: str = ""
    is_from_system: bool = True

    @property
    def forms(self) -> tuple[str, ...]:
        """What an allowed pattern may match: a program of an unusual place only under the name of that place."""
        return (self.called, self.rendered) if self.is_from_system else (self.called,)


@dataclass(frozen=True, slots=True)
class Write:
    """A redirection or a command that writes to a path; None when the path is not known."""

    path: str | None
    span: Span


@dataclass(frozen=True, slots=True)
class SearchPath:
    """A variable by which programs or libraries are found in unusual places."""

    name: str
    value: str
    span: Span


@dataclass(slots=True)
class Account:
    """Everything that one analysis finds, and what it may still spend."""

    text: bytes
    parse: Parse
    dialect: Dialect
    findings: list[Finding] = field(default_factory=list)
    commands: list[SimpleCommand] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    search_paths: list[SearchPath] = field(default_factory=list)
    deepest: int = 0
    steps: int = 0
    parses: int = 0
    looked_at: int = 0
    patterns: int = 0
    by_rule: dict[str, set[Finding]] = field(default_factory=dict)
    parsed: dict[tuple[str, Dialect], File | SyntaxWrong] = field(default_factory=dict)

    def step(self, count: int = 1) -> None:
        self.steps += count
        if self.steps > MAX_STEPS or len(self.commands) > MAX_COMMANDS:
            raise TooComplex("The command does more than can be judged.")

    def report(self, finding: Finding) -> None:
        """Keep a finding, once."""
        same = self.by_rule.setdefault(finding.rule, set())
        if finding not in same and len(same) < MAX_OF_ONE_RULE:
            same.add(finding)
            self.findings.append(finding)

    def withdraw(self, begin: int, kept: list[Finding]) -> None:
        """Of the findings since the one numbered `begin`, only these count."""
        for finding in self.findings[begin:]:
            self.by_rule[finding.rule].discard(finding)
        del self.findings[begin:]
        for finding in kept:
            self.report(finding)

    @property
    def is_spent(self) -> bool:
        return self.looked_at > MAX_LOOKED_AT or self.patterns > MAX_PATTERNS

    def pattern(self) -> None:
        """Count a place that is a pattern, which is tried against every place that a host needs."""
        self.patterns += 1
        if self.patterns > MAX_PATTERNS:
            raise TooComplex("The command names more patterns than can be judged.")

    def look(self, characters: int) -> None:
        """Count the text of a command: what a wrapper's words cost, each of the wrappers inside it costs again."""
        self.looked_at += characters
        if self.looked_at > MAX_LOOKED_AT:
            raise TooComplex("The command does more than can be judged.")

    def tree(self, text: str, dialect: Dialect) -> File:
        """The tree of a text inside the command. Raises SyntaxWrong, or TooComplex when there were too many."""
        if len(text) > MAX_PAYLOAD:
            raise TooComplex("A text inside the command is longer than can be judged.")
        self.look(2 * len(text))
        key = (text, dialect)
        if key not in self.parsed:
            self.parsed[key] = self._parsed_anew(text, dialect)
        found = self.parsed[key]
        if isinstance(found, SyntaxWrong):
            raise found
        return found

    def _parsed_anew(self, text: str, dialect: Dialect) -> File | SyntaxWrong:
        if simple := plain_tree(text):
            return simple
        self.parses += 1
        if self.parses > MAX_PARSES:
            raise TooComplex("The command holds more scripts than can be judged.")
        try:
            return self.parse(text, dialect)
        except SyntaxWrong as wrong:
            return wrong


class Shell(Protocol):
    """What word expansion needs of the shell around it."""

    state: State

    def captured(self, stmts: Sequence[Stmt]) -> Parts:
        """Run in a subshell; what it prints, without the line ends after it."""

    def substituted(self, node: ProcSubst) -> Parts:
        """The name of a pipe to or from a command."""

    def expand_text(self, text: str) -> None:
        """Run the substitutions that hide in text which a shell evaluates once more."""

    def assign_number(self, name: str, number: int | None) -> None:
        """Set a variable from arithmetic; None when the number is not known."""

    def value(self, word: Word | None) -> tuple[Parts, ...]:
        """What the word may be where it stays one."""

    def lookup(self, name: str) -> tuple[tuple[Parts, ...], ...]:
        """The values that a variable may have, each a list of words."""

    def pattern(self, word: Word) -> str | None:
        """The word as a shell pattern, when it is known."""

    def spend(self, steps: int) -> None:
        """Count work that is more than a step. Raises TooComplex when there was too much."""

    def find(self, rule: str, why: str, span: Span) -> None:
        """Report what a rule has against the command."""

    def located(self, node: Node) -> Span:
        """Where the node stands in the text that a person wrote."""
