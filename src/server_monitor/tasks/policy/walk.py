"""The walk through a script: each statement in order, with what the shell would know when it gets there.

Both arms of a branch are walked, a loop over known words is unrolled, a function is entered where it is called. What a
statement prints is its result, so that a pipe and a substitution carry it on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import msgspec

from server_monitor.tasks.policy import assigning, effects, paths, words
from server_monitor.tasks.policy.arithmetic import evaluated
from server_monitor.tasks.policy.calls import Call, Frame
from server_monitor.tasks.policy.endless import HUGE_COUNT, seconds
from server_monitor.tasks.policy.parameters import Choices, lookup
from server_monitor.tasks.policy.parsing import Dialect, SyntaxWrong
from server_monitor.tasks.policy.programs import NETWORK_PIPES, SHELLS
from server_monitor.tasks.policy.redirects import WRITES, Redirections, redirected
from server_monitor.tasks.policy.shell import MAX_DEPTH, Account, Finding, SimpleCommand
from server_monitor.tasks.policy.state import State, Var, WrittenFile, merged
from server_monitor.tasks.policy.tree import (
    ArithmCmd,
    ArithmExp,
    BinaryCmd,
    BinaryTest,
    Block,
    CallExpr,
    CaseClause,
    Clause,
    CmdSubst,
    Command,
    CoprocClause,
    DblQuoted,
    DeclClause,
    ForClause,
    FuncDecl,
    IfClause,
    LetClause,
    Lit,
    Node,
    ParamExp,
    ParenTest,
    Position,
    ProcSubst,
    Stmt,
    Subshell,
    TestClause,
    TestExpr,
    TimeClause,
    UnaryTest,
    WhileClause,
    Word,
    WordIter,
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
    text_of,
)

MAX_ROUNDS = 64
MAX_UNROLLED_STEPS = 400
MAX_INPUT_LINES = 64


Invoker = Callable[[Call, Redirections | None, bool], Parts]


@dataclass(slots=True)
class Input:
    """Standard input, read a line at a time by `read`."""

    parts: Parts | None

    def line(self) -> Parts | None:
        """The next line; None at the end of what is known."""
        if self.parts is None:
            return (Gap(Source.INPUT),)
        if not self.parts:
            return None
        first = self.parts[0]
        if not isinstance(first, str):
            return (first,)
        head, newline, rest = first.partition("\n")
        if newline:
            self.parts = (rest, *self.parts[1:]) if rest else self.parts[1:]
            return (head,) if head else ()
        taken = self.parts
        if len(self.parts) == 1:
            self.parts = ()
            return taken
        return taken

    @property
    def is_known(self) -> bool:
        return self.parts is not None and text_of(self.parts) is not None


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
            return (self._waiting(node.stmts),)
        name = f"/dev/fd/pipe{len(self.state.files)}"
        self.state.files[name] = WrittenFile(printed)
        return (name,)

    def _waiting(self, stmts: Sequence[Stmt]) -> str:
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
                return self._if(cmd)
            case WhileClause():
                return self._while(cmd)
            case ForClause():
                return self._for(cmd)
            case CaseClause():
                return self._case(cmd)
            case FuncDecl():
                self.state.functions[cmd.name.value] = cmd.body
                if cmd.name.value in CALLED_BY_THE_SHELL:
                    self._called_by_the_shell(cmd)
                return ()
            case CoprocClause():
                return self._coproc(cmd)
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

    def _coproc(self, cmd: CoprocClause) -> Parts:
        """A process of its own, whose standard input is a descriptor of this shell."""
        if cmd.stmt is None:
            return ()
        stmt = _coprocess(cmd)
        named = cmd.name is not None and not isinstance(cmd.stmt.cmd, CallExpr | None)
        name = (_literal(cmd.name) if named and cmd.name is not None else None) or "COPROC"
        number = str(60 + len(self.sinks))
        self.sinks[number] = Field((self._waiting([stmt]),), self.located(cmd))
        self.state.vars[name] = Var(items=(("0", ("61",)), ("1", (number,))))
        with self.subshell(), self.descended(), self.forked():
            return self.statement(stmt)

    def _expression(self, cmd: Command) -> Parts:
        match cmd:
            case TestClause():
                self._test(cmd.x)
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

    # --- branches and loops ---

    def _if(self, clause: Clause) -> Parts:
        branches: list[State] = []
        printed: list[Parts] = []
        arm: Clause | None = clause
        saw_else = False
        while arm is not None:
            if arm.cond:
                printed.append(self.run(arm.cond))
            saw_else = saw_else or not arm.cond
            printed.append(self._branch(arm.then, branches))
            arm = arm.else_
        if not saw_else:
            branches.append(self.state.copy())
        merged(branches, self.state)
        return _either(printed)

    def _branch(self, stmts: Sequence[Stmt], branches: list[State]) -> Parts:
        kept = self.state
        self.state = kept.copy()
        try:
            return self.run(stmts)
        finally:
            branches.append(self.state)
            self.state = kept

    def _case(self, cmd: CaseClause) -> Parts:
        self.value(cmd.word)
        branches: list[State] = [self.state.copy()]
        printed = []
        for item in cmd.items:
            for pattern in item.patterns:
                self.value(pattern)
            printed.append(self._branch(item.stmts, branches))
        merged(branches, self.state)
        return _either(printed)

    def _for(self, cmd: ForClause) -> Parts:
        if isinstance(cmd.loop, WordIter):
            return self._for_words(cmd, cmd.loop)
        if cmd.loop is None:
            return self._body(cmd.do, is_endless=True)
        evaluated(cmd.loop.init, self)
        printed: list[Parts] = []
        holds: int | None = None
        if cmd.loop.cond is None:
            return self._body(cmd.do, is_endless=True)
        for _ in range(MAX_ROUNDS):
            holds = evaluated(cmd.loop.cond, self)
            if holds == 0:
                return joined(*printed)
            if holds is None or self.account.steps > MAX_UNROLLED_STEPS:
                break
            printed.append(self.run(cmd.do))
            evaluated(cmd.loop.post, self)
        if holds != 0:
            self._judge_long_loop(cmd.do, rounds=_largest_number(cmd.loop.cond))
        return joined(*printed, self._body(cmd.do))

    def _for_words(self, cmd: ForClause, loop: WordIter) -> Parts:
        name = loop.name.value if loop.name else "_"
        listed = bool(loop.items) or (loop.in_pos is not None and loop.in_pos.offset > 0)
        fields = words.expand_all(loop.items, self) if listed else list(self.state.positional)
        values = [parts for item in fields for parts in (item.parts, *item.alts)]
        rounds = max(len(values), words.count(loop.items), *(_rounds(parts) for parts in values), 0)
        if rounds > MAX_ROUNDS:
            self._judge_long_loop(cmd.do, rounds=rounds)
        printed: list[Parts] = []
        for place, parts in enumerate(values):
            if place >= MAX_ROUNDS or self.account.steps > MAX_UNROLLED_STEPS:
                self.state.vars[name] = Var(tuple(values[place : place + 8]))
                printed.append(self.run(cmd.do))
                break
            self.state.vars[name] = Var((_one_word(parts),))
            printed.append(self.run(cmd.do))
        return joined(*printed)

    def _judge_long_loop(self, stmts: Sequence[Stmt], *, rounds: int) -> None:
        """Hundreds of rounds that each leave a process behind, and very many that each leave a file."""
        left = next((stmt for stmt in _all_statements(stmts) if _is_left_behind(stmt)), None)
        if left is not None and not self._is_paced(stmts):
            self.find("bomb.fork", "starts hundreds of processes at once", self.located(left))
        if rounds >= HUGE_COUNT and stmts and (made := _makes_files(stmts, by_variable=True)):
            self.find("bomb.fill", f"{made} in {rounds} rounds", self.located(stmts[0]))
        if stmts and any(name in ("kill", "pkill") for name in _first_names(stmts)) and not self._is_paced(stmts):
            self.find("sys.kill_all", "ends hundreds of processes", self.located(stmts[0]))

    def _while(self, cmd: WhileClause) -> Parts:
        is_endless = _is_always(cmd)
        if not is_endless and self.stdin.is_known and _reads(cmd.cond):
            return self._while_reading(cmd)
        self.run(cmd.cond)
        if not is_endless and (rounds := max((_largest_number(stmt) for stmt in cmd.cond), default=0)) >= HUGE_COUNT:
            self._judge_long_loop(cmd.do, rounds=rounds)
        return self._body(cmd.do, is_endless=is_endless, cond=cmd.cond)

    def _while_reading(self, cmd: WhileClause) -> Parts:
        printed: list[Parts] = []
        for _ in range(MAX_INPUT_LINES):
            if not self.stdin.parts:
                break
            self.run(cmd.cond)
            printed.append(self.run(cmd.do))
        return joined(*printed)

    def _body(self, stmts: Sequence[Stmt], *, is_endless: bool = False, cond: Sequence[Stmt] = ()) -> Parts:
        """A body that runs any number of times: once, and once more when the first time changed a variable."""
        before = self.state.copy()
        self.endless += is_endless
        paced = is_endless and self._is_paced([*cond, *stmts])
        try:
            if is_endless and not paced:
                self._judge_endless(stmts)
            printed = self.run(stmts)
            changed = {name for name, var in self.state.vars.items() if before.vars.get(name) != var}
            if changed:
                merged([before, self.state.copy()], self.state)
                self.run(stmts)
        finally:
            self.endless -= is_endless
        if text_of(printed) == "":
            return ()
        return (Gap(Source.ENDLESS if is_endless and not paced else Source.OUTPUT),)

    def _is_paced(self, stmts: Sequence[Stmt]) -> bool:
        """Does a round of the loop wait for something, or can it end?"""
        return any(_waits(stmt) for stmt in _all_statements(stmts, foreground=True))

    def _judge_endless(self, stmts: Sequence[Stmt]) -> None:
        for stmt in _all_statements(stmts):
            if _is_left_behind(stmt):
                self.find("bomb.fork", "starts a new process in each round of an endless loop", self.located(stmt))
            cmd = stmt.cmd
            if isinstance(cmd, CallExpr):
                for assign in cmd.assigns:
                    if assign.name and assign.value and _grows(assign.name.value, assign.value, assign.append):
                        why = f"doubles the variable {assign.name.value} in an endless loop"
                        self.find("bomb.fill", why, self.located(stmt))
            if any(redirect.op in (">>", "&>>") for redirect in stmt.redirs) and not _to_nothing(stmt):
                self.find("bomb.fill", "writes to a file in an endless loop", self.located(stmt))
        if stmts and (made := _makes_files(stmts)):
            self.find("bomb.fill", f"{made} in an endless loop", self.located(stmts[0]))
        elif all(name in QUICK for name in _first_names(stmts)):
            self.find("bomb.fill", "keeps a processor busy without end", self.located(stmts[0]))

    def _test(self, node: TestExpr | None) -> None:
        match node:
            case Word():
                self.value(node)
            case UnaryTest():
                self._test(node.x)
                if node.op in ("-v", "-R") and isinstance(node.x, Word):
                    self._evaluate(node.x)
            case BinaryTest():
                self._test(node.x)
                self._test(node.y)
                if node.op in ("-eq", "-ne", "-lt", "-le", "-gt", "-ge"):
                    for side in (node.x, node.y):
                        if isinstance(side, Word):
                            self._evaluate(side)
            case ParenTest():
                self._test(node.x)
            case _:
                pass

    def _evaluate(self, word: Word) -> None:
        """A text that a test takes as arithmetic, and so expands once more."""
        for choice in self.value(word):
            if text := text_of(choice):
                self.expand_text(text)
                if text.isidentifier():
                    evaluated(word, self)

    # --- simple commands ---

    def invoke(self, call: Call, redirections: Redirections | None = None, *, is_program: bool = False) -> Parts:
        """Judge one simple command; what it prints."""
        return self.invoker(call, redirections, is_program)

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
            for variant in _variants(fields)
        ]
        return _either(printed)

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
        if finding not in self.account.findings:
            self.account.findings.append(finding)

    def changed(self, name: str, values: tuple[Parts, ...]) -> None:
        """A variable has a new value: some make other programs run code."""
        for value in values:
            effects.judge_variable(name, value, self, self.carrier)

    def note(self, command: SimpleCommand) -> None:
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
MAKES_FILES = frozenset(
    ("mktemp", "touch", "mkdir", "cp", "fallocate", "dd", "docker", "tee", "useradd", "logger", "mkfifo", "ln", "split")
)
# Programs that return while what they started goes on.
LEAVES = frozenset(
    ("setsid", "systemd-run", "at", "batch", "daemonize", "daemon", "start-stop-daemon", "disown", "screen", "tmux")
)
MIN_PAUSE_S = 0.1
QUICK = frozenset((":", "true", "echo", "printf", "[", "test", "let", "expr", "false"))
PACED = frozenset(("sleep", "wait", "read", "inotifywait", "break", "exit", "return", "select", "timeout", "usleep"))
MAX_VARIANTS = 24


def _variants(fields: list[Field]) -> list[list[Field]]:
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


def _coprocess(cmd: CoprocClause) -> Stmt:
    """What a coprocess runs. Before a simple command bash takes no name: what the parser took for one is the command.

    The parser also takes words like `of=/dev/sda` behind the command for assignments there.
    """
    stmt = cmd.stmt
    assert stmt is not None
    if not isinstance(stmt.cmd, CallExpr | None):
        return stmt
    call = stmt.cmd or CallExpr(cmd.pos, cmd.end)
    assigned = [
        Word(a.pos, a.end, [Lit(a.pos, a.end, f"{a.name.value}="), *(a.value.parts if a.value else [])])
        for a in call.assigns
        if a.name
    ]
    name = [cmd.name] if cmd.name is not None else []
    words_ = sorted([*name, *assigned, *call.args], key=lambda word: word.pos.offset)
    return msgspec.structs.replace(stmt, cmd=CallExpr(call.pos, call.end, [], words_))


def _either(printed: list[Parts]) -> Parts:
    different = list(dict.fromkeys(printed))
    if len(different) == 1:
        return different[0]
    texts = [parts for parts in different if parts]
    return texts[0] if len(texts) == 1 else joined(*different)


def _one_word(parts: Parts) -> Parts:
    """An item of a list that was split already."""
    return tuple(
        replace(part, splits=False, shape=Shape.PATH if part.shape is Shape.ANY else part.shape)
        if isinstance(part, Gap)
        else part
        for part in parts
    )


def _trimmed(parts: Parts) -> Parts:
    if parts and isinstance(parts[-1], str):
        last = parts[-1].rstrip("\n")
        return (*parts[:-1], last) if last else parts[:-1]
    return parts


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _is_always(cmd: WhileClause) -> bool:
    """`while true`, `while :`, `until false` and their like."""
    only = cmd.cond[0] if len(cmd.cond) == 1 else None
    if only is None or only.cmd is None:
        return False
    if isinstance(only.cmd, ArithmCmd):
        return isinstance(only.cmd.x, Word) and _literal(only.cmd.x) not in ("0", None)
    if isinstance(only.cmd, TestClause):
        return isinstance(only.cmd.x, Word)
    if not isinstance(only.cmd, CallExpr):
        return False
    texts = [_literal(word) for word in only.cmd.args]
    if texts[:1] == ["sleep"] and not cmd.until:
        return True
    if texts[:1] in (["["], ["test"]):
        inner = [text for text in texts[1:] if text != "]"]
        if len(inner) == 2 and inner[0] in ("-e", "-f", "-d", "-s"):
            return inner[1] is not None  # Nothing says that it ever comes to be or goes.
        return len(inner) == 1 or (len(inner) == 3 and inner[0] is not None and inner[0] == inner[2])
    wanted = (["false"], ["/bin/false"]) if cmd.until else (["true"], [":"], ["/bin/true"])
    return texts in wanted or (texts[:1] == ["echo"] and not cmd.until) or texts[:1] == ["printf"]


def _literal(word: Word) -> str | None:
    value = getattr(word.parts[0], "value", None) if len(word.parts) == 1 else None
    return value if isinstance(value, str) else None


def _reads(cond: Sequence[Stmt]) -> bool:
    return any(name == "read" for name in _names(cond))


def _names(stmts: Sequence[Stmt], *, foreground: bool = False) -> Iterator[str]:
    for stmt in _all_statements(stmts, foreground=foreground):
        if isinstance(stmt.cmd, CallExpr):
            for word in stmt.cmd.args[:2]:
                if (name := _literal(word)) is not None:
                    yield name.rpartition("/")[2]


def _all_statements(stmts: Sequence[Stmt], *, foreground: bool = False) -> Iterator[Stmt]:
    """These statements and those inside them, functions left out; with `foreground`, only those that are waited for."""
    for stmt in stmts:
        if foreground and stmt.background:
            continue
        yield stmt
        yield from _all_statements(_inside(stmt.cmd), foreground=foreground)


def _inside(cmd: Command | None) -> Sequence[Stmt]:
    match cmd:
        case BinaryCmd():
            return [cmd.x, cmd.y]
        case Block() | Subshell():
            return cmd.stmts
        case IfClause():
            return list(_arms(cmd))
        case WhileClause():
            return [*cmd.cond, *cmd.do]
        case ForClause():
            return cmd.do
        case CaseClause():
            return [stmt for item in cmd.items for stmt in item.stmts]
        case _:
            return ()


def _arms(clause: Clause | None) -> Iterator[Stmt]:
    while clause is not None:
        yield from (*clause.cond, *clause.then)
        clause = clause.else_


def _grows(name: str, value: Word, append: bool) -> bool:
    """Is the variable built from itself?"""
    uses = 0
    for part in value.parts:
        inner = part.parts if isinstance(part, DblQuoted) else [part]
        uses += sum(isinstance(p, ParamExp) and p.param is not None and p.param.value == name for p in inner)
        if any(isinstance(p, CmdSubst | ArithmExp) for p in inner):
            return False
    return uses >= (1 if append else 2)


def _varies(word: Word | None) -> bool:
    """Is it another name each time?"""
    parts = [p for part in word.parts for p in (part.parts if isinstance(part, DblQuoted) else [part])] if word else []
    return any(isinstance(part, ArithmExp | CmdSubst) for part in parts) or any(
        isinstance(part, ParamExp)
        and part.param is not None
        and part.param.value in ("RANDOM", "SRANDOM", "EPOCHREALTIME")
        for part in parts
    )


def _first_names(stmts: Sequence[Stmt]) -> Iterator[str]:
    for stmt in _all_statements(stmts):
        if isinstance(stmt.cmd, CallExpr) and stmt.cmd.args:
            yield _literal(stmt.cmd.args[0]) or "?"


def _waits(stmt: Stmt) -> bool:
    """Does this statement take its time, or end the loop? A pause of nothing is none."""
    if not isinstance(stmt.cmd, CallExpr):
        return False
    texts = [_literal(word) or "" for word in stmt.cmd.args[:3]]
    name = texts[0].rpartition("/")[2] if texts else ""
    if name in ("sudo", "command", "builtin", "env", "exec"):
        texts = texts[1:]
        name = texts[0].rpartition("/")[2] if texts else ""
    if name in ("sleep", "usleep", "timeout") and len(texts) > 1:
        return seconds(texts[1]) >= MIN_PAUSE_S
    return name in PACED


def _is_left_behind(stmt: Stmt) -> bool:
    """Does a process of this statement outlive it?"""
    if stmt.background or isinstance(stmt.cmd, CoprocClause):
        return True
    texts = [_literal(word) or "" for word in stmt.cmd.args] if isinstance(stmt.cmd, CallExpr) else []
    if texts and texts[0] in SHELLS:
        return any(text.rstrip().endswith("&") for text in texts[1:])
    return texts[:1] != [] and texts[0] in LEAVES


def _makes_files(stmts: Sequence[Stmt], *, by_variable: bool = False) -> str:
    """How a body makes another file each time, or nothing. With `by_variable`, a variable in its name is enough."""
    made = next((name for name in _names(stmts) if name in MAKES_FILES), None)
    if made is not None:
        return f"makes new files with {made}"
    redirects = [r for stmt in _all_statements(stmts) for r in stmt.redirs if r.op in WRITES]
    varies = any(_varies(r.word) or (by_variable and _holds_variable(r.word)) for r in redirects)
    return "makes new files" if varies else ""


def _holds_variable(word: Word | None) -> bool:
    parts = [p for part in word.parts for p in (part.parts if isinstance(part, DblQuoted) else [part])] if word else []
    return any(isinstance(part, ParamExp) for part in parts)


def _rounds(parts: Parts) -> int:
    """How many words a list is that is not written out, as far as it tells."""
    details = [part.detail for part in parts if isinstance(part, Gap)]
    return HUGE_COUNT if "seq many" in details else MAX_ROUNDS + 1 if "seq" in details else 0


def _largest_number(node: object) -> int:
    """The largest number that is written in a condition."""
    if isinstance(node, Lit):
        return int(node.value) if node.value.isdecimal() and len(node.value) < 20 else 0
    if isinstance(node, list):
        return max((_largest_number(item) for item in node), default=0)
    if isinstance(node, msgspec.Struct) and not isinstance(node, Position):
        return max((_largest_number(getattr(node, name)) for name in node.__struct_fields__), default=0)
    return 0


def _to_nothing(stmt: Stmt) -> bool:
    return any(redirect.word and _literal(redirect.word) == "/dev/null" for redirect in stmt.redirs)
