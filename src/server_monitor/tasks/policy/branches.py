"""Branches: every arm is walked, and what is known afterwards is what any of them may have left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from server_monitor.tasks.policy.state import State, merged
from server_monitor.tasks.policy.tree import CaseClause, Clause, Stmt
from server_monitor.tasks.policy.values import Parts, joined

if TYPE_CHECKING:
    from server_monitor.tasks.policy.walk import Walker


def if_clause(clause: Clause, walker: Walker) -> Parts:
    branches: list[State] = []
    printed: list[Parts] = []
    arm: Clause | None = clause
    saw_else = False
    while arm is not None:
        if arm.cond:
            printed.append(walker.run(arm.cond))
        saw_else = saw_else or not arm.cond
        printed.append(_branch(arm.then, branches, walker))
        arm = arm.else_
    if not saw_else:
        branches.append(walker.state.copy())
    merged(branches, walker.state)
    return either(printed)


def case_clause(cmd: CaseClause, walker: Walker) -> Parts:
    walker.value(cmd.word)
    branches: list[State] = [walker.state.copy()]
    printed = []
    for item in cmd.items:
        for pattern in item.patterns:
            walker.value(pattern)
        printed.append(_branch(item.stmts, branches, walker))
    merged(branches, walker.state)
    return either(printed)


def _branch(stmts: Sequence[Stmt], branches: list[State], walker: Walker) -> Parts:
    kept = walker.state
    walker.state = kept.copy()
    try:
        return walker.run(stmts)
    finally:
        branches.append(walker.state)
        walker.state = kept


def either(printed: list[Parts]) -> Parts:
    different = list(dict.fromkeys(printed))
    if len(different) == 1:
        return different[0]
    texts = [parts for parts in different if parts]
    return texts[0] if len(texts) == 1 else joined(*different)
