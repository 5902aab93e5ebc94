"""A shell script as a typed tree, read from the JSON that `shfmt --to-json` writes.

Field names and kinds are those of the package `mvdan.cc/sh/v3/syntax`; what no rule looks at is left out and skipped
by the decoder. A kind of node that is not listed here does not decode, so that a newer parser can never slip a
construct past the rules.

```json
{"Type":"File","Stmts":[{"Cmd":{"Type":"CallExpr","Args":[{"Parts":[{"Type":"Lit","Value":"ls"}]}]}}]}
```
"""

from __future__ import annotations

import msgspec


# A tree has no cycles, so the collector of those need not look at its thousands of nodes (`gc=False`).
class Position(msgspec.Struct, rename="pascal", gc=False):
    offset: int = 0  # In bytes from the start of the text.


class Node(msgspec.Struct, rename="pascal", gc=False):
    """What has a place in the text; `end` is the byte after it."""

    pos: Position
    end: Position


class Lit(Node, tag="Lit", tag_field="Type"):
    """Unquoted or double-quoted text; its backslashes still stand there."""

    value: str = ""


class SglQuoted(Node, tag="SglQuoted", tag_field="Type"):
    value: str = ""
    dollar: bool = False  # $'…', whose escapes still stand there.


class DblQuoted(Node, tag="DblQuoted", tag_field="Type"):
    parts: list[WordPart] = []
    dollar: bool = False


class CmdSubst(Node, tag="CmdSubst", tag_field="Type"):
    stmts: list[Stmt] = []
    backquotes: bool = False
    temp_file: bool = False
    reply_var: bool = False


class Expansion(msgspec.Struct, rename="pascal", gc=False):
    op: str = ""
    word: Word | None = None


class Slice(msgspec.Struct, rename="pascal", gc=False):
    offset: ArithmExpr | None = None
    length: ArithmExpr | None = None


class Replace(msgspec.Struct, rename="pascal", gc=False):
    all: bool = False
    orig: Word | None = None
    with_: Word | None = msgspec.field(default=None, name="With")


class ParamExp(Node, tag="ParamExp", tag_field="Type"):
    short: bool = False
    excl: bool = False
    length: bool = False
    width: bool = False
    plus: bool = False
    param: Lit | None = None
    nested_param: WordPart | None = None
    index: ArithmExpr | None = None
    slice: Slice | None = None
    repl: Replace | None = None
    names: str = ""
    exp: Expansion | None = None


class ArithmExp(Node, tag="ArithmExp", tag_field="Type"):
    x: ArithmExpr | None = None


class ProcSubst(Node, tag="ProcSubst", tag_field="Type"):
    op: str = ""
    stmts: list[Stmt] = []


class ExtGlob(Node, tag="ExtGlob", tag_field="Type"):
    op: str = ""
    pattern: Lit | None = None


WordPart = Lit | SglQuoted | DblQuoted | CmdSubst | ParamExp | ArithmExp | ProcSubst | ExtGlob


class Word(Node, tag="Word", tag_field="Type"):
    parts: list[WordPart] = []


class BinaryArithm(Node, tag="BinaryArithm", tag_field="Type"):
    op: str = ""
    x: ArithmExpr | None = None
    y: ArithmExpr | None = None


class UnaryArithm(Node, tag="UnaryArithm", tag_field="Type"):
    op: str = ""
    post: bool = False
    x: ArithmExpr | None = None


class ParenArithm(Node, tag="ParenArithm", tag_field="Type"):
    x: ArithmExpr | None = None


ArithmExpr = Word | BinaryArithm | UnaryArithm | ParenArithm


class ArrayElem(Node):
    index: ArithmExpr | None = None
    value: Word | None = None


class ArrayExpr(Node):
    elems: list[ArrayElem] = []


class Assign(Node):
    append: bool = False
    naked: bool = False
    name: Lit | None = None
    index: ArithmExpr | None = None
    value: Word | None = None
    array: ArrayExpr | None = None


