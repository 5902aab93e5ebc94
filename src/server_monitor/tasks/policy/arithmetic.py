"""Shell arithmetic, as far as it is known. None is a number that only the run will show.

A variable's text is evaluated again in arithmetic, so that `a[$(command)]` in it runs the command; such text is handed
to the shell to look at.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

from server_monitor.tasks.policy.shell import Shell
from server_monitor.tasks.policy.tree import ArithmExpr, BinaryArithm, ParenArithm, UnaryArithm, Word
from server_monitor.tasks.policy.values import text_of

MAX_DEPTH = 8
MAX_NUMBER = 2**63

_NAME = re.compile(r"[A-Za-z_]\w*")
_INTEGER = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]+|\d+#\w+|\d+)")
_ASSIGNS = frozenset({"=", "+=", "-=", "*=", "/=", "%=", "<<=", ">>=", "&=", "|=", "^="})

_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
    "==": lambda a, b: int(a == b),
    "!=": lambda a, b: int(a != b),
    "<": lambda a, b: int(a < b),
    ">": lambda a, b: int(a > b),
    "<=": lambda a, b: int(a <= b),
    ">=": lambda a, b: int(a >= b),
    "&&": lambda a, b: int(bool(a) and bool(b)),
    "||": lambda a, b: int(bool(a) or bool(b)),
    ",": lambda _, b: b,
}


def evaluated(node: ArithmExpr | None, shell: Shell, depth: int = 0) -> int | None:
    """The number, when it is known. Every substitution inside is run, and every assignment made."""
    match node:
        case Word():
            return _word(node, shell, depth)
        case ParenArithm():
            return evaluated(node.x, shell, depth)
        case UnaryArithm():
            return _unary(node, shell, depth)
        case BinaryArithm():
            return _binary(node, shell, depth)
        case _:
            return None


def evaluated_text(text: str, shell: Shell, depth: int = 0) -> int | None:
    """What a text is worth in arithmetic: a number, or the value of the variable that it names."""
    stripped = text.strip()
    if not stripped:
        return 0
    if _INTEGER.fullmatch(stripped):
        return _integer(stripped)
    if "$(" in text or "`" in text or "[" in text:
        shell.expand_text(text)
        return None
    if _NAME.fullmatch(stripped) and depth < MAX_DEPTH:
        return _variable(stripped, shell, depth)
    return None


def _word(node: Word, shell: Shell, depth: int) -> int | None:
    numbers = {
        None if (text := text_of(choice)) is None else evaluated_text(text, shell, depth)
        for choice in shell.value(node)
    }
    return numbers.pop() if len(numbers) == 1 else None


def _variable(name: str, shell: Shell, depth: int) -> int | None:
    numbers = {
        None if (text := text_of(items[0]) if items else "") is None else evaluated_text(text, shell, depth + 1)
        for items in shell.lookup(name)
    }
    return numbers.pop() if len(numbers) == 1 else None


def _integer(text: str) -> int | None:
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-")
    if len(digits) > 24:
        return None
    try:
        if "#" in digits:
            base, _, rest = digits.partition("#")
            return sign * int(rest, int(base))
        if digits[:2].lower() == "0x":
            return sign * int(digits, 16)
        return sign * int(digits, 8 if len(digits) > 1 and digits.startswith("0") else 10)
    except ValueError:
        return None


def _unary(node: UnaryArithm, shell: Shell, depth: int) -> int | None:
    number = evaluated(node.x, shell, depth)
    if node.op in ("++", "--"):
        changed = None if number is None else number + (1 if node.op == "++" else -1)
        _assign(node.x, changed, shell)
        return number if node.post else changed
    if number is None:
        return None
    return {"-": -number, "+": number, "!": int(not number), "~": ~number}.get(node.op)


def _binary(node: BinaryArithm, shell: Shell, depth: int) -> int | None:
    if node.op in _ASSIGNS:
        right = evaluated(node.y, shell, depth)
        result = right if node.op == "=" else _combined(node.op[:-1], evaluated(node.x, shell, depth), right)
        _assign(node.x, result, shell)
        return result
    return _combined(node.op, evaluated(node.x, shell, depth), evaluated(node.y, shell, depth))


def _combined(op: str, left: int | None, right: int | None) -> int | None:
    if op == ",":
        return right
    if left is None or right is None:
        return None
    result = _quotient(op, left, right) if op in ("/", "%", "**", "<<", ">>") else None
    if op in _OPERATORS:
        result = _OPERATORS[op](left, right)
    return result if result is not None and abs(result) < MAX_NUMBER else None


def _quotient(op: str, left: int, right: int) -> int | None:
    if op in ("/", "%"):
        if right == 0:
            return None
        quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
        return quotient if op == "/" else left - quotient * right
    if not 0 <= right < 64:
        return None
    if op == "**":
        return int(left**right)
    return left << right if op == "<<" else left >> right


def _assign(target: ArithmExpr | None, number: int | None, shell: Shell) -> None:
    name = getattr(target.parts[0], "value", "") if isinstance(target, Word) and target.parts else ""
    if _NAME.fullmatch(name):
        shell.assign_number(name, number)
