"""`echo` and `printf`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from server_monitor.tasks.policy import ansi_c, endless
from server_monitor.tasks.policy.values import Field, Gap, Parts, Shape, Source, flat, joined, text_of

if TYPE_CHECKING:
    from server_monitor.tasks.policy.calls import Call


def echo(call: Call) -> Parts:
    args = list(call.args)
    escapes = call.is_posix
    newline = True
    while args and re.fullmatch(r"-[neE]+", args[0].text or "") and not (call.is_posix and args[0].text != "-n"):
        flags = args.pop(0).text or ""
        newline = newline and "n" not in flags
        escapes = "e" in flags or (escapes and "E" not in flags)
    text = _spaced(args)
    if escapes:
        text = tuple(ansi_c.decoded(part) if isinstance(part, str) else part for part in text)
    return joined(text, ("\n",) if newline else ())


def _spaced(args: list[Field]) -> Parts:
    pieces: list[Parts] = []
    for arg in args:
        pieces += [(" ",), flat(arg.parts)] if pieces else [flat(arg.parts)]
    return joined(*pieces)


_CONVERSION = re.compile(r"%(%|[-+ #0']*(?:\d+|\*)?(?:\.(?:\d+|\*))?(?:\([^)]*\)T|[a-zA-Z]))")


def printf(call: Call) -> Parts:
    args = list(call.args)
    if args and args[0].text == "--":
        args = args[1:]
    if len(args) > 1 and args[0].text == "-v":
        args = args[2:]
    judge_width(args, call)
    return formatted(args)


def judge_width(args: list[Field], call: Call) -> None:
    """A width that no memory and no disk holds."""
    template = args[0].prefix if args else ""
    widths = re.findall(r"%[-+ #0']*\.?(\d+)", template)
    if "*" in template:
        widths += [arg.text for arg in args[1:] if (arg.text or "").isdigit()]
    if any(int(width) >= endless.HUGE_WIDTH for width in widths if width and len(width) < 4000):
        call.walker.find("bomb.fill", "pads a text to a size that no host has", call.span)


def formatted(args: list[Field]) -> Parts:
    """What `printf` makes of its format and arguments; the format is used again while arguments remain."""
    if not args:
        return ()
    template = args[0].text
    if template is None:
        return (Gap(Source.OUTPUT),)
    rest = args[1:]
    found: list[Parts] = []
    for _ in range(64):
        used = _one_format(template, rest, found)
        rest = rest[used:]
        if not rest or not used:
            break
    return joined(*found)


def _one_format(template: str, args: list[Field], found: list[Parts]) -> int:
    position = used = 0
    for match in _CONVERSION.finditer(template):
        found.append((ansi_c.decoded(template[position : match.start()]),))
        position = match.end()
        if match[1] == "%":
            found.append(("%",))
            continue
        value = flat(args[used].parts) if used < len(args) else ()
        used += 1
        found.append(_converted(match[1], value))
    found.append((ansi_c.decoded(template[position:]),))
    return used


def _converted(spec: str, value: Parts) -> Parts:
    kind = spec[-1]
    text = text_of(value)
    if text is None:
        return value if kind in "sbq" else (Gap(Source.OUTPUT, Shape.NUMBER),)
    if kind == "b":
        return (ansi_c.decoded(text),)
    if kind in "diouxX":
        return (_number(text, kind),)
    if kind == "c":
        return (text[:1],)
    if match := re.search(r"\.(\d+)", spec):
        text = text[: int(match[1])]
    return (text,)


def _number(text: str, kind: str) -> str:
    if text[:1] in ("'", '"') and len(text) > 1:
        value = ord(text[1])
    else:
        try:
            value = int(text or "0", 0)
        except ValueError:
            value = 0
    return format(value, {"i": "d", "u": "d"}.get(kind, kind))
