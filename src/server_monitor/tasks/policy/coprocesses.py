"""`coproc`: a process of its own, whose standard input is a descriptor of the shell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from server_monitor.tasks.policy.state import Var
from server_monitor.tasks.policy.statements import literal
from server_monitor.tasks.policy.tree import CallExpr, CoprocClause, Lit, Stmt, Word
from server_monitor.tasks.policy.values import Field, Parts

if TYPE_CHECKING:
    from server_monitor.tasks.policy.walk import Walker


def coproc(cmd: CoprocClause, walker: Walker) -> Parts:
    """A process of its own, whose standard input is a descriptor of this shell."""
    if cmd.stmt is None:
        return ()
    stmt = _started(cmd)
    named = cmd.name is not None and not isinstance(cmd.stmt.cmd, CallExpr | None)
    name = (literal(cmd.name) if named and cmd.name is not None else None) or "COPROC"
    number = str(60 + len(walker.sinks))
    walker.sinks[number] = Field((walker.waiting([stmt]),), walker.located(cmd))
    walker.state.vars[name] = Var(items=(("0", ("61",)), ("1", (number,))))
    with walker.subshell(), walker.descended(), walker.forked():
        return walker.statement(stmt)


def _started(cmd: CoprocClause) -> Stmt:
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
