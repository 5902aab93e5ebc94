"""Loops that run away: bodies that leave a process, a file or a longer variable behind in each of very many rounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from server_monitor.tasks.policy.endless import HUGE_COUNT, seconds
from server_monitor.tasks.policy.programs import SHELLS
from server_monitor.tasks.policy.redirects import WRITES
from server_monitor.tasks.policy.statements import all_statements, first_names, literal, names_in
from server_monitor.tasks.policy.tree import (
    ArithmExp,
    CallExpr,
    CmdSubst,
    CoprocClause,
    DblQuoted,
    ParamExp,
    Stmt,
    Word,
)

if TYPE_CHECKING:
    from server_monitor.tasks.policy.walk import Walker

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


def judge_long(stmts: Sequence[Stmt], walker: Walker, *, rounds: int) -> None:
    """Hundreds of rounds that each leave a process behind, and very many that each leave a file."""
    left = next((stmt for stmt in all_statements(stmts) if _is_left_behind(stmt)), None)
    if left is not None and not is_paced(stmts):
        walker.find("bomb.fork", "starts hundreds of processes at once", walker.located(left))
    if rounds >= HUGE_COUNT and stmts and (made := _makes_files(stmts, by_variable=True)):
        walker.find("bomb.fill", f"{made} in {rounds} rounds", walker.located(stmts[0]))
    if stmts and any(name in ("kill", "pkill") for name in first_names(stmts)) and not is_paced(stmts):
        walker.find("sys.kill_all", "ends hundreds of processes", walker.located(stmts[0]))


def judge_endless(stmts: Sequence[Stmt], walker: Walker) -> None:
    for stmt in all_statements(stmts):
        if _is_left_behind(stmt):
            walker.find("bomb.fork", "starts a new process in each round of an endless loop", walker.located(stmt))
        cmd = stmt.cmd
        if isinstance(cmd, CallExpr):
            for assign in cmd.assigns:
                if assign.name and assign.value and _grows(assign.name.value, assign.value, assign.append):
                    why = f"doubles the variable {assign.name.value} in an endless loop"
                    walker.find("bomb.fill", why, walker.located(stmt))
        if any(redirect.op in (">>", "&>>") for redirect in stmt.redirs) and not _to_nothing(stmt):
            walker.find("bomb.fill", "writes to a file in an endless loop", walker.located(stmt))
    if stmts and (made := _makes_files(stmts)):
        walker.find("bomb.fill", f"{made} in an endless loop", walker.located(stmts[0]))
    elif all(name in QUICK for name in first_names(stmts)):
        walker.find("bomb.fill", "keeps a processor busy without end", walker.located(stmts[0]))


def is_paced(stmts: Sequence[Stmt]) -> bool:
    """Does a round of the loop wait for something, or can it end?"""
    return any(_waits(stmt) for stmt in all_statements(stmts, foreground=True))


def _waits(stmt: Stmt) -> bool:
    """Does this statement take its time, or end the loop? A pause of nothing is none."""
    if not isinstance(stmt.cmd, CallExpr):
        return False
    texts = [literal(word) or "" for word in stmt.cmd.args[:3]]
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
    texts = [literal(word) or "" for word in stmt.cmd.args] if isinstance(stmt.cmd, CallExpr) else []
    if texts and texts[0] in SHELLS:
        return any(text.rstrip().endswith("&") for text in texts[1:])
    return texts[:1] != [] and texts[0] in LEAVES


def _makes_files(stmts: Sequence[Stmt], *, by_variable: bool = False) -> str:
    """How a body makes another file each time, or nothing. With `by_variable`, a variable in its name is enough."""
    made = next((name for name in names_in(stmts) if name in MAKES_FILES), None)
    if made is not None:
        return f"makes new files with {made}"
    redirects = [r for stmt in all_statements(stmts) for r in stmt.redirs if r.op in WRITES]
    varies = any(_varies(r.word) or (by_variable and _holds_variable(r.word)) for r in redirects)
    return "makes new files" if varies else ""


def _holds_variable(word: Word | None) -> bool:
    parts = [p for part in word.parts for p in (part.parts if isinstance(part, DblQuoted) else [part])] if word else []
    return any(isinstance(part, ParamExp) for part in parts)


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


def _to_nothing(stmt: Stmt) -> bool:
    return any(redirect.word and literal(redirect.word) == "/dev/null" for redirect in stmt.redirs)
