"""Assignments: plain ones, arrays, and those of `declare`, `export`, `local` and `readonly`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from server_monitor.tasks.policy import words
from server_monitor.tasks.policy.arithmetic import evaluated_text
from server_monitor.tasks.policy.parameters import key_of, target_of
from server_monitor.tasks.policy.state import UNSET, Var
from server_monitor.tasks.policy.tree import ArrayExpr, Assign, DeclClause
from server_monitor.tasks.policy.values import Gap, Parts, Shape, Source, joined, text_of

if TYPE_CHECKING:
    from server_monitor.tasks.policy.walk import Walker


def assign(node: Assign, walker: Walker, flags: str = "") -> None:
    """Make one assignment in this shell."""
    if node.name is None:
        return
    name = node.name.value if "n" in flags else target_of(node.name.value, walker)
    old = walker.state.vars.get(name, UNSET)
    if node.array is not None:
        new = _array(node.array, walker)
        items = (*(old.items or ()), *_renumbered(new, old)) if node.append else new
        walker.state.vars[name] = replace(old, items=items, values=((),))
        _mean(name, new, walker)
        return
    values = walker.value(node.value)
    if node.index is not None:
        _assign_element(node, name, old, values[0], walker)
        return
    set_variable(name, values, walker, append=node.append, flags=flags)


def set_variable(
    name: str, values: tuple[Parts, ...], walker: Walker, *, append: bool = False, flags: str = ""
) -> None:
    old = walker.state.vars.get(name, UNSET)
    if "n" in flags:
        walker.state.vars[name] = Var(ref=text_of(values[0]) or "")
        return
    if "i" in flags or old.is_integer:
        values = tuple(_number(value, walker) for value in values)
    if append:
        values = tuple(joined(before, value) for before in old.values for value in values)[:8]
    if "u" in flags or "l" in flags:
        change = str.upper if "u" in flags else str.lower
        values = tuple((change(text),) if (text := text_of(value)) else value for value in values)
    walker.state.vars[name] = Var(values, None, "", "i" in flags or old.is_integer, "x" in flags or old.is_exported)
    walker.changed(name, values)


def declare(node: DeclClause, walker: Walker) -> Parts:
    """`declare`, `local`, `export`, `readonly`, `typeset`, `nameref`."""
    flags = {"export": "x", "nameref": "n"}.get(node.variant.value, "")
    for arg in node.args:
        if arg.name is None:
            text = text_of(walker.value(arg.value)[0]) or ""
            if text.startswith("-"):
                flags += text[1:]
            elif "=" in text:
                # A word that only became an assignment by expansion: declare "$x".
                name, _, value = text.partition("=")
                walker.expand_text(name)
                set_variable(name.partition("[")[0], ((value,) if value else (),), walker, flags=flags)
            continue
        if arg.naked:
            _declare_name(arg.name.value, flags, walker)
        else:
            assign(arg, walker, flags)
    return ()


def _declare_name(name: str, flags: str, walker: Walker) -> None:
    if "f" in flags and "x" in flags:
        walker.state.exported |= {name}
        return
    old = walker.state.vars.get(name)
    if old is None:
        if "n" not in flags and "x" not in flags:
            walker.state.vars[name] = Var(is_integer="i" in flags)
        return
    if "n" in flags:
        walker.state.vars[name] = Var(ref=text_of(old.values[0]) or "")
        return
    walker.state.vars[name] = replace(
        old, is_integer=old.is_integer or "i" in flags, is_exported=old.is_exported or "x" in flags
    )
    if "x" in flags:
        walker.changed(name, old.values)


def _array(node: ArrayExpr, walker: Walker) -> tuple[tuple[str, Parts], ...]:
    found: list[tuple[str, Parts]] = []
    for element in node.elems:
        if element.value is None:
            continue
        if element.index is not None:
            key = key_of(element.index, walker)
            found.append((key if key is not None else "?", walker.value(element.value)[0]))
            continue
        for item in words.expand(element.value, walker):
            found += [(str(len(found)), parts) for parts in (item.parts, *item.alts)]
    return tuple(found)


def _renumbered(items: tuple[tuple[str, Parts], ...], old: Var) -> tuple[tuple[str, Parts], ...]:
    first = len(old.items or ())
    return tuple((str(first + int(key)) if key.isdigit() else key, value) for key, value in items)


# Arrays of the shell that say what a command word means.
_COMMAND_TABLES = frozenset(("BASH_CMDS", "BASH_ALIASES"))


def _mean(name: str, items: Iterable[tuple[str | None, Parts]], walker: Walker) -> None:
    for key, value in items if name in _COMMAND_TABLES else ():
        text = text_of(value)
        if key is not None and text is not None:
            walker.state.aliases[key] = text
        else:
            walker.find("opaque.command_name", "gives a command a meaning that is not known", walker.carrier)


def _assign_element(node: Assign, name: str, old: Var, value: Parts, walker: Walker) -> None:
    assert node.index is not None
    key = key_of(node.index, walker)
    _mean(name, [(key, value)], walker)
    items = dict(old.items or ((("0", old.values[0]),) if old.values[0] else ()))
    place = key if key is not None else "?"
    items[place] = joined(items.get(place, ()), value) if node.append else value
    walker.state.vars[name] = replace(old, items=tuple(items.items()))


def _number(value: Parts, walker: Walker) -> Parts:
    text = text_of(value)
    number = None if text is None else evaluated_text(text, walker)
    return (str(number),) if number is not None else (Gap(Source.OUTPUT, Shape.NUMBER),)
