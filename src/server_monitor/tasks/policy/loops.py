"""Loops: over known words they are unrolled, others run their body once, and once more when that changed a variable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from server_monitor.tasks.policy import words
from server_monitor.tasks.policy.arithmetic import evaluated
from server_monitor.tasks.policy.endless import HUGE_COUNT
from server_monitor.tasks.policy.runaway import is_paced, judge_endless, judge_long
from server_monitor.tasks.policy.state import Var, merged
from server_monitor.tasks.policy.statements import literal, names_in
from server_monitor.tasks.policy.tree import (
    ArithmCmd,
    CallExpr,
    ForClause,
    Lit,
    Position,
    Stmt,
    TestClause,
    WhileClause,
    Word,
    WordIter,
)
from server_monitor.tasks.policy.values import Gap, Parts, Shape, Source, joined, text_of

if TYPE_CHECKING:
    from server_monitor.tasks.policy.walk import Walker

MAX_ROUNDS = 64
MAX_UNROLLED_STEPS = 400
MAX_INPUT_LINES = 64


def for_clause(cmd: ForClause, walker: Walker) -> Parts:
    if isinstance(cmd.loop, WordIter):
        return _for_words(cmd, cmd.loop, walker)
    if cmd.loop is None:
        return _body(cmd.do, walker, is_endless=True)
    evaluated(cmd.loop.init, walker)
    printed: list[Parts] = []
    holds: int | None = None
    if cmd.loop.cond is None:
        return _body(cmd.do, walker, is_endless=True)
    for _ in range(MAX_ROUNDS):
        holds = evaluated(cmd.loop.cond, walker)
        if holds == 0:
            return joined(*printed)
        if holds is None or walker.account.steps > MAX_UNROLLED_STEPS:
            break
        printed.append(walker.run(cmd.do))
        evaluated(cmd.loop.post, walker)
    if holds != 0:
        judge_long(cmd.do, walker, rounds=_largest_number(cmd.loop.cond))
    return joined(*printed, _body(cmd.do, walker))


def _for_words(cmd: ForClause, loop: WordIter, walker: Walker) -> Parts:
    name = loop.name.value if loop.name else "_"
    listed = bool(loop.items) or (loop.in_pos is not None and loop.in_pos.offset > 0)
    fields = words.expand_all(loop.items, walker) if listed else list(walker.state.positional)
    values = [parts for item in fields for parts in (item.parts, *item.alts)]
    rounds = max(len(values), words.count(loop.items), *(_rounds(parts) for parts in values), 0)
    if rounds > MAX_ROUNDS:
        judge_long(cmd.do, walker, rounds=rounds)
    printed: list[Parts] = []
    for place, parts in enumerate(values):
        if place >= MAX_ROUNDS or walker.account.steps > MAX_UNROLLED_STEPS:
            walker.state.vars[name] = Var(tuple(values[place : place + 8]))
            printed.append(walker.run(cmd.do))
            break
        walker.state.vars[name] = Var((_one_word(parts),))
        printed.append(walker.run(cmd.do))
    return joined(*printed)


def while_clause(cmd: WhileClause, walker: Walker) -> Parts:
    is_endless = _is_always(cmd)
    if not is_endless and walker.stdin.is_known and _reads(cmd.cond):
        return _while_reading(cmd, walker)
    walker.run(cmd.cond)
    if not is_endless and (rounds := max((_largest_number(stmt) for stmt in cmd.cond), default=0)) >= HUGE_COUNT:
        judge_long(cmd.do, walker, rounds=rounds)
    return _body(cmd.do, walker, is_endless=is_endless, cond=cmd.cond)


def _while_reading(cmd: WhileClause, walker: Walker) -> Parts:
    printed: list[Parts] = []
    for _ in range(MAX_INPUT_LINES):
        if not walker.stdin.parts:
            break
        walker.run(cmd.cond)
        printed.append(walker.run(cmd.do))
    return joined(*printed)


def _body(stmts: Sequence[Stmt], walker: Walker, *, is_endless: bool = False, cond: Sequence[Stmt] = ()) -> Parts:
    """A body that runs any number of times: once, and once more when the first time changed a variable."""
    before = walker.state.copy()
    walker.endless += is_endless
    paced = is_endless and is_paced([*cond, *stmts])
    try:
        if is_endless and not paced:
            judge_endless(stmts, walker)
        printed = walker.run(stmts)
        changed = {name for name, var in walker.state.vars.items() if before.vars.get(name) != var}
        if changed:
            merged([before, walker.state.copy()], walker.state)
            walker.run(stmts)
    finally:
        walker.endless -= is_endless
    if text_of(printed) == "":
        return ()
    return (Gap(Source.ENDLESS if is_endless and not paced else Source.OUTPUT),)


def _one_word(parts: Parts) -> Parts:
    """An item of a list that was split already."""
    return tuple(
        replace(part, splits=False, shape=Shape.PATH if part.shape is Shape.ANY else part.shape)
        if isinstance(part, Gap)
        else part
        for part in parts
    )


def _is_always(cmd: WhileClause) -> bool:
    """`while true`, `while :`, `until false` and their like."""
    only = cmd.cond[0] if len(cmd.cond) == 1 else None
    if only is None or only.cmd is None:
        return False
    if isinstance(only.cmd, ArithmCmd):
        return isinstance(only.cmd.x, Word) and literal(only.cmd.x) not in ("0", None)
    if isinstance(only.cmd, TestClause):
        return isinstance(only.cmd.x, Word)
    if not isinstance(only.cmd, CallExpr):
        return False
    texts = [literal(word) for word in only.cmd.args]
    if texts[:1] == ["sleep"] and not cmd.until:
        return True
    if texts[:1] in (["["], ["test"]):
        inner = [text for text in texts[1:] if text != "]"]
        if len(inner) == 2 and inner[0] in ("-e", "-f", "-d", "-s"):
            return inner[1] is not None  # Nothing says that it ever comes to be or goes.
        return len(inner) == 1 or (len(inner) == 3 and inner[0] is not None and inner[0] == inner[2])
    wanted = (["false"], ["/bin/false"]) if cmd.until else (["true"], [":"], ["/bin/true"])
    return texts in wanted or (texts[:1] == ["echo"] and not cmd.until) or texts[:1] == ["printf"]


def _reads(cond: Sequence[Stmt]) -> bool:
    return any(name == "read" for name in names_in(cond))


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