class Redirect(Node):
    op: str = ""
    n: Lit | None = None
    word: Word | None = None
    hdoc: Word | None = None


class CallExpr(Node, tag="CallExpr", tag_field="Type"):
    assigns: list[Assign] = []
    args: list[Word] = []


class Subshell(Node, tag="Subshell", tag_field="Type"):
    stmts: list[Stmt] = []


class Block(Node, tag="Block", tag_field="Type"):
    stmts: list[Stmt] = []


class Clause(Node):
    """The arms of an `if`: the last has no condition when it is an `else`."""

    cond: list[Stmt] = []
    then: list[Stmt] = []
    else_: Clause | None = msgspec.field(default=None, name="Else")


class IfClause(Clause, tag="IfClause", tag_field="Type"):
    pass


class WhileClause(Node, tag="WhileClause", tag_field="Type"):
    until: bool = False
    cond: list[Stmt] = []
    do: list[Stmt] = []


class WordIter(Node, tag="WordIter", tag_field="Type"):
    name: Lit | None = None
    in_pos: Position | None = None
    items: list[Word] = []


class CStyleLoop(Node, tag="CStyleLoop", tag_field="Type"):
    init: ArithmExpr | None = None
    cond: ArithmExpr | None = None
    post: ArithmExpr | None = None


class ForClause(Node, tag="ForClause", tag_field="Type"):
    select: bool = False
    loop: WordIter | CStyleLoop | None = None
    do: list[Stmt] = []


class BinaryCmd(Node, tag="BinaryCmd", tag_field="Type"):
    op: str
    x: Stmt
    y: Stmt


class FuncDecl(Node, tag="FuncDecl", tag_field="Type"):
    name: Lit
    body: Stmt


class ArithmCmd(Node, tag="ArithmCmd", tag_field="Type"):
    x: ArithmExpr | None = None


class UnaryTest(Node, tag="UnaryTest", tag_field="Type"):
    op: str = ""
    x: TestExpr | None = None


class BinaryTest(Node, tag="BinaryTest", tag_field="Type"):
    op: str = ""
    x: TestExpr | None = None
    y: TestExpr | None = None


class ParenTest(Node, tag="ParenTest", tag_field="Type"):
    x: TestExpr | None = None


TestExpr = Word | UnaryTest | BinaryTest | ParenTest


class TestClause(Node, tag="TestClause", tag_field="Type"):
    x: TestExpr | None = None


class CaseItem(Node):
    op: str = ""
    patterns: list[Word] = []
    stmts: list[Stmt] = []


class CaseClause(Node, tag="CaseClause", tag_field="Type"):
    word: Word | None = None
    items: list[CaseItem] = []


class DeclClause(Node, tag="DeclClause", tag_field="Type"):
    variant: Lit
    args: list[Assign] = []


class LetClause(Node, tag="LetClause", tag_field="Type"):
    exprs: list[ArithmExpr] = []


class TimeClause(Node, tag="TimeClause", tag_field="Type"):
    stmt: Stmt | None = None


class CoprocClause(Node, tag="CoprocClause", tag_field="Type"):
    name: Word | None = None
    stmt: Stmt | None = None


Command = (
    CallExpr
    | IfClause
    | WhileClause
    | ForClause
    | CaseClause
    | Block
    | Subshell
    | BinaryCmd
    | FuncDecl
    | ArithmCmd
    | TestClause
    | DeclClause
    | LetClause
    | TimeClause
    | CoprocClause
)


class Stmt(Node):
    cmd: Command | None = None
    negated: bool = False
    background: bool = False
    coprocess: bool = False
    redirs: list[Redirect] = []


class File(Node, tag="File", tag_field="Type"):
    stmts: list[Stmt] = []


_decoder = msgspec.json.Decoder(File)


def read(text: bytes) -> File:
    """The tree that the parser wrote. Raises msgspec.DecodeError when it is not one that the rules know."""
    return _decoder.decode(text)
