"""The walk through a script: each statement in order, with what the shell would know when it gets there.

Both arms of a branch are walked, a loop over known words is unrolled, a function is entered where it is called. What a
statement prints is its result, so that a pipe and a substitution carry it on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from server_monitor.tasks.policy import assigning, branches, conditions, coprocesses, effects, loops, paths, words
from server_monitor.tasks.policy.arithmetic import evaluated
from server_monitor.tasks.policy.calls import Call, Frame, Lookup, variants
from server_monitor.tasks.policy.parameters import Choices, lookup
from server_monitor.tasks.policy.parsing import Dialect, SyntaxWrong
from server_monitor.tasks.policy.programs import NETWORK_PIPES, SHELLS
from server_monitor.tasks.policy.redirects import Redirections, redirected
from server_monitor.tasks.policy.shell import MAX_DEPTH, Account, Finding, SimpleCommand
from server_monitor.tasks.policy.standard_input import Input
from server_monitor.tasks.policy.state import State, Var, WrittenFile
from server_monitor.tasks.policy.tree import (
    ArithmCmd,
    BinaryCmd,
    Block,
    CallExpr,
    CaseClause,
    Command,
    CoprocClause,
    DeclClause,
    ForClause,
    FuncDecl,
    IfClause,
    LetClause,
    Node,
    ProcSubst,
    Stmt,
    Subshell,
    TestClause,
    TimeClause,
    WhileClause,
    Word,
)
from server_monitor.tasks.policy.values import (
    CarriedSpan,
    Field,
    Gap,
    Parts,
    Shape,
    Source,
    Span,
    is_endless,
    joined,
)

Invoker = Callable[[Call, Redirections | None, Lookup], Parts]


@dataclass(slots=True)
class Walker:
    """A shell that looks at every command instead of running it."""

    account: Account
    state: State
    invoker: Invoker
    dialect: Dialect = "bash"
    via: tuple[str, ...] = ()
    base: int | None = 0  # Where the text begins in what the person wrote; None when it is not a piece of it.
    carrier: Span = (0, 0)
    frames: list[Frame] = field(default_factory=list)
    stdin: Input = field(default_factory=lambda: Input(None))
    depth: int = 0
    endless: int = 0
    descriptors: dict[str, Parts] = field(default_factory=dict)
    sinks: dict[str, Field] = field(default_factory=dict)  # Descriptors that were opened for writing.
    consumers: dict[str, Sequence[Stmt]] = field(default_factory=dict)  # Pipes by name, and what reads from them.

    # --- what word expansion asks ---

    def captured(self, stmts: Sequence[Stmt]) -> Parts:
        only = stmts[0] if len(stmts) == 1 else None
        if only is not None and only.cmd is None and len(only.redirs) == 1 and only.redirs[0].op == "<":
            return _trimmed(self.content(Field(self.value(only.redirs[0].word)[0])))
        with self.subshell(), self.descended():
            printed = _trimmed(self.run(stmts))
        if any(isinstance(part, Gap) and is_endless(part) for part in printed) and stmts:
            self.find("bomb.fill", "reads an endless source into memory", self.located(stmts[0]))
        return printed

    def substituted(self, node: ProcSubst) -> Parts:
        with self.subshell(), self.descended():
            printed = self.run(node.stmts)
        if node.op.startswith(">"):
            return (self.waiting(node.stmts),)
        name = f"/dev/fd/pipe{len(self.state.files)}"
        self.state.files[name] = WrittenFile(printed)
        return (name,)

    def waiting(self, stmts: Sequence[Stmt]) -> str:
        """The name of a pipe whose other end these statements read."""
        name = f"/dev/fd/into{len(self.consumers)}"
        self.consumers[name] = stmts
        return name

    def feed(self, name: str, content: Parts) -> None:
        """Something is written to a pipe: whoever reads it does so now."""
        stmts = self.consumers.pop(name)
        try:
            with self.subshell(), self.descended(), self.forked():
                self.run(stmts, content, own_input=True)
        finally:
            self.consumers[name] = stmts

    def expand_text(self, text: str) -> None:
        if "$(" not in text and "`" not in text and "<(" not in text:
            return
        self.run_text(f': "{_escaped(text)}"', "evaluated text", self.carrier)

    def assign_number(self, name: str, number: int | None) -> None:
        value: Parts = (str(number),) if number is not None else (Gap(Source.OUTPUT, Shape.NUMBER),)
        self.state.vars[name] = Var((value,))

    def value(self, word: Word | None) -> tuple[Parts, ...]:
        return words.value(word, self)

    def pattern(self, word: Word) -> str | None:
        return words.pattern(word, self)

    def lookup(self, name: str) -> Choices:
        return lookup(name, self)

    def spend(self, steps: int) -> None:
        self.account.step(steps)

    def located(self, node: Node) -> Span:
        if self.base is None:
            return CarriedSpan(self.carrier, (node.pos.offset, node.end.offset))
        return self.base + node.pos.offset, self.base + node.end.offset

    # --- statements ---

    def run(self, stmts: Sequence[Stmt], stdin: Parts | None = None, *, own_input: bool = False) -> Parts:
        """Walk the statements; what they print, one after the other."""
        if own_input:
            with self.reading(stdin):
                return self.run(stmts)
        printed = [self.statement(stmt) for stmt in stmts]
        return printed[0] if len(printed) == 1 else joined(*printed)

    def statement(self, stmt: Stmt) -> Parts:
        self.account.step()
        if stmt.background or stmt.coprocess:
            with self.forked():
                return self._redirected(stmt)
        return self._redirected(stmt)

    def _redirected(self, stmt: Stmt) -> Parts:
        if not stmt.redirs:
            return self._command(stmt.cmd, None, stmt)
        redirections = redirected(stmt.redirs, self)
        if redirections.stdin is not None:
            with self.reading(redirections.stdin):
                printed = self._command(stmt.cmd, redirections, stmt)
        else:
            printed = self._command(stmt.cmd, redirections, stmt)
        return redirections.written(printed, self)

    def _command(self, cmd: Command | None, redirections: Redirections | None, stmt: Stmt) -> Parts:
        match cmd:
            case None:
                return ()
            case CallExpr():
                return self._call(cmd, redirections, stmt)
            case BinaryCmd():
                return self._binary(cmd)
            case Block():
                return self.run(cmd.stmts)
            case Subshell():
                with self.subshell(), self.descended():
                    return self.run(cmd.stmts)
            case _:
                return self._compound(cmd)

    def _compound(self, cmd: Command) -> Parts:
        match cmd:
            case IfClause():
                return branches.if_clause(cmd, self)
            case WhileClause():
                return loops.while_clause(cmd, self)
            case ForClause():
                return loops.for_clause(cmd, self)
            case CaseClause():
                return branches.case_clause(cmd, self)
            case FuncDecl():
                self.state.functions[cmd.name.value] = cmd.body
                if cmd.name.value in CALLED_BY_THE_SHELL:
                    self._called_by_the_shell(cmd)
                return ()
            case CoprocClause():
                return coprocesses.coproc(cmd, self)
            case TimeClause():
                return self.statement(cmd.stmt) if cmd.stmt else ()
            case _:
                return self._expression(cmd)

    def _called_by_the_shell(self, cmd: FuncDecl) -> None:
        """A function that the shell calls by itself, with words that nobody knows."""
        kept, self.state = self.state, self.state.copy()
        self.state.positional = (Field((Gap(Source.PARAMETER),), self.located(cmd)),)
        try:
            self.statement(cmd.body)
        finally:
            self.state = kept

    def _expression(self, cmd: Command) -> Parts:
        match cmd:
            case TestClause():
                conditions.test(cmd.x, self)
            case ArithmCmd():
                evaluated(cmd.x, self)
            case LetClause():
                for expression in cmd.exprs:
                    evaluated(expression, self)
            case DeclClause():
                return assigning.declare(cmd, self)
            case _:
                raise AssertionError(f"a {type(cmd).__name__} is not walked")
        return ()

    def _binary(self, cmd: BinaryCmd) -> Parts:
        if cmd.op not in ("|", "|&"):
            left = self.statement(cmd.x)
            return joined(left, self.statement(cmd.y))
        begin = len(self.account.commands)
        with self.subshell(), self.descended(), self.forked():
            left = self.statement(cmd.x)
        middle = len(self.account.commands)
        with self.subshell(), self.descended(), self.forked(), self.reading(left):
            right = self.statement(cmd.y)
        self._judge_pipe(begin, middle, self.located(cmd))
        return right

    def _judge_pipe(self, begin: int, middle: int, span: Span) -> None:
        before = self.account.commands[begin:middle]
        after = self.account.commands[middle:]
        talks = next((c for c in after if c.name in NETWORK_PIPES), None)
        shell = next((c for c in before if c.name in SHELLS and "-c" not in c.rendered.split()), None)
        if talks is not None and shell is not None:
            self.find("rce.reverse_shell", f"connects the shell {shell.name} with {talks.name}", span)

    # --- simple commands ---

    def invoke(
        self, call: Call, redirections: Redirections | None = None, *, lookup: Lookup = Lookup.FUNCTION
    ) -> Parts:
        """Judge one simple command; what it prints."""
        return self.invoker(call, redirections, lookup)

    def _call(self, cmd: CallExpr, redirections: Redirections | None, stmt: Stmt) -> Parts:
        fields = words.expand_all(cmd.args, self)
        if not fields:
            for assign in cmd.assigns:
                assigning.assign(assign, self)
            return ()
        env = {a.name.value: self.value(a.value)[0] for a in cmd.assigns if a.name and not a.array}
        span = self.located(cmd)
        printed = [
            self.invoke(
                Call(
                    "",
                    variant[1:],
                    span,
                    self,
                    stdin=self.stdin.parts,
                    env=env,
                    word=variant[0],
                    is_background=stmt.background,
                ),
                redirections,
            )
            for variant in variants(fields)
        ]
        return branches.either(printed)

    def run_text(
        self, text: str, how: str, span: Span, *, dialect: Dialect | None = None, stdin: Parts | None = None
    ) -> Parts:
        """Walk a text as a script of its own inside this shell; what it prints.

        `span` is where the text stands. A text that no shell would run is an opaque finding.
        """
        if self.depth >= MAX_DEPTH:
            self.find("opaque.limit", f"nests commands in commands more than {MAX_DEPTH} deep", span)
            return (Gap(Source.OUTPUT),)
        if not text.strip():
            return ()
        inner = text.encode("utf-8", "surrogatepass")
        begin = self.account.text.find(inner, span[0], span[1]) if self.base is not None else -1
        kept = (self.base, self.carrier, self.via, self.depth, self.dialect)
        # The name of a script is shown as a step on the way to what it runs.
        self.via = (*self.via, how) if how else self.via
        self.depth += 1
        self.account.deepest = max(self.account.deepest, self.depth)
        self.dialect = dialect or self.dialect
        self.base, self.carrier = (begin, span) if begin >= 0 else (None, span)
        try:
            tree = self.account.tree(text, self.dialect)
            if stdin is not None:
                return self.run(tree.stmts, stdin, own_input=True)
            return self.run(tree.stmts)
        except (SyntaxWrong, UnicodeEncodeError):
            self.find("opaque.eval", "runs a text that cannot be parsed as a script", span)
            return (Gap(Source.OUTPUT),)
        finally:
            self.base, self.carrier, self.via, self.depth, self.dialect = kept

    def content(self, file: Field) -> Parts:
        """What a file holds, as far as this task wrote it; else where it comes from."""
        place = paths.place_of(file.parts, self.state)
        if place.is_exact and place.text in self.state.files:
            return self.state.files[place.text].content
        if place.text.startswith(("/dev/tcp/", "/dev/udp/")):
            return (Gap(Source.NETWORK, detail=place.text),)
        if place.text in ("/dev/zero", "/dev/full"):
            return (Gap(Source.ENDLESS, detail=place.text),)
        if place.text in ("/dev/urandom", "/dev/random"):
            return (Gap(Source.RANDOM, detail=place.text),)
        if (number := paths.descriptor(place)) is not None:
            given = self.stdin.parts if number == "0" else self.descriptors.get(number)
            return given if given is not None else (Gap(Source.INPUT),)
        source = Source.SECRET if paths.is_secret(place) else Source.FILE
        if not place.is_exact and place.text in ("/run", "/var/run") and place.gap is None:
            return (Gap(Source.ALL_PROCESSES, Shape.NUMBER, detail=file.shown),)
        shape = Shape.NUMBER if place.text.endswith(".pid") else Shape.ANY
        return (Gap(source, shape, detail=place.text or file.shown),)

    def find(self, rule: str, why: str, span: Span, *, resolved: str = "") -> None:
        payload = span.payload if isinstance(span, CarriedSpan) else None
        finding = Finding(rule, why, (span[0], span[1]), self.via, resolved, payload)
        self.account.report(finding)

    def changed(self, name: str, values: tuple[Parts, ...]) -> None:
        """A variable has a new value: some make other programs run code."""
        for value in values:
            effects.judge_variable(name, value, self, self.carrier)

    def note(self, command: SimpleCommand) -> None:
        self.account.look(len(command.rendered))
        self.account.commands.append(command)

    # --- scopes ---

    @contextmanager
    def subshell(self) -> Iterator[None]:
        kept = self.state
        self.state = kept.copy()
        try:
            yield
        finally:
            kept.files, kept.links, kept.programs = self.state.files, self.state.links, self.state.programs
            self.state = kept

    @contextmanager
    def descended(self) -> Iterator[None]:
        self.depth += 1
        self.account.deepest = max(self.account.deepest, self.depth)
        try:
            yield
        finally:
            self.depth -= 1

    @contextmanager
    def forked(self) -> Iterator[None]:
        kept = self.frames
        self.frames = [replace(frame, is_forked=True) for frame in kept]
        try:
            yield
        finally:
            self.frames = kept

    @contextmanager
    def reading(self, stdin: Parts | None) -> Iterator[None]:
        kept = self.stdin
        self.stdin = Input(stdin)
        try:
            yield
        finally:
            self.stdin = kept

    @contextmanager
    def through(self, how: str) -> Iterator[None]:
        """Inside a wrapper such as sudo."""
        kept = self.via
        self.via = (*kept, how)
        try:
            yield
        finally:
            self.via = kept


CALLED_BY_THE_SHELL = frozenset(("command_not_found_handle", "command_not_found_handler", "precmd", "preexec", "chpwd"))


def _trimmed(parts: Parts) -> Parts:
    if parts and isinstance(parts[-1], str):
        last = parts[-1].rstrip("\n")
        return (*parts[:-1], last) if last else parts[:-1]
    return parts


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
