"""Text behind filters that pick and change lines and characters: head, cut, tr, sed and their like.

None where the options or the program are more than is understood here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from server_monitor.tasks.policy import ansi_c
from server_monitor.tasks.policy.options import named, split

if TYPE_CHECKING:
    from server_monitor.tasks.policy.calls import Call


def _rev(_call: Call, text: str) -> str:
    return "".join(line.rstrip("\n")[::-1] + ("\n" if line.endswith("\n") else "") for line in text.splitlines(True))


def _tac(_call: Call, text: str) -> str:
    return "".join(line if line.endswith("\n") else line + "\n" for line in reversed(text.splitlines(True)))


def _sort(call: Call, text: str) -> str:
    lines = sorted(text.splitlines(), reverse=any("r" in a.prefix for a in call.args if a.prefix.startswith("-")))
    return "".join(line + "\n" for line in lines)


def _same(_call: Call, text: str) -> str:
    return text


_CLASSES = {
    "[:upper:]": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "[:lower:]": "abcdefghijklmnopqrstuvwxyz",
    "[:digit:]": "0123456789",
    "[:space:]": " \t\n\r\v\f",
    "[:blank:]": " \t",
}


def _tr(call: Call, text: str) -> str | None:
    flags = "".join(a.prefix[1:] for a in call.args if a.prefix.startswith("-") and len(a.prefix) > 1)
    sets = [arg.text for arg in call.args if not (arg.prefix.startswith("-") and len(arg.prefix) > 1)]
    if not sets or any(s is None for s in sets):
        return None
    first = _tr_set(sets[0] or "")
    if "c" in flags or "C" in flags:
        return "".join(c for c in text if c in first) if "d" in flags else None
    if "d" in flags:
        return "".join(c for c in text if c not in first)
    if len(sets) < 2:
        return text
    second = _tr_set(sets[1] or "") or first[:1]
    table = {ord(a): second[min(i, len(second) - 1)] for i, a in reversed(list(enumerate(first)))}
    return text.translate(table)


def _tr_set(text: str) -> str:
    for name, letters in _CLASSES.items():
        text = text.replace(name, letters)
    text = ansi_c.decoded(text)
    return re.sub(r"(.)-(.)", lambda m: "".join(map(chr, range(ord(m[1]), ord(m[2]) + 1))), text, flags=re.DOTALL)[
        :4096
    ]


def _head(call: Call, text: str) -> str | None:
    return _end(call, text, is_head=True)


def _tail(call: Call, text: str) -> str | None:
    return _end(call, text, is_head=False)


def _end(call: Call, text: str, *, is_head: bool) -> str | None:
    joined_args = " ".join(arg.text or "" for arg in call.args)
    match = re.search(r"-(?:-bytes=|c\s*)([+-]?\d+)", joined_args)
    unit: list[str] = list(text) if match else text.splitlines(True)
    match = match or re.search(r"-(?:-lines=|n\s*)?([+-]?\d+)", joined_args)
    count = match[1] if match else "10"
    if is_head:
        kept = unit[: int(count)]
    else:
        kept = unit[int(count) - 1 :] if count.startswith("+") else unit[-int(count.lstrip("-")) :]
    return "".join(kept)


def _cut(call: Call, text: str) -> str | None:
    options = split(call.args, ("c", "b", "d", "f", "characters", "bytes", "delimiter", "fields", "output-delimiter"))
    by_character = options.value("c", "b", "characters", "bytes")
    chosen = by_character or options.value("f", "fields")
    if chosen is None or chosen.text is None:
        return None
    delimiter = given.text if (given := options.value("d", "delimiter")) and given.text else "\t"
    rows = []
    for line in text.splitlines():
        units = list(line) if by_character else line.split(delimiter)
        if not by_character and len(units) == 1:
            rows.append(line)
            continue
        kept = [units[i] for i in _chosen(chosen.text, len(units))]
        rows.append(("" if by_character else delimiter).join(kept))
    return "".join(row + "\n" for row in rows)


def _chosen(ranges: str, size: int) -> list[int]:
    found: set[int] = set()
    for part in ranges.split(","):
        first, dash, last = part.partition("-")
        begin = int(first) if first else 1
        end = (int(last) if last else size) if dash else begin
        found.update(range(begin - 1, min(end, size)))
    return sorted(found)


_SUBSTITUTION = re.compile(r"s(.)(.*?)\1(.*?)\1([gI0-9]*)", re.DOTALL)


def _sed(call: Call, text: str) -> str | None:
    options = split(call.args, ("e", "f", "expression", "file"))
    scripts = [v.text for v in options.all_values("e", "expression")] or [
        options.operands[0].text if options.operands else None
    ]
    if options.has("f", "file", "n"):
        return None
    for script in scripts:
        for one in (script or "\0").split(";"):
            match = _SUBSTITUTION.fullmatch(one.strip())
            if match is None or re.search(r"[][*+?(){}|^$]", match[2].replace("\\/", "")) or "&" in match[3]:
                return _regular_sed(match, text) if match else None
            text = text.replace(_unescaped(match[2]), _unescaped(match[3]), -1 if "g" in match[4] else 1)
    return text


def _regular_sed(match: re.Match[str], text: str) -> str | None:
    """A substitution whose expression means the same to Python."""
    if re.search(r"[\\(){}|+?\[]", match[2]) or "\\" in match[3] or "&" in match[3]:
        return None
    return re.sub(match[2], lambda _: match[3], text, count=0 if "g" in match[4] else 1, flags=re.MULTILINE)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t"}.get(m[1], m[1]), text)


def _awk(call: Call, text: str) -> str | None:
    options = split(call.args, ("F", "v", "f"))
    program = options.operands[0].text if options.operands else None
    match = re.fullmatch(r"\s*\{\s*print(?:\s+(\$\d+|\$NF))?\s*;?\s*\}\s*", program or "")
    if match is None or len(options.operands) > 1:
        return None
    separator = given.text if (given := options.value("F")) else None
    if separator is not None and len(separator) != 1:
        return None
    rows = []
    for line in text.splitlines():
        words = line.split(separator)
        which = match[1]
        if which in (None, "$0"):
            rows.append(line)
        elif which == "$NF":
            rows.append(words[-1] if words else "")
        else:
            place = int(which[1:])
            rows.append(words[place - 1] if place <= len(words) else "")
    return "".join(row + "\n" for row in rows)


def _grep(call: Call, text: str) -> str | None:
    operands = [arg.text for arg in call.args if not arg.prefix.startswith("-")]
    flags = "".join(arg.prefix[1:] for arg in call.args if arg.prefix.startswith("-"))
    if len(operands) != 1 or not operands[0] or re.search(r"[^\w ./:-]", operands[0]) or set(flags) - set("vFEi"):
        return None
    lines = [line for line in text.splitlines(True) if (operands[0] in line) != ("v" in flags)]
    return "".join(lines)


TEXT_FILTERS: dict[str, Callable[[Call, str], str | None]] = {
    "rev": _rev,
    "tac": _tac,
    "sort": _sort,
    "tr": _tr,
    "head": _head,
    "tail": _tail,
    "cut": _cut,
    "sed": _sed,
    "awk": _awk,
    "gawk": _awk,
    "mawk": _awk,
    "grep": _grep,
    **dict.fromkeys(named("uniq tee pv strings fold stdbuf unbuffer dos2unix iconv envsubst paste column"), _same),
}
