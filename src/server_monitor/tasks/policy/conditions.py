"""`[[ … ]]`: the words of a test, some of which are expanded once more as arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server_monitor.tasks.policy.arithmetic import evaluated
from server_monitor.tasks.policy.tree import BinaryTest, ParenTest, TestExpr, UnaryTest, Word
from server_monitor.tasks.policy.values import text_of

if TYPE_CHECKING:
    from server_monitor.tasks.policy.walk import Walker


def test(node: TestExpr | None, walker: Walker) -> None:
    match node:
        case Word():
            walker.value(node)
        case UnaryTest():
            test(node.x, walker)
            if node.op in ("-v", "-R") and isinstance(node.x, Word):
                _evaluate(node.x, walker)
        case BinaryTest():
            test(node.x, walker)
            test(node.y, walker)
            if node.op in ("-eq", "-ne", "-lt", "-le", "-gt", "-ge"):
                for side in (node.x, node.y):
                    if isinstance(side, Word):
                        _evaluate(side, walker)
        case ParenTest():
            test(node.x, walker)
        case _:
            pass


def _evaluate(word: Word, walker: Walker) -> None:
    """A text that a test takes as arithmetic, and so expands once more."""
    for choice in walker.value(word):
        if text := text_of(choice):
            walker.expand_text(text)
            if text.isidentifier():
                evaluated(word, walker)
