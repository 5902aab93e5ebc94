"""Parameter expansion: `$x`, `${x:-word}`, `${x//a/b}`, `${!x}`, `"${a[@]:1}"` and their relatives.

A result is a choice of lists: the values that the expansion may have, each a list because `$@` and arrays are several
words. What cannot be known is a gap.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TypeAlias

from server_monitor.tasks.policy import ansi_c, globs
from server_monitor.tasks.policy.arithmetic import evaluated, evaluated_text
from server_monitor.tasks.policy.shell import Shell
from server_monitor.tasks.policy.state import UNSET, Var
from server_monitor.tasks.policy.tree import ArithmExpr, ParamExp, Word
from server_monitor.tasks.policy.values import Gap, Glob, Parts, Shape, Source, flat, globbed, joined, shown, text_of

Items: TypeAlias = tuple[Parts, ...]
Choices: TypeAlias = tuple[Items, ...]

MAX_REFERENCES = 8
NAME = re.compile(r"[A-Za-z_]\w*")
_ELEMENT = re.compile(r"([A-Za-z_]\w*)\[(.*)\]", re.DOTALL)
_NUMBER: Parts = (Gap(Source.OUTPUT, Shape.NUMBER),)


def is_list(node: ParamExp) -> bool:
    """Does it stay several words inside double quotes?"""
    name = node.param.value if node.param else ""
    if node.length:
        return False
    return name == "@" or _list_index(node.index) == "@" or node.names == "@"


def expanded(node: ParamExp, shell: Shell, *, quoted: bool) -> Choices:
    """The values of this expansion. Substitutions inside it run."""
    name = node.param.value if node.param else ""
    if node.nested_param is not None or not name:
        return (((Gap(Source.PARAMETER),),),)
    if node.names:
        return (tuple((found,) for found in sorted(shell.state.vars) if found.startswith(name)),)
    choices = _base(node, name, shell, quoted)
    if node.length:
        return tuple((_length(node, items),) for items in choices)
    if node.slice is not None:
        choices = tuple(_sliced(node, items, shell) for items in choices)
    if node.repl is not None:
        choices = tuple(tuple(_replaced(node, item, shell) for item in items) for items in choices)
    if node.exp is not None:
        choices = _operated(node, name, choices, shell)
    return choices


def lookup(name: str, shell: Shell) -> Choices:
    """The values of a variable or parameter by its name alone."""
    state = shell.state
    if name.isdigit():
        place = int(name)
        if place == 0:
            return ((state.zero,),)
        found = state.positional[place - 1 : place]
        return tuple((parts,) for parts in (found[0].parts, *found[0].alts)) if found else (((),),)
    if name in "@*":
        return (tuple(field.parts for field in state.positional),)
    if name == "#":
        return (((str(len(state.positional)),),),)
    if name in "?$!-_":
        return ((_NUMBER,),)
    var = resolved(name, shell)
    if var.items is not None:
        return ((var.items[0][1],),) if var.items else (((),),)
    return tuple((value,) for value in var.values)


def resolved(name: str, shell: Shell) -> Var:
    """The variable behind a name, through namerefs."""
    for _ in range(MAX_REFERENCES):
        var = shell.state.vars.get(name, UNSET)
        if not var.ref:
            return var
        name = var.ref
    return Var(((Gap(Source.PARAMETER),),))


def target_of(name: str, shell: Shell) -> str:
    """The name that an assignment to `name` really changes."""
    for _ in range(MAX_REFERENCES):
        ref = shell.state.vars.get(name, UNSET).ref
        if not ref:
            return name
        name = ref
    return name


def _base(node: ParamExp, name: str, shell: Shell, quoted: bool) -> Choices:
    if node.excl:
        return _indirect(name, shell)
    if node.index is None:
        choices = lookup(name, shell)
        if name == "*" and quoted:
            return tuple((joined(*_between(items)),) for items in choices)
        return choices
    var = resolved(name, shell)
    items = var.items if var.items is not None else tuple(("0", value) for value in var.values if value)
    listed = _list_index(node.index)
    if listed:
        values = tuple(value for _, value in items)
        return ((joined(*_between(values)),),) if listed == "*" and quoted else (values,)
    key = _key(node.index, shell)
    if key is None:
        # Whichever element it is, it is one of them.
        return tuple(((value,) for _, value in items[:8])) or (((),),)
    if key.lstrip("-").isdigit() and key.startswith("-"):
        return ((items[int(key)][1],),) if len(items) >= -int(key) else (((),),)
    return next((((value,),) for found, value in items if found == key), (((),),))


def _between(items: Items) -> list[Parts]:
    found: list[Parts] = []
    for item in items:
        found += [(" ",), item] if found else [item]
    return found


def _indirect(name: str, shell: Shell) -> Choices:
    found: list[Items] = []
    for items in lookup(name, shell):
        text = text_of(items[0]) if items else ""
        if text is None:
            found.append(((Gap(Source.PARAMETER),),))
        elif match := _ELEMENT.fullmatch(text):
            shell.expand_text(match[2])
            var = resolved(match[1], shell)
            found += [(value,) for _, value in var.items or ()]
        elif text in ("@", "*") or text.isdigit() or NAME.fullmatch(text):
            found += lookup(text, shell)
    return tuple(found) or (((),),)


def _list_index(index: ArithmExpr | None) -> str:
    if isinstance(index, Word) and len(index.parts) == 1:
        value = getattr(index.parts[0], "value", "")
        return value if value in ("@", "*") else ""
    return ""


def _key(index: ArithmExpr, shell: Shell) -> str | None:
    if isinstance(index, Word):
        text = text_of(shell.value(index)[0])
        if text is not None and not text.lstrip("-").isdigit():
            shell.expand_text(text)
            number = evaluated_text(text, shell)
            return text if number is None or number == 0 else str(number)
        return text
    number = evaluated(index, shell)
    return None if number is None else str(number)


def key_of(index: ArithmExpr, shell: Shell) -> str | None:
    """The index of an array element, or None when it cannot be known."""
    return _key(index, shell)


def _length(node: ParamExp, items: Items) -> Parts:
    if _list_index(node.index) or (node.param and node.param.value in "@*"):
        return (str(len(items)),)
    text = text_of(items[0]) if items else ""
    return _NUMBER if text is None else (str(len(text)),)


def _sliced(node: ParamExp, items: Items, shell: Shell) -> Items:
    assert node.slice is not None
    first = evaluated(node.slice.offset, shell)
    length = evaluated(node.slice.length, shell) if node.slice.length is not None else None
    unknown_length = node.slice.length is not None and length is None
    if first is None or unknown_length:
        return tuple((Gap(Source.PARAMETER),) for _ in items)
    if is_list(node) or _list_index(node.index) or (node.param and node.param.value == "*"):
        offset = max(0, first - 1) if node.param and node.param.value in "@*" else first
        chosen = items[offset:]
        return chosen if length is None else chosen[:length]
    return tuple(_cut(item, first, length) for item in items)


def _cut(item: Parts, first: int, length: int | None) -> Parts:
    text = text_of(item)
    if text is None:
        return (replace(gap, shape=Shape.ANY) if isinstance(gap := item[-1], Gap) else Gap(Source.PARAMETER),)
    begin = first if first >= 0 else max(0, len(text) + first)
    tail = text[begin:]
    if length is None:
        return (tail,) if tail else ()
    cut = tail[:length] if length >= 0 else tail[: len(tail) + length]
    return (cut,) if cut else ()


def _pattern(word: Word | None, shell: Shell) -> str | None:
    """The text of a pattern, its quoted characters escaped; None when it is not known."""
    if word is None:
        return ""
    return shell.pattern(word)


def _is_pattern(item: Parts) -> bool:
    """Is it the names that a pattern stands for, with nothing else unknown?"""
    return any(isinstance(part, Glob) for part in item) and not any(isinstance(part, Gap) for part in item)


def _replaced(node: ParamExp, item: Parts, shell: Shell) -> Parts:
    assert node.repl is not None
    if _is_pattern(item):
        return globbed(text_of(_replaced(node, (shown(item),), shell)) or "")
    pattern = _pattern(node.repl.orig, shell)
    with_ = text_of(shell.value(node.repl.with_)[0]) if node.repl.with_ else ""
    text = text_of(item)
    if text is None or pattern is None or with_ is None:
        return (Gap(Source.PARAMETER),) if text is None else (text, Gap(Source.PARAMETER))
    if not pattern:
        return item
    anchor = pattern[0] if pattern[0] in "#%" and len(pattern) > 1 else ""
    found = globs.regex(pattern[1:] if anchor else pattern)
    expression = {"#": rf"\A(?:{found})", "%": rf"(?:{found})\Z"}.get(anchor, found)
    new = re.sub(expression, lambda _: with_, text, count=0 if node.repl.all else 1)
    return (new,) if new else ()


def _operated(node: ParamExp, name: str, choices: Choices, shell: Shell) -> Choices:
    assert node.exp is not None
    op, word = node.exp.op, node.exp.word
    if op.lstrip(":") in ("-", "=", "+", "?"):
        return _alternative(op, word, name, choices, shell)
    if op in ("#", "##", "%", "%%"):
        pattern = _pattern(word, shell)
        return tuple(tuple(_trimmed(op, pattern, item) for item in items) for items in choices)
    if op in ("^", "^^", ",", ",,", "~", "~~"):
        return tuple(tuple(_cased(op, item) for item in items) for items in choices)
    return _transformed(word, choices, shell)


def _alternative(op: str, word: Word | None, name: str, choices: Choices, shell: Shell) -> Choices:
    is_set_name = name.isdigit() or name in shell.state.vars or not NAME.fullmatch(name)
    found: list[Items] = []
    for items in choices:
        whole = joined(*items)
        is_open = any(isinstance(part, Gap) for part in whole) and text_of(whole) is None
        is_there = bool(whole) if op.startswith(":") or name.isdigit() else is_set_name
        others = [(value_,) for value_ in shell.value(word)] if word is not None else [((),)]
        if op.endswith("+"):
            found += others if is_there else [((),)]
        elif is_there:
            found += [items, *others] if is_open and op.endswith(("-", "=")) else [items]
        else:
            found += others
            if op.endswith("=") and NAME.fullmatch(name):
                shell.state.vars[target_of(name, shell)] = Var(tuple(item[0] for item in others))
    return tuple(dict.fromkeys(found))


def _trimmed(op: str, pattern: str | None, item: Parts) -> Parts:
    if _is_pattern(item):
        return globbed(text_of(_trimmed(op, pattern, (shown(item),))) or "")
    text = text_of(item)
    if text is None:
        # What is cut off an end leaves the other end as it was known.
        if op.startswith("%") and item and isinstance(item[0], str):
            return (item[0], Gap(Source.PARAMETER, Shape.PATH))
        return tuple(part for part in item if isinstance(part, Gap))[:1]
    if pattern is None:
        return (Gap(Source.PARAMETER),)
    expression = re.compile(globs.regex(pattern), re.DOTALL)
    cuts = range(len(text) + 1) if op in ("#", "%%") else range(len(text), -1, -1)
    for cut in cuts:
        if op.startswith("#") and expression.fullmatch(text, 0, cut):
            return (text[cut:],) if cut < len(text) else ()
        if op.startswith("%") and expression.fullmatch(text, cut):
            return (text[:cut],) if cut else ()
    return item


def _cased(op: str, item: Parts) -> Parts:
    text = text_of(item)
    if not text:
        return item
    change = str.upper if op[0] == "^" else str.lower if op[0] == "," else str.swapcase
    return (change(text),) if len(op) > 1 else (change(text[0]) + text[1:],)


def _transformed(word: Word | None, choices: Choices, shell: Shell) -> Choices:
    """`${x@P}` expands the text once more, and the others quote it."""
    letter = getattr(word.parts[0], "value", "") if word and word.parts else ""
    for items in choices:
        text = text_of(joined(*items))
        if letter == "P" and text:
            shell.expand_text(text)
    if letter in ("U", "u", "L"):
        op = {"U": "^^", "u": "^", "L": ",,"}[letter]
        return tuple(tuple(_cased(op, item) for item in items) for items in choices)
    if letter == "E":
        return tuple(tuple((ansi_c.decoded(text),) if (text := text_of(i)) else i for i in items) for items in choices)
    return choices if letter == "Q" else tuple(tuple((Gap(Source.PARAMETER),) for _ in items) for items in choices)


def as_text(choices: Choices) -> tuple[Parts, ...]:
    """Each choice as one text."""
    return tuple(flat(joined(*_between(items))) for items in choices)
