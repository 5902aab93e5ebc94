"""Trees of texts so plain that there is nothing to parse: words of letters between blanks.

Commands inside commands are mostly such, `sh -c 'systemctl restart nginx'`, and a parser process for each would cost
more than all the rest. The command itself always goes through the parser.
"""

import re

from server_monitor.tasks.policy.tree import CallExpr, File, Lit, Position, Stmt, Word

# No character here means anything to a shell, and no first word here is one of its own.
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,-]+(?: [A-Za-z0-9_./:@%+,-]+)*")
_WORD = re.compile(r"[^ ]+")
RESERVED = frozenset(
    [
        "if",
        "then",
        "elif",
        "else",
        "fi",
        "while",
        "until",
        "for",
        "do",
        "done",
        "case",
        "esac",
        "in",
        "function",
        "select",
        "time",
        "coproc",
        "declare",
        "typeset",
        "local",
        "export",
        "readonly",
        "nameref",
        "let",
    ]
)


def plain_tree(text: str) -> File | None:
    """The tree that the parser would give, or None when the text needs one."""
    if not _PLAIN.fullmatch(text) or text.partition(" ")[0] in RESERVED:
        return None
    words = [
        Word(Position(m.start()), Position(m.end()), [Lit(Position(m.start()), Position(m.end()), m[0])])
        for m in _WORD.finditer(text)
    ]
    start, end = Position(0), Position(len(text))
    return File(start, end, [Stmt(start, end, CallExpr(start, end, [], words))])
