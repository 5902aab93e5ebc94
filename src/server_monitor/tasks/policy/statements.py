"""What stands in statements: their names, and the statements inside them. Only the tree is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from server_monitor.tasks.policy.tree import (
    BinaryCmd,
    Block,
    CallExpr,
    CaseClause,
    Clause,
    Command,
    ForClause,
    IfClause,
    Stmt,
    Subshell,
    WhileClause,
    Word,
)


def literal(word: Word) -> str | None:
    value = getattr(word.parts[0], "value", None) if len(word.parts) == 1 else None
    return value if isinstance(value, str) else None


def names_in(stmts: Sequence[Stmt], *, foreground: bool = False) -> Iterator[str]:
    for stmt in all_statements(stmts, foreground=foreground):
        if isinstance(stmt.cmd, CallExpr):
            for word in stmt.cmd.args[:2]:
                if (name := literal(word)) is not None:
                    yield name.rpartition("/")[2]


def first_names(stmts: Sequence[Stmt]) -> Iterator[str]:
    for stmt in all_statements(stmts):
        if isinstance(stmt.cmd, CallExpr) and stmt.cmd.args:
            yield literal(stmt.cmd.args[0]) or "?"


def all_statements(stmts: Sequence[Stmt], *, foreground: bool = False) -> Iterator[Stmt]:
    """These statements and those inside them, functions left out; with `foreground`, only those that are waited for."""
    for stmt in stmts:
        if foreground and stmt.background:
            continue
        yield stmt
        yield from all_statements(_inside(stmt.cmd), foreground=foreground)


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
